//! Makes secrets and ids that nobody can guess.

use gatehouse_shared::contract::mint_prefix;
use rand::RngExt as _;
use ruma::UserId;
use sha2::{Digest as _, Sha256};

use crate::storage::access_tokens::TokenDigest;

const LETTERS_AND_DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const UPPER_CASE: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ";
const LOWER_CASE: &[u8] = b"abcdefghijklmnopqrstuvwxyz";

/// A new access token of a user: the edge's routing hint, then 190 bits of chance.
pub(super) fn access_token(user_id: &UserId) -> String {
    mint_prefix(user_id.as_str()) + &random(LETTERS_AND_DIGITS, 32)
}

/// A new refresh token: 238 bits of chance, and no hint.
pub(super) fn refresh_token() -> String {
    format!("ghr_{}", random(LETTERS_AND_DIGITS, 40))
}

/// A new secret of 142 bits, for sessions, nonces and OpenID.
pub(super) fn opaque() -> String {
    random(LETTERS_AND_DIGITS, 24)
}

/// A new device id in the form that is usual: ten upper-case letters.
pub(super) fn device_id() -> String {
    random(UPPER_CASE, 10)
}

/// A localpart for who asks for none.
pub(super) fn localpart() -> String {
    random(LOWER_CASE, 12)
}

/// The only form in which a token is kept.
pub(super) fn digest(token: &str) -> TokenDigest {
    Sha256::digest(token.as_bytes()).into()
}

/// Whether two secrets are equal, in a time that tells nothing about where they differ.
pub(super) fn equal(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len() && left.iter().zip(right).fold(0, |all, (left, right)| all | (left ^ right)) == 0
}

fn random(alphabet: &[u8], length: usize) -> String {
    let mut rng = rand::rng();
    (0..length)
        .filter_map(|_| alphabet.get(rng.random_range(0..alphabet.len())))
        .map(|byte| char::from(*byte))
        .collect()
}

#[cfg(test)]
mod tests {
    use ruma::user_id;

    use super::*;

    #[test]
    fn secrets_have_their_length_and_differ() {
        assert_eq!(device_id().len(), 10);
        assert_ne!(refresh_token(), refresh_token());
        let token = access_token(user_id!("@alice:example.org"));
        assert!(gatehouse_shared::contract::token_routing_key(&token).is_some());
        assert_eq!(token.len(), "gh_00000000_".len() + 32);
    }

    #[test]
    fn equality_is_equality() {
        assert!(equal(b"", b"") && equal(b"same", b"same"));
        assert!(!equal(b"same", b"sama") && !equal(b"same", b"sam"));
    }
}
