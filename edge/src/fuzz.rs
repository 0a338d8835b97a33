//! What holds for any bytes that strangers send. The tests below try bytes that a seed decides, the targets in
//! `edge/fuzz` those that a fuzzer finds.

use bytes::BytesMut;
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};

use crate::admission::request_shape;
use crate::config;
use crate::config::policy::Policy;
use crate::doctor;
use crate::http1::body::Body;
use crate::http1::head::{HeadParser, Parsed};
use crate::listener::proxy_protocol;
use crate::routing::route_table::{self, Affinity, Destination};
use crate::routing::routes::{Routes, decoded, leads_astray};
use crate::server_name::ServerName;

/// A path leads to a shard only when it begins as Matrix's do, and what chooses the shard is part of it.
pub fn path_table(bytes: &[u8]) {
    let Ok(path) = std::str::from_utf8(bytes) else { return };
    let is_matrix = path.starts_with("/_matrix/") || path.starts_with("/_synapse/");
    match route_table::route(path) {
        Destination::Shard(affinity) => {
            assert!(is_matrix, "{path:?}");
            if let Affinity::Room(part) | Affinity::Media(part) = affinity {
                assert!(path.contains(part) && !part.is_empty(), "{path:?}");
            }
            let headers = HeaderMap::new();
            let key = |query| route_table::key(affinity, &headers, query, "192.0.2.1");
            assert_eq!(key(None), key(Some("access_token")), "{path:?}");
        }
        _ => assert!(!is_matrix, "{path:?}"),
    }
}

/// A configured route leaves Matrix's own paths alone, what follows its path is the path's end, and a path that a cleaning
/// server would read as another one is known.
pub fn routes(bytes: &[u8]) {
    let Ok(path) = std::str::from_utf8(bytes) else { return };
    let configured = [(None, "/"), (Some("chat.example"), "/app"), (None, "/app/")];
    let routes = Routes::new(configured.map(|(host, path)| (host.map(str::to_owned), path.to_owned(), path)));
    for host in ["chat.example", path] {
        let Some((route, rest)) = routes.find(host, path) else { continue };
        assert!(path.ends_with(rest) && (rest.is_empty() || rest.starts_with('/')), "{path:?}");
        assert!(path.starts_with(route.trim_end_matches('/')), "{path:?}");
        for own in ["/_matrix/", "/_synapse/", "/.well-known/matrix/"] {
            assert!(!path.starts_with(own), "{path:?}");
        }
    }
    let decoded = decoded(path);
    assert!(decoded.len() <= path.len());
    if decoded.windows(4).any(|window| window == b"/../") {
        assert!(leads_astray(path), "{path:?}");
    }
}

/// A target and a host that are let through can be written into a header and signed.
pub fn request_shape(bytes: &[u8]) {
    let (host, target) = bytes.split_at(bytes.len() / 4);
    let host = std::str::from_utf8(host).ok();
    if request_shape::check(target, host, &HeaderMap::new(), 100).is_ok() {
        let host = host.expect("a host was asked for");
        assert!(
            http::HeaderValue::from_str(host).is_ok() && !host.contains(['/', '@', '?', '#', ',', ' ']),
            "{host:?}"
        );
        assert!(target.iter().all(|byte| (0x21..0x7f).contains(byte)), "{target:?}");
    }
}

/// A request's head is the same however it arrives, nothing of what is left to Pingora is lost, and what is taken can be read
/// in one way only.
pub fn request_head(bytes: &[u8]) {
    let read = |step: usize| {
        let (mut parser, mut input, mut parsed) = (HeadParser::default(), BytesMut::new(), Parsed::Partial);
        for part in bytes.chunks(step) {
            input.extend_from_slice(part);
            if matches!(parsed, Parsed::Partial) {
                parsed = parser.parse(&mut input);
            }
        }
        (parsed, input)
    };
    let (whole, rest) = read(bytes.len().max(1));
    let (in_pieces, rest_of_pieces) = read(1 + bytes.len() / 7);
    assert_eq!(format!("{whole:?}"), format!("{in_pieces:?}"), "{bytes:?}");
    assert_eq!(rest, rest_of_pieces, "{bytes:?}");
    let Parsed::Head(head) = whole else { return assert_eq!(rest, bytes) };
    assert_eq!([&head.raw[..], &rest].concat(), bytes);
    let headers = &head.request.headers;
    assert_eq!(headers.get_all(HOST).iter().count(), 1, "{bytes:?}");
    assert!(headers.get_all(CONTENT_LENGTH).iter().chain(headers.get_all(TRANSFER_ENCODING)).count() <= 1, "{bytes:?}");
    assert!(headers.values().all(|value| !value.as_bytes().iter().any(|byte| b"\r\n\0".contains(byte))), "{bytes:?}");
    assert!(head.request.raw_path().starts_with(b"/"), "{bytes:?}");
}

