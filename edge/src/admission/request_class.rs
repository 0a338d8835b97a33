//! What kind of request this is, and how large its body may be.

use gatehouse_shared::limits::{MAX_CLIENT_JSON_BYTES, MAX_FEDERATION_JSON_BYTES};
use http::Method;

/// The kinds of requests that are limited and counted apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum RequestClass {
    /// From a client, with JSON or nothing in its body.
    Client,
    /// A long poll of a client.
    Sync,
    /// From another server.
    Federation,
    /// Media, downwards.
    Media,
    /// Media, upwards.
    Upload,
    /// Anything else.
    Other,
}

impl RequestClass {
    /// All of them, in the order of their discriminants.
    pub(crate) const ALL: [Self; 6] =
        [Self::Client, Self::Sync, Self::Federation, Self::Media, Self::Upload, Self::Other];

    /// The class of a request. The path is looked at as it is on the wire: what is spelled in another way (`%2F`, `//`)
    /// belongs to a class with a smaller limit, never to one with a larger.
    pub(crate) fn of(method: &Method, path: &str) -> Self {
        let Some(rest) = path.strip_prefix("/_matrix/") else { return Self::Other };
        if let Some(client) = rest.strip_prefix("client/") {
            let after_version = client.split_once('/').map_or("", |(_, after)| after);
            return match after_version {
                "sync" => Self::Sync,
                media if media.starts_with("media/") => Self::Media,
                _ => Self::Client,
            };
        }
        if rest.starts_with("federation/") || rest.starts_with("key/") {
            return Self::Federation;
        }
        let Some(media) = rest.strip_prefix("media/") else { return Self::Other };
        let after_version = media.split_once('/').map_or("", |(_, after)| after);
        let uploads = after_version == "upload" || after_version.starts_with("upload/");
        if uploads && (method == Method::POST || method == Method::PUT) { Self::Upload } else { Self::Media }
    }

    /// For metrics and logs.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Sync => "sync",
            Self::Federation => "federation",
            Self::Media => "media",
            Self::Upload => "upload",
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
            RequestClass::Client | RequestClass::Sync | RequestClass::Media | RequestClass::Other => {
                MAX_CLIENT_JSON_BYTES
            }
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
            (Method::GET, "/_matrix/client/versions", RequestClass::Client),
            (Method::PUT, "/_matrix/client/v3/rooms/!a:b/send/m.room.message/1", RequestClass::Client),
            (Method::GET, "/_matrix/client/v1/media/download/a/b", RequestClass::Media),
            (Method::POST, "/_matrix/media/v3/upload", RequestClass::Upload),
            (Method::PUT, "/_matrix/media/v3/upload/a/b", RequestClass::Upload),
            (Method::GET, "/_matrix/media/v3/upload", RequestClass::Media),
            (Method::POST, "/_matrix/media/v1/create", RequestClass::Media),
            (Method::PUT, "/_matrix/federation/v1/send/1", RequestClass::Federation),
            (Method::GET, "/_matrix/key/v2/server", RequestClass::Federation),
            (Method::GET, "/_synapse/admin/v1/register", RequestClass::Other),
            (Method::POST, "/_matrix/media%2Fv3/upload", RequestClass::Other),
            (Method::POST, "/_matrix//media/v3/upload", RequestClass::Other),
        ] {
            assert_eq!(RequestClass::of(&method, path), class, "{path}");
        }
    }

    #[test]
    fn classes_stand_at_their_own_index() {
        for (index, class) in RequestClass::ALL.into_iter().enumerate() {
            assert_eq!(class as usize, index);
        }
    }
}
