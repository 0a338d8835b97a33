//! `[[route]]`: paths that are answered from a folder, sent elsewhere, or passed to another server.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use gatehouse_shared::config::Checker;
use http::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use super::chain_of;
use crate::upstream::tls::Authorities;

/// One path of one host, or of all, and exactly one of `static`, `redirect` and `upstream`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// The host that the route is for, without a port. Left out: every host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The path that the route is for, with everything below it.
    pub path: String,

    /// A folder whose files are served.
    #[serde(rename = "static", skip_serializing_if = "Option::is_none")]
    pub folder: Option<PathBuf>,
    /// The file that stands for a folder.
    #[serde(default = "index")]
    pub index: String,
    /// The file that is served for a path that has none, for programs that run in the browser. Left out: 404.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback: Option<String>,
    /// How long browsers keep a file without asking, in seconds; HTML and JSON are always asked for, and files with a
    /// hash in their name never.
    #[serde(default = "cache_seconds")]
    pub cache_seconds: u64,

    /// The URL to which requests are sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redirect: Option<String>,
    /// The status of the redirect: 301, 302, 303, 307 or 308.
    #[serde(default = "status")]
    pub status: u16,
    /// Whether what follows `path`, and the query, is appended to the URL.
    #[serde(default)]
    pub keep_path: bool,

    /// Addresses of another server: `http://HOST:PORT`, `https://HOST:PORT` or `unix:/PATH`, asked in turn.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub upstream: Vec<BackendAddr>,
    /// PEM file with the authorities that an `https` address is verified by. Left out: those of the system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// Whether `path` is taken off before the request is passed on.
    #[serde(default)]
    pub strip_prefix: bool,
    /// How long connecting may take, in milliseconds.
    #[serde(default = "connect_timeout_ms")]
    pub connect_timeout_ms: u64,
    /// How long the other server may be silent within its answer, in seconds. WebSockets may be silent for ever.
    #[serde(default = "answer_seconds")]
    pub answer_seconds: u64,
    /// Largest body that is passed on, in bytes.
    #[serde(default = "max_body_bytes")]
    pub max_body_bytes: u64,
    /// Headers that are put on the request, in the place of those that have their names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set_request_headers: BTreeMap<String, String>,
    /// Headers that are taken off the request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove_request_headers: Vec<String>,

    /// Headers that are put on the answer, in the place of those that have their names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set_response_headers: BTreeMap<String, String>,
    /// Headers that are taken off the answer, the edge's own security headers included.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove_response_headers: Vec<String>,
}

fn index() -> String {
    "index.html".to_owned()
}

fn cache_seconds() -> u64 {
    3_600
}

fn status() -> u16 {
    302
}

fn connect_timeout_ms() -> u64 {
    5_000
}

fn answer_seconds() -> u64 {
    60
}

fn max_body_bytes() -> u64 {
    50 * 1024 * 1024
}

/// Where another server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackendAddr {
    /// `unix:/PATH`.
    Unix(PathBuf),
    /// `http://HOST:PORT` or `https://HOST:PORT`.
    Tcp {
        /// Whether TLS is spoken.
        tls: bool,
        /// A name or an address; IPv6 without its brackets.
        host: String,
        /// The port.
        port: u16,
    },
}

impl FromStr for BackendAddr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("expected http://HOST:PORT, https://HOST:PORT or unix:/PATH, found {text:?}");
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.starts_with('/') { Ok(Self::Unix(path.into())) } else { Err(expected()) };
        }
        let url = url::Url::parse(text).map_err(|_| expected())?;
        let bare = matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none();
        let anonymous = url.username().is_empty() && url.password().is_none();
        let tls = match url.scheme() {
            "http" => false,
            "https" => true,
            _ => return Err(expected()),
        };
        match (url.host_str(), url.port_or_known_default()) {
            (Some(host), Some(port)) if bare && anonymous => {
                Ok(Self::Tcp { tls, host: host.trim_matches(['[', ']']).to_owned(), port })
            }
            _ => Err(expected()),
        }
    }
}

impl fmt::Display for BackendAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp { tls, host, port } => {
                let scheme = if *tls { "https" } else { "http" };
                if host.contains(':') {
                    write!(f, "{scheme}://[{host}]:{port}")
                } else {
                    write!(f, "{scheme}://{host}:{port}")
                }
            }
        }
    }
}

