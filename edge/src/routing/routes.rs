//! Which configured route takes a request: the host's own before everybody's, and the longest path of those.
//!
//! The paths of Matrix itself are the shards', and the edge's documents stay its own, unless a route's path lies within
//! them: a route for `/` never takes `/_matrix/…` away, one for `/_matrix/client/unstable/org.example` does.

use percent_encoding::percent_decode_str;

/// Paths that only a route which names them takes.
const RESERVED: [&str; 3] = ["/_matrix", "/_synapse", "/.well-known/matrix"];

/// Configured routes, each with what it leads to.
#[derive(Debug)]
pub(crate) struct Routes<T> {
    /// In the order in which they are tried.
    entries: Vec<Entry<T>>,
}

#[derive(Debug)]
struct Entry<T> {
    host: Option<String>,
    path: String,
    /// The path of Matrix that the route lies within.
    within: Option<&'static str>,
    target: T,
}

impl<T> Routes<T> {
    /// Routes of `(host, path, target)`.
    pub(crate) fn new(routes: impl IntoIterator<Item = (Option<String>, String, T)>) -> Self {
        let entry = |(host, path, target): (Option<String>, String, T)| {
            let within = RESERVED.into_iter().find(|reserved| rest_below(&path, reserved).is_some());
            Entry { host: host.map(|host| host.to_ascii_lowercase()), path, within, target }
        };
        let mut entries: Vec<_> = routes.into_iter().map(entry).collect();
        entries.sort_by_key(|entry| (entry.host.is_none(), std::cmp::Reverse(entry.path.len())));
        Self { entries }
    }

    /// The route for a path of a host (perhaps with a port), and what of the path follows the route's own.
    pub(crate) fn find<'p>(&self, host: &str, path: &'p str) -> Option<(&T, &'p str)> {
        if self.entries.is_empty() {
            return None;
        }
        let host = without_port(host);
        let reserved = RESERVED.into_iter().find(|reserved| rest_below(path, reserved).is_some());
        self.entries.iter().find_map(|entry| {
            let host_fits = entry.host.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(host));
            let may_take = reserved.is_none() || entry.within == reserved;
            if !(host_fits && may_take) {
                return None;
            }
            rest_below(path, &entry.path).map(|rest| (&entry.target, rest))
        })
    }
}

/// What of `path` follows `prefix`, if it is that very path or lies below it: nothing, or a slash and what follows.
/// `/app` holds `/app`, `/app/` and `/app/x`, not `/apple`; `/app/` does not hold `/app`.
fn rest_below<'p>(path: &'p str, prefix: &str) -> Option<&'p str> {
    let stem = prefix.strip_suffix('/');
    let rest = path.strip_prefix(stem.unwrap_or(prefix))?;
    let holds = rest.starts_with('/') || rest.is_empty() && stem.is_none();
    holds.then_some(rest)
}

/// The host of `host[:port]`; the colons of a bracketed IPv6 address stay.
pub(crate) fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => host,
        _ => host,
    }
}

/// Whether a server that decodes or cleans the path could end up outside of where it seems to lead. Such paths are not
/// passed to anybody but shards, which read paths as they are written.
pub(crate) fn leads_astray(path: &str) -> bool {
    let decoded = decoded(path);
    decoded.split(|byte| matches!(byte, b'/' | b'\\')).any(|segment| matches!(segment, b"." | b".."))
        || decoded.contains(&0)
}

/// The bytes that a path stands for; a broken percent sign stands for itself.
pub(crate) fn decoded(path: &str) -> Vec<u8> {
    percent_decode_str(path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(routes: &[(Option<&str>, &'static str)]) -> Routes<&'static str> {
        Routes::new(routes.iter().map(|(host, path)| (host.map(str::to_owned), (*path).to_owned(), *path)))
    }

    #[test]
    fn the_longest_path_wins_at_a_segments_end() {
        let routes = routes(&[(None, "/"), (None, "/app"), (None, "/app/admin")]);
        for (path, expected) in [
            ("/", ("/", "/")),
            ("//x", ("/", "//x")),
            ("/apple", ("/", "/apple")),
            ("/app", ("/app", "")),
            ("/app/x", ("/app", "/x")),
            ("/app/admin", ("/app/admin", "")),
            ("/app/administration", ("/app", "/administration")),
        ] {
            assert_eq!(routes.find("a", path).map(|(target, rest)| (*target, rest)), Some(expected), "{path}");
        }
        let below = super::tests::routes(&[(None, "/app/")]);
        assert!(below.find("a", "/app").is_none());
        assert_eq!(below.find("a", "/app/x").map(|(_, rest)| rest), Some("/x"));
    }

    #[test]
    fn a_hosts_own_route_wins_over_a_longer_one_of_everybody() {
        let routes = routes(&[(None, "/app/admin"), (Some("Chat.example.org"), "/app")]);
        let found = |host, path| routes.find(host, path).map(|(target, _)| *target);
        assert_eq!(found("chat.example.org:8443", "/app/admin"), Some("/app"));
        assert_eq!(found("example.org", "/app/admin"), Some("/app/admin"));
        assert_eq!(found("example.org", "/app"), None);
    }

    #[test]
    fn matrix_is_taken_only_by_routes_that_name_it() {
        let everything = routes(&[(None, "/"), (Some("a"), "/")]);
        for path in ["/_matrix", "/_matrix/client/versions", "/_synapse/admin", "/.well-known/matrix/client"] {
            assert!(everything.find("a", path).is_none(), "{path}");
        }
        assert!(everything.find("a", "/.well-known/acme").is_some());
        assert!(everything.find("a", "/_matrixed").is_some());
        let named = routes(&[(None, "/"), (None, "/_matrix/client/unstable/org.example")]);
        let path = "/_matrix/client/unstable/org.example/x";
        assert_eq!(named.find("a", path).map(|(_, rest)| rest), Some("/x"));
        assert!(named.find("a", "/_matrix/client/versions").is_none());
    }

    #[test]
    fn dots_are_seen_however_they_are_spelled() {
        for path in ["/a/../b", "/a/%2e%2E/b", "/a/.%2e", "/a%2f..%2fb", "/a/..%5cb", "/a\\..\\b", "/./a", "/a%00"] {
            assert!(leads_astray(path), "{path}");
        }
        for path in ["/", "/a/...", "/a/.well-known", "/a%2", "/a/..b", "/100%", "//a"] {
            assert!(!leads_astray(path), "{path}");
        }
    }
}
