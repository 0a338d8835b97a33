//! Whether a client may reach the admin API.

use std::net::IpAddr;

use http::StatusCode;
use ipnet::IpNet;

use super::routes::decoded;

/// From where the admin API may be reached, and what others are told.
#[derive(Debug, Clone)]
pub(crate) struct AdminGate {
    allow: Vec<IpNet>,
    refuse_with: StatusCode,
}

impl AdminGate {
    pub(crate) fn new(allow: &[IpNet], refuse_with: StatusCode) -> Self {
        Self { allow: allow.to_vec(), refuse_with }
    }

    /// What a client is refused with; `None` when it may pass. Its address is canonical.
    pub(crate) fn refuses(&self, client: IpAddr, path: &str) -> Option<StatusCode> {
        let refused = is_admin(path) && !self.allow.iter().any(|prefix| prefix.contains(&client));
        refused.then_some(self.refuse_with)
    }
}

/// Whether a path is of an admin API, however it is spelled. `admin/whois` is not: users may ask it about themselves, and
/// the shard decides.
fn is_admin(path: &str) -> bool {
    if !path.contains("admin") && !path.contains('%') {
        return false;
    }
    let decoded = decoded(path);
    let mut segments = decoded.split(|byte| *byte == b'/').filter(|segment| !segment.is_empty());
    match (segments.next(), segments.next()) {
        (Some(b"_synapse"), Some(b"admin")) => true,
        (Some(b"_matrix"), Some(b"client")) => {
            let _version = segments.next();
            segments.next() == Some(b"admin") && segments.next() != Some(b"whois")
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_admin_api_is_known_by_any_spelling() {
        for path in [
            "/_synapse/admin",
            "/_synapse/admin/v1/register",
            "/_synapse//admin/v1/register",
            "/_synapse/%61dmin/v1/register",
            "/%5fsynapse/admin/v1/register",
            "/_matrix/client/v1/admin/lock/@a:b",
            "/_matrix/client/unstable/admin/x",
        ] {
            assert!(is_admin(path), "{path}");
        }
        for path in [
            "/_synapse/client/admin",
            "/_matrix/client/v3/admin/whois/@a:b",
            "/_matrix/client/v3/rooms/admin",
            "/_matrix/client/v3/profile/@admin:b",
            "/_synapse/administration",
        ] {
            assert!(!is_admin(path), "{path}");
        }
    }

    #[test]
    fn only_allowed_prefixes_pass() {
        let gate = AdminGate::new(&["10.0.0.0/8".parse().unwrap()], StatusCode::NOT_FOUND);
        let refuses = |client: &str, path| gate.refuses(client.parse().unwrap(), path);
        assert_eq!(refuses("10.1.2.3", "/_synapse/admin/x"), None);
        assert_eq!(refuses("192.0.2.1", "/_synapse/admin/x"), Some(StatusCode::NOT_FOUND));
        assert_eq!(refuses("2001:db8::1", "/_synapse/admin/x"), Some(StatusCode::NOT_FOUND));
        assert_eq!(refuses("192.0.2.1", "/_matrix/client/versions"), None);
    }
}
