//! Which path goes where, and what keeps its shard's caches warm.
//!
//! A path is matched as it is on the wire. One that is spelled in another way (`//`, `..`, `%2F`) still goes to a shard
//! when it begins with `/_matrix/` or `/_synapse/`, unchanged; it only loses its affinity. The shard is the judge of it.

use gatehouse_shared::contract::token_routing_key;
use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::routing_key::RoutingHash;
use super::well_known::Document;

/// Where a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Destination<'p> {
    /// To a document of the edge's own.
    Document(Document),
    /// To the shard that this chooses.
    Shard(Affinity<'p>),
    /// To nobody: 404.
    Nowhere,
}

/// What a request is about, as far as caches are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Affinity<'p> {
    /// One room (or its alias), as it is written in the path.
    Room(&'p str),
    /// One file (server and media id), as it is written in the path.
    Media(&'p str),
    /// The user whose token it carries.
    User,
    /// The server that sent it.
    Origin,
}

/// Looks a path up (without its query).
pub(crate) fn route(path: &str) -> Destination<'_> {
    if let Some(rest) = path.strip_prefix("/_matrix/") {
        return Destination::Shard(affinity(rest));
    }
    match Document::at(path) {
        Some(document) => Destination::Document(document),
        None if path.starts_with("/_synapse/") => Destination::Shard(Affinity::User),
        None => Destination::Nowhere,
    }
}

fn affinity(rest: &str) -> Affinity<'_> {
    let mut segments = rest.split('/');
    let area = segments.next().unwrap_or_default();
    let _version = segments.next();
    let kind = segments.next().unwrap_or_default();
    let subject = segments.next().filter(|subject| !subject.is_empty());
    match (area, kind, subject) {
        ("client", "rooms" | "join" | "knock", Some(room)) => Affinity::Room(room),
        ("client", "media", Some("download" | "thumbnail")) => file(rest, 4),
        ("media", "download" | "thumbnail", Some(_)) => file(rest, 3),
        ("federation", kind, Some(room)) if names_a_room(kind) => Affinity::Room(room),
        ("federation" | "key", _, _) => Affinity::Origin,
        _ => Affinity::User,
    }
}

/// The two segments after the first `skip`; a file's name may follow them.
fn file(rest: &str, skip: usize) -> Affinity<'_> {
    let named = rest.splitn(skip + 1, '/').nth(skip).unwrap_or_default();
    let end = named.match_indices('/').nth(1).map_or(named.len(), |(end, _)| end);
    match &named[..end] {
        "" => Affinity::User,
        file => Affinity::Media(file),
    }
}

/// The endpoints of the server-server API whose first parameter is the room.
fn names_a_room(kind: &str) -> bool {
    matches!(
        kind,
        "backfill"
            | "event_auth"
            | "exchange_third_party_invite"
            | "get_missing_events"
            | "hierarchy"
            | "invite"
            | "make_join"
            | "make_knock"
            | "make_leave"
            | "send_join"
            | "send_knock"
            | "send_leave"
            | "state"
            | "state_ids"
            | "timestamp_to_event"
    )
}

/// The key of a request: equal for requests that want the same caches. `fallback` stands in for the user or server that
/// a request does not name; the client's address does well.
pub(crate) fn key(affinity: Affinity<'_>, headers: &HeaderMap, query: Option<&str>, fallback: &str) -> u64 {
    let authorization = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match affinity {
        Affinity::Room(room) => RoutingHash::of_encoded("room", room),
        Affinity::Media(path) => RoutingHash::of_encoded("media", path),
        Affinity::Origin => RoutingHash::of_encoded("origin", x_matrix_origin(authorization).unwrap_or(fallback)),
        Affinity::User => match access_token(authorization, query).and_then(token_routing_key) {
            Some(user) => RoutingHash::of_number("user", user.0),
            None => RoutingHash::of_encoded("address", fallback),
        },
    }
}

/// The access token of a request, from its `Authorization` header or its query.
pub(crate) fn access_token<'r>(authorization: &'r str, query: Option<&'r str>) -> Option<&'r str> {
    let (scheme, token) = authorization.split_once(' ').unwrap_or_default();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(token.trim());
    }
    query?.split('&').find_map(|pair| pair.strip_prefix("access_token="))
}

