//! The requests that a policy adds to the classes by hand.

use http::Method;

use super::request_class::RequestClass;
use crate::config::policy::ClassesPolicy;

/// The patterns of a policy, in the order of the classes; the first one that fits decides.
#[derive(Debug, Default)]
pub(crate) struct ClassTable(Vec<(Pattern, RequestClass)>);

impl ClassTable {
    pub(crate) fn new(policy: &ClassesPolicy) -> Self {
        let classes = policy.named().into_iter().zip(RequestClass::ALL);
        let patterns = |((_, class), known): ((_, &crate::config::policy::ClassPolicy), _)| {
            class.also.iter().map(|text| (Pattern::new(text), known)).collect::<Vec<_>>()
        };
        Self(classes.flat_map(patterns).collect())
    }

    /// The class of a request: the policy's own, or else the built-in one.
    pub(crate) fn class(&self, method: &Method, path: &str) -> RequestClass {
        let added = self.0.iter().find(|(pattern, _)| pattern.fits(method, path));
        added.map_or_else(|| RequestClass::of(method, path), |(_, class)| *class)
    }
}

/// `METHOD /path`, as the policy's check has found it to be.
#[derive(Debug)]
struct Pattern {
    /// `None` for any.
    method: Option<String>,
    /// `None` for any one.
    segments: Vec<Option<String>>,
    any_rest: bool,
}

impl Pattern {
    fn new(text: &str) -> Self {
        let wild = |word: &str| (word != "*").then(|| word.to_owned());
        let (method, path) = text.split_once(' ').unwrap_or(("*", text));
        let (path, any_rest) = path.strip_suffix("/**").map_or((path, false), |path| (path, true));
        Self { method: wild(method), segments: path.split('/').map(wild).collect(), any_rest }
    }

    fn fits(&self, method: &Method, path: &str) -> bool {
        if self.method.as_deref().is_some_and(|own| own != method.as_str()) {
            return false;
        }
        let mut segments = path.split('/');
        let begins = self.segments.iter().all(|own| {
            let segment = segments.next();
            segment.is_some_and(|segment| own.as_deref().is_none_or(|own| own == segment))
        });
        begins && (self.any_rest || segments.next().is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_adds_requests_to_a_class() {
        let mut policy = ClassesPolicy::default();
        policy.login.also = vec!["POST /_matrix/client/*/token".to_owned(), "* /_oauth/**".to_owned()];
        let table = ClassTable::new(&policy);
        for (method, path, class) in [
            (Method::POST, "/_matrix/client/v1/token", RequestClass::Login),
            (Method::GET, "/_matrix/client/v1/token", RequestClass::Client),
            (Method::POST, "/_matrix/client/v1/token/x", RequestClass::Client),
            (Method::POST, "/_matrix/client/v1", RequestClass::Client),
            (Method::GET, "/_oauth/a/b", RequestClass::Login),
            (Method::GET, "/_oauth2", RequestClass::Other),
            (Method::GET, "/_matrix/client/v3/sync", RequestClass::Sync),
        ] {
            assert_eq!(table.class(&method, path), class, "{path}");
        }
    }
}
