//! Where a redirect of the configuration leads.

use http::{HeaderValue, StatusCode};

/// One redirect.
#[derive(Debug, Clone)]
pub(crate) struct Redirection {
    pub(crate) url: String,
    pub(crate) status: StatusCode,
    /// Whether what follows the route's path, and the query, is appended.
    pub(crate) keep_path: bool,
}

impl Redirection {
    /// The `Location` for a request; `None` when its path cannot be written in a header, which checked ones always can.
    pub(crate) fn location(&self, rest: &str, query: Option<&str>) -> Option<HeaderValue> {
        if !self.keep_path {
            return HeaderValue::from_str(&self.url).ok();
        }
        let base = self.url.trim_end_matches('/');
        let question = if query.is_some() { "?" } else { "" };
        HeaderValue::from_str(&format!("{base}{rest}{question}{}", query.unwrap_or_default())).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_kept_on_request() {
        let to = |url: &str, keep_path| Redirection { url: url.to_owned(), status: StatusCode::FOUND, keep_path };
        assert_eq!(to("https://a/b", false).location("/x", Some("y")).unwrap(), "https://a/b");
        assert_eq!(to("https://a/b/", true).location("/x%2F", Some("y=z")).unwrap(), "https://a/b/x%2F?y=z");
        assert_eq!(to("https://a", true).location("/x", None).unwrap(), "https://a/x");
        assert_eq!(to("https://a/", true).location("", None).unwrap(), "https://a");
    }
}
