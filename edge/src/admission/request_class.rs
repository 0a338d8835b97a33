//! What kind of request this is, and how large its body may be.

use gatehouse_shared::limits::{MAX_CLIENT_JSON_BYTES, MAX_FEDERATION_JSON_BYTES};
use http::Method;

/// The kinds of requests that are limited and counted apart. The specification's words, where it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum RequestClass {
    /// Logging in, and changing a password.
    Login,
    /// Registration.
    Registration,
    /// Events and messages to devices, upwards.
    Send,
    /// A long poll of a client.
    Sync,
    /// Media, downwards.
    Media,
    /// Media, upwards.
    Upload,
    /// From another server.
    Federation,
    /// Keys of other devices: asking for them and claiming them.
    KeyQueries,
    /// Searches.
    Directory,
    /// The administration API.
    Admin,
    /// From a client, anything else.
    Client,
    /// Anything else.
    Other,
}

impl RequestClass {
    /// All of them, in the order of their discriminants.
    pub(crate) const ALL: [Self; 12] = [
        Self::Login,
        Self::Registration,
        Self::Send,
        Self::Sync,
        Self::Media,
        Self::Upload,
        Self::Federation,
        Self::KeyQueries,
        Self::Directory,
        Self::Admin,
        Self::Client,
        Self::Other,
    ];

    /// The class of a request. The path is looked at as it is on the wire: what is spelled in another way (`%2F`, `//`)
    /// belongs to a class with a smaller limit of bodies, never to one with a larger.
    pub(crate) fn of(method: &Method, path: &str) -> Self {
        let Some(rest) = path.strip_prefix("/_matrix/") else {
            return if path.starts_with("/_synapse/admin/") { Self::Admin } else { Self::Other };
        };
        if let Some(client) = rest.strip_prefix("client/") {
            return Self::of_client(method, client.split_once('/').map_or("", |(_, after)| after));
        }
        if rest.starts_with("federation/") || rest.starts_with("key/") {
            return Self::Federation;
        }
        let Some(media) = rest.strip_prefix("media/") else { return Self::Other };
        let after_version = media.split_once('/').map_or("", |(_, after)| after);
        let uploads = after_version == "upload" || after_version.starts_with("upload/");
        if uploads && (method == Method::POST || method == Method::PUT) { Self::Upload } else { Self::Media }
    }

    /// `rest` is what follows the version.
    fn of_client(method: &Method, rest: &str) -> Self {
        let (first, after) = rest.split_once('/').unwrap_or((rest, ""));
        match (first, after) {
            ("sync", "") | ("org.matrix.simplified_msc3575" | "org.matrix.msc3575", "sync") => Self::Sync,
            // Which ways of logging in there are is asked by every client that starts.
            ("login", "") if method == Method::GET => Self::Client,
            ("login", _) | ("account", "password") => Self::Login,
            ("register", _) => Self::Registration,
            ("sendToDevice", _) => Self::Send,
            ("rooms", room) if Self::appends(method, room) => Self::Send,
            ("media", _) => Self::Media,
            ("keys", "query" | "claim" | "changes") => Self::KeyQueries,
            ("publicRooms" | "directory" | "search", _) | ("user_directory", "search") => Self::Directory,
            ("admin", _) => Self::Admin,
            _ => Self::Client,
        }
    }

    /// Whether `ROOM/KIND/…` appends an event.
    fn appends(method: &Method, room: &str) -> bool {
        let kind = room.split('/').nth(1).unwrap_or_default();
        method == Method::PUT && matches!(kind, "send" | "state" | "redact")
    }

    /// For the policy, metrics and logs.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Registration => "registration",
            Self::Send => "send",
            Self::Sync => "sync",
            Self::Media => "media",
            Self::Upload => "upload",
            Self::Federation => "federation",
            Self::KeyQueries => "key_queries",
            Self::Directory => "directory",
            Self::Admin => "admin",
            Self::Client => "client",
            Self::Other => "other",
        }
    }
}