/// The `origin` parameter of `Authorization: X-Matrix …` (server-server API, "Request Authentication"), unverified: it
/// chooses a cache, nothing else.
pub(crate) fn x_matrix_origin(authorization: &str) -> Option<&str> {
    let (scheme, parameters) = authorization.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("x-matrix") {
        return None;
    }
    parameters.split(',').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("origin").then(|| value.trim().trim_matches('"'))
    })
}

#[cfg(test)]
mod tests {
    use gatehouse_shared::contract::mint_prefix;
    use http::HeaderValue;

    use super::*;

    fn authorized(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn paths_go_where_the_specification_puts_them() {
        use Affinity::{Media, Origin, Room, User};
        for (path, affinity) in [
            ("/_matrix/client/v3/rooms/!a:b/send/m.room.message/1", Room("!a:b")),
            ("/_matrix/client/v1/rooms/%21a%3Ab/hierarchy", Room("%21a%3Ab")),
            ("/_matrix/client/v3/join/%23a%3Ab", Room("%23a%3Ab")),
            ("/_matrix/client/v3/sync", User),
            ("/_matrix/client/versions", User),
            ("/_matrix/client/v3/user/@a:b/rooms/!a:b/tags", User),
            ("/_matrix/client/v1/media/download/a/b", Media("a/b")),
            ("/_matrix/client/v1/media/thumbnail/a/b/c.png", Media("a/b")),
            ("/_matrix/media/v3/download/a/b/c.png", Media("a/b")),
            ("/_matrix/client/v1/media/download", User),
            ("/_matrix/client/v1/media/config", User),
            ("/_matrix/federation/v1/send/17", Origin),
            ("/_matrix/federation/v2/send_join/!a:b/$e", Room("!a:b")),
            ("/_matrix/federation/v1/event/$e", Origin),
            ("/_matrix/key/v2/server", Origin),
            ("/_synapse/admin/v1/register", User),
            ("/_matrix/client/v3//rooms/!a:b", User),
            ("/_matrix/../_gatehouse/health", User),
            ("/_matrix/%2e%2e/rooms/!a:b", User),
        ] {
            assert_eq!(route(path), Destination::Shard(affinity), "{path}");
        }
    }

    #[test]
    fn what_is_not_matrix_goes_nowhere() {
        for path in
            ["/", "/_gatehouse/health", "//_matrix/client", "/_MATRIX/client", "/%5fmatrix/client", "/_matrix", "*"]
        {
            assert_eq!(route(path), Destination::Nowhere, "{path}");
        }
        for (path, document) in [
            ("/.well-known/matrix/client", Document::Client),
            ("/.well-known/matrix/server", Document::Server),
            ("/.well-known/matrix/support", Document::Support),
            ("/.well-known/matrix/policy_server", Document::PolicyServer),
        ] {
            assert_eq!(route(path), Destination::Document(document));
        }
    }

    #[test]
    fn a_room_has_one_key_however_it_is_spelled() {
        let none = HeaderMap::new();
        let plain = key(Affinity::Room("!a:b"), &none, None, "1");
        assert_eq!(plain, key(Affinity::Room("%21a%3ab"), &none, None, "2"));
        assert_ne!(plain, key(Affinity::Room("!a:c"), &none, None, "1"));
    }

    #[test]
    fn a_user_has_one_key_from_header_and_query() {
        let token = format!("{}secret", mint_prefix("@alice:example.org"));
        let other = format!("{}other", mint_prefix("@alice:example.org"));
        let by_header = key(Affinity::User, &authorized(&format!("Bearer {token}")), None, "1");
        let by_query = key(Affinity::User, &HeaderMap::new(), Some(&format!("a=b&access_token={other}")), "2");
        assert_eq!(by_header, by_query);
        assert_ne!(by_header, key(Affinity::User, &HeaderMap::new(), None, "1"));
    }

    #[test]
    fn a_server_has_one_key_whatever_else_it_signs() {
        let first = authorized("X-Matrix origin=\"a.example\",destination=\"b\",key=\"ed25519:1\",sig=\"x\"");
        let second = authorized("X-Matrix destination=b, key=\"ed25519:1\", sig=y, origin=a.example");
        let key_of = |headers: &HeaderMap| key(Affinity::Origin, headers, None, "1");
        assert_eq!(key_of(&first), key_of(&second));
        assert_ne!(key_of(&first), key_of(&authorized("X-Matrix origin=c.example")));
    }
}