/// A body in chunks is the same however it arrives.
pub fn chunks(bytes: &[u8]) {
    let read = |step: usize| {
        let (mut body, mut input, mut read) = (Body::ChunkSize, BytesMut::new(), Vec::new());
        for part in bytes.chunks(step) {
            input.extend_from_slice(part);
            while let Some(piece) = body.take(&mut input).ok()? {
                read.extend_from_slice(&piece);
            }
        }
        Some((read, body.is_done().then_some(input)))
    };
    assert_eq!(read(bytes.len().max(1)), read(1 + bytes.len() / 7), "{bytes:?}");
}

/// A server name that is taken is what it says, and nothing that a URL or a header could read in another way.
pub fn server_name(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(name) = text.parse::<ServerName>() else { return };
    assert_eq!(name.as_str(), text);
    let url =
        url::Url::parse(&format!("https://{text}/")).map(|url| (url.path().to_owned(), url.username().to_owned()));
    // A label can still be too long or bad punycode for a URL; what parses has the host where it belongs.
    if let Ok(url) = url {
        assert_eq!(url, ("/".to_owned(), String::new()), "{text:?}");
    }
}

/// A configuration is taken or refused with at least one mistake.
pub fn configuration(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Err(mistakes) = config::parse(text) {
        assert!(!mistakes.is_empty(), "{text:?}");
    }
}

/// A policy is refused with at least one mistake, or taken and the same again when it is written down and read.
pub fn policy(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match Policy::parse(text) {
        Ok(policy) => {
            let written = toml::to_string(&policy).expect("what was read from TOML can be written as TOML");
            assert_eq!(Policy::parse(&written).ok(), Some(policy), "{text:?}");
        }
        Err(mistakes) => assert!(!mistakes.is_empty(), "{text:?}"),
    }
}

/// A PROXY header ends within the bytes, and what follows it changes nothing about it.
pub fn proxy_header(bytes: &[u8]) {
    let Ok((announced, length)) = proxy_protocol::parse(bytes) else { return };
    assert!(0 < length && length <= bytes.len(), "{bytes:?}");
    assert_eq!(proxy_protocol::parse(&bytes[..length]), Ok((announced, length)), "{bytes:?}");
    assert!(proxy_protocol::parse(&bytes[..length - 1]).is_err(), "{bytes:?}");
}

/// No certificate of a stranger ends the doctor, and who issued it is told as it says.
pub fn certificate(bytes: &[u8]) {
    let Some(seen) = doctor::described(&rustls_pki_types::CertificateDer::from(bytes)) else { return };
    // Not the other way round: one text can be encoded in several ways.
    assert!(!seen.is_self_issued || seen.subject == seen.issuer, "{seen:?}");
}