/// How large the body of a request may be, by class, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodyLimits {
    pub(crate) upload: u64,
}

impl BodyLimits {
    pub(crate) fn of(self, class: RequestClass) -> u64 {
        match class {
            RequestClass::Upload => self.upload,
            RequestClass::Federation => MAX_FEDERATION_JSON_BYTES,
            _ => MAX_CLIENT_JSON_BYTES,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_has_its_class() {
        for (method, path, class) in [
            (Method::GET, "/_matrix/client/v3/sync", RequestClass::Sync),
            (Method::POST, "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync", RequestClass::Sync),
            (Method::GET, "/_matrix/client/versions", RequestClass::Client),
            (Method::GET, "/_matrix/client/v3/login", RequestClass::Client),
            (Method::POST, "/_matrix/client/v3/login", RequestClass::Login),
            (Method::POST, "/_matrix/client/v1/login/get_token", RequestClass::Login),
            (Method::POST, "/_matrix/client/v3/account/password", RequestClass::Login),
            (Method::GET, "/_matrix/client/v3/account/whoami", RequestClass::Client),
            (Method::POST, "/_matrix/client/v3/register", RequestClass::Registration),
            (Method::GET, "/_matrix/client/v3/register/available", RequestClass::Registration),
            (Method::PUT, "/_matrix/client/v3/rooms/!a:b/send/m.room.message/1", RequestClass::Send),
            (Method::PUT, "/_matrix/client/v3/rooms/!a:b/redact/$e/1", RequestClass::Send),
            (Method::GET, "/_matrix/client/v3/rooms/!a:b/state/m.room.name", RequestClass::Client),
            (Method::PUT, "/_matrix/client/v3/sendToDevice/m.x/1", RequestClass::Send),
            (Method::PUT, "/_matrix/client/v3/rooms/!a:b/typing/@a:b", RequestClass::Client),
            (Method::POST, "/_matrix/client/v3/keys/query", RequestClass::KeyQueries),
            (Method::POST, "/_matrix/client/v3/keys/upload", RequestClass::Client),
            (Method::POST, "/_matrix/client/v3/publicRooms", RequestClass::Directory),
            (Method::GET, "/_matrix/client/v3/directory/room/%23a:b", RequestClass::Directory),
            (Method::POST, "/_matrix/client/v3/user_directory/search", RequestClass::Directory),
            (Method::GET, "/_matrix/client/v3/admin/whois/@a:b", RequestClass::Admin),
            (Method::GET, "/_matrix/client/v1/media/download/a/b", RequestClass::Media),
            (Method::POST, "/_matrix/media/v3/upload", RequestClass::Upload),
            (Method::PUT, "/_matrix/media/v3/upload/a/b", RequestClass::Upload),
            (Method::GET, "/_matrix/media/v3/upload", RequestClass::Media),
            (Method::POST, "/_matrix/media/v1/create", RequestClass::Media),
            (Method::PUT, "/_matrix/federation/v1/send/1", RequestClass::Federation),
            (Method::GET, "/_matrix/key/v2/server", RequestClass::Federation),
            (Method::GET, "/_synapse/admin/v1/register", RequestClass::Admin),
            (Method::GET, "/_synapse/client/x", RequestClass::Other),
            (Method::POST, "/_matrix/media%2Fv3/upload", RequestClass::Other),
            (Method::POST, "/_matrix//media/v3/upload", RequestClass::Other),
        ] {
            assert_eq!(RequestClass::of(&method, path), class, "{path}");
        }
    }

    #[test]
    fn classes_stand_at_their_own_index_under_the_policys_names() {
        let policy = crate::config::policy::ClassesPolicy::default();
        let named = policy.named();
        assert_eq!(named.len(), RequestClass::ALL.len());
        for (index, class) in RequestClass::ALL.into_iter().enumerate() {
            assert_eq!(class as usize, index);
            assert_eq!(named[index].0, class.as_str());
        }
    }
}