impl Serialize for BackendAddr {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BackendAddr {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl RouteConfig {
    pub(super) fn check(&self, at: &str, checker: &mut Checker<'_>) {
        let targets = [self.folder.is_some(), self.redirect.is_some(), !self.upstream.is_empty()];
        if targets.iter().filter(|named| **named).count() != 1 {
            checker.reject(at, "needs exactly one of `static`, `redirect` and `upstream`");
        }
        if !self.path.starts_with('/') || !self.path.bytes().all(|byte| byte.is_ascii_graphic()) {
            checker.reject(&format!("{at}.path"), "must begin with / and be written as in a URL");
        }
        if self.path.contains(['?', '#']) {
            checker.reject(&format!("{at}.path"), "is a path without a query");
        }
        let host_is_bare = |host: &String| !host.is_empty() && !host.contains([':', '/', '*']);
        if self.host.as_ref().is_some_and(|host| !host_is_bare(host)) {
            checker.reject(&format!("{at}.host"), "is a host name without a port or a wildcard");
        }
        if let Some(folder) = self.folder.as_ref().filter(|folder| !folder.is_dir()) {
            checker.reject(&format!("{at}.static"), format_args!("{} is not a folder", folder.display()));
        }
        let is_file_name = |name: &str| !name.is_empty() && !name.starts_with('/') && !name.contains("..");
        if !is_file_name(&self.index) {
            checker.reject(&format!("{at}.index"), "is not the name of a file within the folder");
        }
        if self.fallback.as_deref().is_some_and(|name| !is_file_name(name)) {
            checker.reject(&format!("{at}.fallback"), "is not the name of a file within the folder");
        }
        let leads_somewhere = |url: &str| url::Url::parse(url).is_ok() || url.starts_with('/');
        if self.redirect.as_ref().is_some_and(|url| !leads_somewhere(url) || HeaderValue::from_str(url).is_err()) {
            checker.reject(&format!("{at}.redirect"), "is neither a URL nor a path that begins with /");
        }
        if !matches!(self.status, 301 | 302 | 303 | 307 | 308) {
            checker.reject(&format!("{at}.status"), "must be 301, 302, 303, 307 or 308");
        }
        if let Some(Err(error)) = self.ca.as_deref().map(Authorities::load) {
            checker.reject(&format!("{at}.ca"), chain_of(&error));
        }
        if self.connect_timeout_ms == 0 || self.answer_seconds == 0 {
            checker.reject(at, "connect_timeout_ms and answer_seconds must be at least 1");
        }
        self.check_headers(at, checker);
    }

    fn check_headers(&self, at: &str, checker: &mut Checker<'_>) {
        for (key, headers) in
            [("set_request_headers", &self.set_request_headers), ("set_response_headers", &self.set_response_headers)]
        {
            for (name, value) in headers {
                if HeaderName::from_bytes(name.as_bytes()).is_err() || HeaderValue::from_str(value).is_err() {
                    checker.reject(&format!("{at}.{key}"), format_args!("{name:?} cannot be written as a header"));
                }
                if is_framing(name) {
                    checker.reject(&format!("{at}.{key}"), format_args!("{name:?} is the edge's own to set"));
                }
            }
        }
        for (key, names) in [
            ("remove_request_headers", &self.remove_request_headers),
            ("remove_response_headers", &self.remove_response_headers),
        ] {
            for name in names {
                if HeaderName::from_bytes(name.as_bytes()).is_err() || is_framing(name) {
                    checker.reject(&format!("{at}.{key}"), format_args!("{name:?} is no header that can be removed"));
                }
            }
        }
    }
}

/// Headers that say where a message ends or to whom it goes.
fn is_framing(name: &str) -> bool {
    ["content-length", "transfer-encoding", "connection", "upgrade", "trailer", "te"]
        .iter()
        .any(|framing| name.eq_ignore_ascii_case(framing))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_a_round_trip() {
        for text in ["http://127.0.0.1:8080", "https://sso.example.org:8443", "http://[::1]:80", "unix:/run/x.sock"] {
            assert_eq!(text.parse::<BackendAddr>().unwrap().to_string(), text);
        }
        assert_eq!("https://a".parse::<BackendAddr>().unwrap().to_string(), "https://a:443");
        for text in ["127.0.0.1:80", "ftp://a:1", "http://a:1/x", "http://u:p@a:1", "unix:x", "http://a:1?b"] {
            assert!(text.parse::<BackendAddr>().is_err(), "{text}");
        }
    }
}
