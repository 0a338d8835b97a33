//! The hint inside an access token that keeps one user on one shard; it never carries correctness.

use std::fmt;

use sha2::{Digest, Sha256};

/// The first four bytes of SHA-256 over the user's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RoutingKey(pub u32);

impl RoutingKey {
    /// The key of a user's id, such as `@alice:example.org`.
    pub fn of_user(user_id: &str) -> Self {
        let digest = Sha256::digest(user_id.as_bytes());
        let [a, b, c, d, ..] = <[u8; 32]>::from(digest);
        Self(u32::from_be_bytes([a, b, c, d]))
    }
}

impl fmt::Display for RoutingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

const PREFIX: &str = "gh_";
const DIGITS: usize = 8;

/// What an access token of this user begins with: `gh_`, eight hex digits, `_`. The random part follows.
pub fn mint_prefix(user_id: &str) -> String {
    format!("{PREFIX}{}_", RoutingKey::of_user(user_id))
}

/// The key inside an access token; `None` for tokens of another shape (of users moved from elsewhere, say).
pub fn token_routing_key(token: &str) -> Option<RoutingKey> {
    let (digits, rest) = token.strip_prefix(PREFIX)?.split_at_checked(DIGITS)?;
    let lower_hex = digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    if !lower_hex || !rest.starts_with('_') {
        return None;
    }
    u32::from_str_radix(digits, 16).ok().map(RoutingKey)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minted_token_carries_its_users_key() {
        let token = format!("{}{}", mint_prefix("@alice:example.org"), "randomness");
        assert_eq!(token_routing_key(&token), Some(RoutingKey::of_user("@alice:example.org")));
        assert_ne!(token_routing_key(&token), Some(RoutingKey::of_user("@bob:example.org")));
    }

    #[test]
    fn other_tokens_have_no_key() {
        for token in
            ["", "gh_", "gh_0000000", "gh_00000000", "gh_0000000G_x", "gh_+0000000_x", "syt_abc", "gh_é0000000_"]
        {
            assert_eq!(token_routing_key(token), None, "{token}");
        }
    }
}
