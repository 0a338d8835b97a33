//! What each listener serves: the clients' everything, the federation's only what other servers ask for.

/// What a listener is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// For clients, and for servers that come to the same port.
    Everything,
    /// For other servers (8448). A port that is to serve clients as well is one of the clients'.
    Federation,
}

impl Role {
    /// Whether a path is served here. As everywhere, paths are taken as they are spelled.
    pub(crate) fn serves(self, path: &str) -> bool {
        const SERVERS_ASK_FOR: [&str; 5] = [
            "/_matrix/federation/",
            "/_matrix/key/",
            "/_matrix/policy/",
            // Servers that do not yet ask for media with a signature.
            "/_matrix/media/",
            "/.well-known/matrix/",
        ];
        match self {
            Self::Everything => true,
            Self::Federation => SERVERS_ASK_FOR.iter().any(|prefix| path.starts_with(prefix)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_servers_find_what_they_ask_for_and_clients_nothing() {
        for path in [
            "/_matrix/federation/v1/version",
            "/_matrix/key/v2/server",
            "/_matrix/media/v3/download/a/b",
            "/.well-known/matrix/server",
        ] {
            assert!(Role::Federation.serves(path), "{path}");
        }
        for path in ["/", "/_matrix/client/versions", "/_synapse/admin/v1/register", "/_matrix/federation"] {
            assert!(!Role::Federation.serves(path), "{path}");
            assert!(Role::Everything.serves(path));
        }
    }
}
