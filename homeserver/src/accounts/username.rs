//! Decides which localparts may become users.

use ruma::{OwnedUserId, ServerName, UserId};

/// The longest user id, in bytes, with its sigil and server name.
const MAX_USER_ID_BYTES: usize = 255;

/// Why a localpart cannot become a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UsernameError {
    #[error("a user name may only have the characters a-z, 0-9, '.', '_', '=', '-', '/' and '+'")]
    Characters,
    #[error("the user name is too long")]
    TooLong,
}

/// The id that a new user with this localpart has.
///
/// # Errors
/// When the localpart is empty, too long or has characters that the specification reserves for old users.
pub(super) fn parse_new(localpart: &str, server_name: &ServerName) -> Result<OwnedUserId, UsernameError> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._=-/+".contains(&byte);
    if localpart.is_empty() || !localpart.bytes().all(allowed) {
        return Err(UsernameError::Characters);
    }
    let user_id = format!("@{localpart}:{server_name}");
    if user_id.len() > MAX_USER_ID_BYTES {
        return Err(UsernameError::TooLong);
    }
    UserId::parse(user_id).map_err(|_| UsernameError::Characters)
}

#[cfg(test)]
mod tests {
    use ruma::server_name;

    use super::*;

    #[test]
    fn the_grammar_of_the_specification() {
        let parse = |localpart: &str| parse_new(localpart, server_name!("example.org"));
        assert_eq!(parse("a.b_c=d-e/f+0").unwrap(), "@a.b_c=d-e/f+0:example.org");
        for localpart in ["", "Alice", "al ice", "alíce", "a:b", "@a", "a\0"] {
            assert_eq!(parse(localpart), Err(UsernameError::Characters), "{localpart:?}");
        }
        assert_eq!(parse(&"a".repeat(243)), Err(UsernameError::TooLong));
        assert!(parse(&"a".repeat(242)).is_ok());
    }
}
