//! HTTP-01: what the endpoints in the clear answer to an authority (RFC 8555, section 8.3).

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;

const PREFIX: &str = "/.well-known/acme-challenge/";

/// The challenges that wait for an authority.
#[derive(Debug, Default)]
pub(crate) struct Tokens(RwLock<HashMap<String, String>>);

/// Takes its answer away when it is dropped.
#[derive(Debug)]
pub(crate) struct Token {
    tokens: Arc<Tokens>,
    token: String,
}

impl Tokens {
    pub(super) fn answer(self: &Arc<Self>, token: String, authorization: String) -> Token {
        self.0.write().insert(token.clone(), authorization);
        Token { tokens: self.clone(), token }
    }

    /// What to answer to this path; `None` for every path that is no challenge of ours.
    pub(crate) fn find(&self, path: &str) -> Option<String> {
        let token = path.strip_prefix(PREFIX)?;
        self.0.read().get(token).cloned()
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        self.tokens.0.write().remove(&self.token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_stands_until_it_is_dropped() {
        let tokens = Arc::new(Tokens::default());
        let answer = tokens.answer("abc".to_owned(), "abc.thumb".to_owned());
        assert_eq!(tokens.find("/.well-known/acme-challenge/abc").as_deref(), Some("abc.thumb"));
        assert_eq!(tokens.find("/.well-known/acme-challenge/abd"), None);
        assert_eq!(tokens.find("/abc"), None);
        drop(answer);
        assert_eq!(tokens.find("/.well-known/acme-challenge/abc"), None);
    }
}