/// No answer of somebody else's server ends the doctor.
pub fn doctor_answer(bytes: &[u8]) {
    doctor::judge_bytes(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chance::Chance;

    /// Pieces that mean something to one of the parsers.
    const PIECES: [&str; 24] = [
        "/_matrix/",
        "/_synapse/",
        "client/v3/rooms/",
        "!a:b",
        "%2F",
        "%",
        "..",
        "//",
        "\0",
        "\r\n",
        "é",
        "[::1]",
        ":8448",
        "@",
        "\"",
        "{",
        "}",
        "[[",
        "=",
        "-1",
        "9007199254740993",
        "m.server",
        "ed25519:",
        "signatures",
    ];

    /// Spoils each of `seeds` many times, in ways that a seed decides, and gives what comes of it to `target`.
    fn try_many<S: AsRef<[u8]>>(target: fn(&[u8]), seeds: &[S]) {
        let chance = Chance::seeded(7);
        let below = |limit: usize| usize::try_from(chance.number() % limit.max(1) as u64).unwrap();
        for round in 0..3_000 {
            let mut bytes = seeds[round % seeds.len()].as_ref().to_vec();
            for _ in 0..=below(4) {
                let at = below(bytes.len() + 1);
                match below(5) {
                    0 => bytes.truncate(at),
                    1 => bytes.insert(at, chance.number().to_le_bytes()[0]),
                    2 => drop(bytes.splice(at..at, PIECES[below(PIECES.len())].bytes())),
                    3 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << below(8)),
                    _ => bytes.extend_from_within(at..),
                }
            }
            target(&bytes);
        }
        (0..=255).for_each(|byte| target(&[byte]));
        target(&[]);
    }

    #[test]
    fn path_tables() {
        let paths = [
            "/_matrix/client/v3/rooms/!a:b/send/m.room.message/1",
            "/_matrix/media/v3/download/a/b",
            "/.well-known/matrix/server",
        ];
        try_many(path_table, &paths);
    }

    #[test]
    fn configured_routes() {
        try_many(
            routes,
            &["/app/../_matrix/client", "/app%2f..%2f_matrix/client/v3", "/.well-known/matrix/server", "//app/x"],
        );
    }

    #[test]
    fn request_shapes() {
        try_many(
            request_shape,
            &["example.org/_matrix/client/v3/sync?since=1&timeout=30000", "[::1]:8448/_matrix/key/v2/server"],
        );
    }

    #[test]
    fn request_heads() {
        let seeds = [
            "PUT /_matrix/client/v3/x?y=%2F HTTP/1.1\r\nhost: example.org\r\ncontent-length: 5\r\n\r\nhello",
            "POST / HTTP/1.1\r\nHost: a:8448\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n0\r\n\r\n",
            "GET https://a/ HTTP/1.0\nhost: a\n\n",
        ];
        try_many(request_head, &seeds);
    }

    #[test]
    fn chunked_bodies() {
        try_many(
            chunks,
            &["5;ext=1\r\nhello\r\n1\r\n \r\n0\r\nx-end: 1\r\n\r\nnext", "0\r\n\r\n", "a\r\n0123456789\r\n"],
        );
    }

    #[test]
    fn server_names() {
        try_many(server_name, &["example.org", "[2001:db8::1]:8448", "192.0.2.1:1", "a-b.example.org:8448"]);
    }

    #[test]
    fn configurations() {
        try_many(configuration, &[include_str!("../../conf/edge.toml"), "[server]\nname = \"a\"\n"]);
    }

    #[test]
    fn policies() {
        let jail =
            "[jails.guess]\nfeeds = [\"login-failed\"]\nmaxretry = 5\nfindtime_seconds = 600\nbantime_seconds = 600\n";
        try_many(policy, &[include_str!("../../conf/policy.toml"), jail]);
    }

    #[test]
    fn proxy_headers() {
        let version_2 = |command: u8, family: u8, addresses: &[u8]| {
            let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
            header.extend([0x20 | command, family, 0, u8::try_from(addresses.len()).unwrap()]);
            header.extend(addresses);
            header
        };
        let seeds = [
            b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\nGET".to_vec(),
            b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n".to_vec(),
            b"PROXY UNKNOWN\r\n".to_vec(),
            version_2(1, 0x11, &[192, 0, 2, 1, 198, 51, 100, 1, 220, 4, 1, 187]),
            version_2(1, 0x21, &[7; 36 + 7]),
            version_2(0, 0, &[]),
        ];
        try_many(proxy_header, &seeds);
    }

    #[test]
    fn certificates() {
        let key = rcgen::KeyPair::generate().unwrap();
        let names = ["example.org".to_owned(), "*.example.org".to_owned(), "2001:db8::1".to_owned()];
        let seed = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        certificate(seed.der());
        try_many(certificate, &[seed.der()]);
    }

    #[test]
    fn doctor_answers() {
        let documents = [
            r#"{"m.server":"matrix.example.org:443"}"#,
            r#"{"m.homeserver":{"base_url":"https://matrix.example.org"}}"#,
            r#"{"server_name":"example.org","valid_until_ts":1,"verify_keys":{"ed25519:a":{"key":"AAAA"}},"signatures":{}}"#,
            r#"{"server":{"name":"a","version":"1"}}"#,
        ];
        try_many(doctor_answer, &documents);
    }
}
