//! Requests that two readers would take apart differently. None reaches a shard as another request than the edge saw:
//! whatever a shard reads as a request bears the edge's MAC, and what is ambiguous reaches it not at all.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::tls;
use crate::edge::{Edge, Options, patiently, socket};
use crate::raw_shard::{RawShard, Read};

const SMUGGLED: &str = "GET /_matrix/client/v3/smuggled HTTP/1.1\r\nhost: localhost\r\n\r\n";
const PATH: &str = "/_matrix/client/v3/first";

pub(crate) async fn edge_before_a_raw_shard() -> (Edge, RawShard) {
    let folder = tempfile::tempdir().unwrap();
    let shard = RawShard::start(&socket(folder.path(), 0));
    let sections =
        format!("[[route]]\npath = \"/other\"\nupstream = [\"unix:{}\"]\n", socket(folder.path(), 0).display());
    let options = Options { shards: 1, sections: &sections, ..Options::default() };
    let edge = Edge::in_folder(folder, Vec::new(), options).await;
    edge.healthy_shards(1).await;
    (edge, shard)
}

/// All that a shard read was said by the edge, in one piece.
#[track_caller]
fn assert_vouched(read: &[Read], case: &str) {
    for request in read {
        assert_eq!(request.values("x-gatehouse-mac").len(), 1, "{case}: a shard read {request:?}");
        assert!(
            request.values("content-length").len() + request.values("transfer-encoding").len() <= 1,
            "{case}: {request:?}"
        );
        assert!(request.line.ends_with(" HTTP/1.1") && request.line.split(' ').count() == 3, "{case}: {request:?}");
        assert_eq!(request.values("host").len(), 1, "{case}: {request:?}");
    }
}

fn post(headers: &str, body: &str) -> String {
    format!("POST {PATH} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n{body}")
}

fn chunked(body: &str) -> String {
    post("transfer-encoding: chunked\r\n", body)
}

/// Requests whose end or meaning is in doubt, each with its name.
fn ambiguous() -> Vec<(&'static str, String)> {
    let length = SMUGGLED.len();
    let both = format!("content-length: {length}\r\ntransfer-encoding: chunked\r\n");
    let both_turned = format!("transfer-encoding: chunked\r\ncontent-length: {length}\r\n");
    let after = format!("0\r\n\r\n{SMUGGLED}");
    let te = |value: &str| post(&format!("transfer-encoding:{value}\r\n"), &after);
    let cl = |value: &str| post(&format!("content-length:{value}\r\n"), SMUGGLED);
    let get = |line: &str, headers: &str| format!("{line}\r\n{headers}\r\n{SMUGGLED}");
    vec![
        ("both lengths", post(&both, &after)),
        ("both lengths, turned", post(&both_turned, &after)),
        ("two lengths", post(&format!("content-length: 0\r\ncontent-length: {length}\r\n"), SMUGGLED)),
        ("the same length twice", post("content-length: 2\r\ncontent-length: 2\r\n", "ab")),
        ("a list of lengths", cl(&format!(" 0, {length}"))),
        ("a signed length", cl(" +0")),
        ("a negative length", cl(" -1")),
        ("a hexadecimal length", cl(" 0x0")),
        ("a length with a space within", cl(" 1 0")),
        ("a huge length", cl(" 99999999999999999999999")),
        ("an empty length", cl("")),
        ("xchunked", te(" xchunked")),
        ("chunked, identity", te(" chunked, identity")),
        (
            "identity, chunked and a length",
            post(&format!("transfer-encoding: identity\r\ncontent-length: {length}\r\n"), SMUGGLED),
        ),
        ("chunked twice", te(" chunked, chunked")),
        ("chunked in two headers", post("transfer-encoding: chunked\r\ntransfer-encoding: x\r\n", &after)),
        ("gzip, chunked", te(" gzip, chunked")),
        ("a vertical tab before chunked", te("\u{b}chunked")),
        ("a quoted chunked", te(" \"chunked\"")),
        ("a space before the colon", post(&format!("content-length : {length}\r\n"), SMUGGLED)),
        ("a tab before the colon", post("transfer-encoding\t: chunked\r\n", &after)),
        ("a folded header", post(&format!("x: y\r\n content-length: {length}\r\n"), SMUGGLED)),
        ("a folded coding", post("transfer-encoding:\r\n chunked\r\n", &after)),
        ("a line without a colon", post("nonsense\r\n", SMUGGLED)),
        ("a space before the first header", format!("GET {PATH} HTTP/1.1\r\n host: localhost\r\n\r\n{SMUGGLED}")),
        ("a bare CR within a value", post(&format!("x: y\rcontent-length: {length}\r\n"), SMUGGLED)),
        ("a bare CR as the end of a line", format!("GET {PATH} HTTP/1.1\rhost: localhost\r\r{SMUGGLED}")),
        ("a NUL within a value", post("x: a\0b\r\n", SMUGGLED)),
        ("a NUL within a name", post("x\0y: b\r\n", SMUGGLED)),
        ("HTTP/0.9", get(&format!("GET {PATH}"), "")),
        ("HTTP/1.2", get(&format!("GET {PATH} HTTP/1.2"), "host: localhost\r\n")),
        ("HTTP/2.0 in text", get(&format!("GET {PATH} HTTP/2.0"), "host: localhost\r\n")),
        (
            "chunked in HTTP/1.0",
            format!("POST {PATH} HTTP/1.0\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n{after}"),
        ),
        ("two hosts", get(&format!("GET {PATH} HTTP/1.1"), "host: localhost\r\nhost: other\r\n")),
        ("no host", get(&format!("GET {PATH} HTTP/1.1"), "")),
        ("a list of hosts", get(&format!("GET {PATH} HTTP/1.1"), "host: localhost, other\r\n")),
        ("another host in absolute form", get(&format!("GET https://other{PATH} HTTP/1.1"), "host: localhost\r\n")),
        ("a user in absolute form", get(&format!("GET https://localhost@other{PATH} HTTP/1.1"), "host: localhost\r\n")),
        (
            "a protected header named by Connection",
            get(&format!("GET {PATH} HTTP/1.1"), "host: localhost\r\nconnection: host\r\n"),
        ),
        ("CONNECT", get("CONNECT localhost:22 HTTP/1.1", "host: localhost:22\r\n")),
        ("a method with a bracket", get(&format!("GE[T {PATH} HTTP/1.1"), "host: localhost\r\n")),
    ]
}

/// Bodies whose chunks are not what they must be. Their header may reach a shard; nothing after it may.
fn broken_chunks() -> Vec<(&'static str, String)> {
    vec![
        ("a chunk size that is no number", chunked(&format!("z\r\nab\r\n0\r\n\r\n{SMUGGLED}"))),
        ("a huge chunk size", chunked(&format!("ffffffffffffffff1\r\nab\r\n0\r\n\r\n{SMUGGLED}"))),
        ("a signed chunk size", chunked(&format!("+2\r\nab\r\n0\r\n\r\n{SMUGGLED}"))),
        ("a chunk size with 0x", chunked(&format!("0x2\r\nab\r\n0\r\n\r\n{SMUGGLED}"))),
        ("a chunk longer than its size", chunked(&format!("2\r\nabc\r\n0\r\n\r\n{SMUGGLED}"))),
        ("a chunk that ends with LF", chunked(&format!("2\r\nab\n0\r\n\r\n{SMUGGLED}"))),
        ("a size line that ends with LF", chunked(&format!("2\nab\r\n0\r\n\r\n{SMUGGLED}"))),
        ("a bare CR in a chunk extension", chunked(&format!("2;x\ry\r\nab\r\n0\r\n\r\n{SMUGGLED}"))),
        ("a LF in a chunk extension", chunked(&format!("2;x\n{SMUGGLED}\r\nab\r\n0\r\n\r\n"))),
        ("a body that never ends", post("content-length: 500\r\n", SMUGGLED)),
    ]
}

/// Sends bytes and reads what comes until the connection ends or nothing comes any more.
async fn answer_to(edge: &Edge, bytes: &[u8]) -> Vec<u8> {
    let mut stream = tls(edge.https, &edge.ca, "localhost", &[b"http/1.1"]).await;
    // The edge may cut the connection before everything is written.
    let _ = stream.write_all(bytes).await;
    let _ = stream.flush().await;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(Ok(read @ 1..)) = tokio::time::timeout(Duration::from_secs(2), stream.read(&mut buffer)).await {
        answer.extend_from_slice(&buffer[..read]);
    }
    answer
}

#[tokio::test]
async fn ambiguous_requests_are_refused_and_nothing_of_them_reaches_a_shard() {
    let (edge, shard) = edge_before_a_raw_shard().await;
    let mut passed = Vec::new();
    for (case, bytes) in ambiguous() {
        let answer = answer_to(&edge, bytes.as_bytes()).await;
        let read = shard.take();
        let refused =
            answer.is_empty() || [&b"HTTP/1.1 4"[..], b"HTTP/1.1 5"].iter().any(|start| answer.starts_with(start));
        let answers = answer.windows(9).filter(|bytes| bytes == b"HTTP/1.1 ").count();
        if !read.is_empty() || !refused || answers > 1 {
            passed.push(format!("{case}: {} {read:?}", answer.escape_ascii()));
        }
    }
    assert!(passed.is_empty(), "{}", passed.join("\n"));
    assert!(answer_to(&edge, SMUGGLED.as_bytes()).await.starts_with(b"HTTP/1.1 200 "), "a plain one passes");
}

#[tokio::test]
async fn nothing_after_a_broken_body_is_a_request_to_a_shard() {
    let limits = "body_idle_seconds = 1";
    let folder = tempfile::tempdir().unwrap();
    let shard = RawShard::start(&socket(folder.path(), 0));
    let edge = Edge::in_folder(folder, Vec::new(), Options { shards: 1, limits, ..Options::default() }).await;
    edge.healthy_shards(1).await;
    for (case, bytes) in broken_chunks() {
        answer_to(&edge, bytes.as_bytes()).await;
        let read = shard.take();
        assert_vouched(&read, case);
        assert!(!read.iter().any(|request| request.line.contains("smuggled")), "{case}: {read:?}");
    }
}

#[tokio::test]
async fn what_is_only_unusual_arrives_as_the_one_request_it_is() {
    let (edge, shard) = edge_before_a_raw_shard().await;
    let closing = "connection: close\r\n";
    for (case, bytes, body) in [
        (
            "a request within a body",
            post(&format!("{closing}content-length: {}\r\n", SMUGGLED.len()), SMUGGLED),
            SMUGGLED,
        ),
        (
            "a request within chunks",
            post(
                &format!("{closing}transfer-encoding: chunked\r\n"),
                &format!("{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n", SMUGGLED.len()),
            ),
            SMUGGLED,
        ),
        (
            "chunk extensions and trailers",
            post(
                &format!("{closing}transfer-encoding: Chunked\r\n"),
                "2;a=b;c=\"d\"\r\nab\r\n0;last\r\ncontent-length: 5\r\n\r\n",
            ),
            "ab",
        ),
        // Pingora encodes what is no part of a target, and that is what is signed and sent.
        ("a space in the path", format!("GET {PATH} b HTTP/1.1\r\nhost: localhost\r\n{closing}\r\n"), ""),
        ("a CR in the path", format!("GET {PATH}\rb HTTP/1.1\r\nhost: localhost\r\n{closing}\r\n"), ""),
        (
            "CR and LF in a path, encoded",
            format!("GET {PATH}%0d%0aGET HTTP/1.1\r\nhost: localhost\r\n{closing}\r\n"),
            "",
        ),
    ] {
        let answer = answer_to(&edge, bytes.as_bytes()).await;
        let read = shard.take();
        assert_vouched(&read, case);
        if answer.starts_with(b"HTTP/1.1 200 ") {
            assert_eq!(read.len(), 1, "{case}: {read:?}");
            assert_eq!(String::from_utf8_lossy(&read[0].body), body, "{case}");
        } else {
            assert!(answer.starts_with(b"HTTP/1.1 400 ") && read.is_empty(), "{case}: {}", answer.escape_ascii());
        }
    }
    // What follows a request without waiting for its answer is at most a request of its own.
    let two = format!("{}{}", SMUGGLED, SMUGGLED.replace("host:", "connection: close\r\nhost:"));
    answer_to(&edge, two.as_bytes()).await;
    let read = shard.take();
    assert_vouched(&read, "two requests");
    assert!((1..=2).contains(&read.len()), "{read:?}");
}

/// A frame of HTTP/2 (RFC 9113, section 4.1).
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// What a client of HTTP/2 begins with.
pub(crate) fn preface(settings: &[u8]) -> Vec<u8> {
    const SETTINGS: u8 = 4;
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, settings));
    bytes
}

/// A header block of literals without an index and without Huffman coding (RFC 7541, section 6.2.2).
pub(crate) fn block(headers: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in headers {
        block.push(0);
        for text in [name, value] {
            assert!(text.len() < 127, "longer ones need another prefix");
            block.push(u8::try_from(text.len()).unwrap());
            block.extend(text.as_bytes());
        }
    }
    block
}

/// Sends one request with a body over HTTP/2 and waits until its stream or the connection ends.
async fn send_http2(edge: &Edge, headers: &[(&str, &str)], body: &[u8], case: &str) {
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const RST_STREAM: u8 = 3;
    const GOAWAY: u8 = 7;
    let mut stream = tls(edge.https, &edge.ca, "localhost", &[b"h2"]).await;
    let mut bytes = preface(&[]);
    bytes.extend(frame(HEADERS, 4, 1, &block(headers)));
    bytes.extend(frame(DATA, 1, 1, body));
    let _ = stream.write_all(&bytes).await;
    let _ = stream.flush().await;
    patiently(case, async {
        loop {
            let mut head = [0; 9];
            if stream.read_exact(&mut head).await.is_err() {
                return;
            }
            let mut payload = vec![0; usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2])];
            if stream.read_exact(&mut payload).await.is_err() {
                return;
            }
            let ends = matches!(head[3], DATA | HEADERS) && head[4] & 1 == 1;
            if ends || matches!(head[3], RST_STREAM | GOAWAY) {
                return;
            }
        }
    })
    .await;
}

type Fields = Vec<(&'static str, &'static str)>;

const USUAL: [(&str, &str); 4] =
    [(":method", "POST"), (":scheme", "https"), (":path", PATH), (":authority", "localhost")];

/// The usual request with more fields.
fn with(more: &[(&'static str, &'static str)]) -> Fields {
    USUAL.iter().chain(more).copied().collect()
}

/// The usual request with another value of a field.
fn instead(name: &str, value: &'static str) -> Fields {
    USUAL.map(|(has, had)| (has, if has == name { value } else { had })).to_vec()
}

/// What must not be passed on in HTTP/1.1.
fn unfit_for_http1() -> Vec<(&'static str, Fields)> {
    vec![
        ("transfer-encoding", with(&[("transfer-encoding", "chunked")])),
        ("connection", with(&[("connection", "close")])),
        ("keep-alive", with(&[("keep-alive", "timeout=5")])),
        ("upgrade", with(&[("upgrade", "websocket")])),
        ("te", with(&[("te", "gzip")])),
        ("CR and LF in a value", with(&[("x", "y\r\ncontent-length: 0\r\n\r\nGET /_matrix/smuggled HTTP/1.1")])),
        ("LF in a value", with(&[("x", "y\nz: a")])),
        ("NUL in a value", with(&[("x", "y\0z")])),
        ("CR and LF in a name", with(&[("x: y\r\nz", "a")])),
        ("a colon in a name", with(&[("x: y", "a")])),
        ("a space in a name", with(&[("transfer-encoding ", "chunked")])),
        ("capitals in a name", with(&[("X-Y", "a")])),
        ("an empty name", with(&[("", "a")])),
        ("CR and LF in the path", instead(":path", "/_matrix/x HTTP/1.1\r\nx: y\r\n\r\nGET /_matrix/smuggled")),
        ("a space in the path", instead(":path", "/_matrix/x HTTP/1.1 y")),
        ("an empty path", instead(":path", "")),
        ("an absolute path", instead(":path", "https://other/_matrix/x")),
        ("a space in the method", instead(":method", "GET /_matrix/smuggled HTTP/1.1 x")),
        ("CR and LF in the method", instead(":method", "GET / HTTP/1.1\r\nx: y\r\n\r\nPOST")),
        ("CR and LF in the authority", instead(":authority", "localhost\r\nx: y")),
        ("a path in the authority", instead(":authority", "localhost/x")),
        ("another host", with(&[("host", "other")])),
        ("two lengths", with(&[("content-length", "2"), ("content-length", "0")])),
        ("a signed length", with(&[("content-length", "+2")])),
        ("two paths", with(&[(":path", "/_matrix/other")])),
        ("an unknown pseudo-header", with(&[(":other", "x")])),
        ("an upgrade by CONNECT", with(&[(":protocol", "websocket")])),
    ]
}

#[tokio::test]
async fn what_http1_would_read_differently_does_not_come_through_http2() {
    let (edge, shard) = edge_before_a_raw_shard().await;
    for (case, headers) in unfit_for_http1() {
        send_http2(&edge, &headers, b"ab", case).await;
        let read = shard.take();
        assert!(read.is_empty(), "{case}: a shard read {read:?}");
    }
    // These begin well: the shard may see their beginning, and nothing else of them.
    for (case, headers, body) in [
        ("a length that is too short", with(&[("content-length", "2")]), SMUGGLED.as_bytes()),
        ("a length that is too long", with(&[("content-length", "90")]), SMUGGLED.as_bytes()),
        ("a request as a body", with(&[]), SMUGGLED.as_bytes()),
        ("a GET with a body", instead(":method", "GET"), SMUGGLED.as_bytes()),
        ("te: trailers", with(&[("te", "trailers")]), b"ab"),
    ] {
        send_http2(&edge, &headers, body, case).await;
        let read = shard.take();
        assert_vouched(&read, case);
        assert!(!read.iter().any(|request| request.line.contains("smuggled")), "{case}: {read:?}");
    }
    send_http2(&edge, &USUAL, b"ab", "a plain one").await;
    assert!(shard.take().iter().any(|request| request.body == b"ab"), "a plain one passes");
}

#[tokio::test]
async fn nor_does_it_reach_another_server_than_a_shard() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bridge.sock");
    let bridge = RawShard::start(&path);
    let sections = format!("[[route]]\npath = \"/bridge\"\nupstream = [\"unix:{}\"]\n", path.display());
    let edge = Edge::with(Options { shards: 1, sections: &sections, ..Options::default() }).await;
    let to_bridge = |headers: &[(&'static str, &'static str)]| {
        let at_bridge = |(name, value): &(&'static str, &str)| (*name, value.replace("/_matrix/", "/bridge/"));
        headers.iter().map(at_bridge).collect::<Vec<_>>()
    };
    let send = async |headers: &[(&'static str, &'static str)], body: &[u8], case: &str| {
        let headers = to_bridge(headers);
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        send_http2(&edge, &headers, body, case).await;
        bridge.take()
    };
    for (case, headers) in unfit_for_http1() {
        let read = send(&headers, b"ab", case).await;
        assert!(read.is_empty(), "{case}: it read {read:?}");
    }
    for (case, headers) in [
        ("a length that is too short", with(&[("content-length", "2")])),
        ("a length that is too long", with(&[("content-length", "90")])),
        ("a request as a body", with(&[])),
    ] {
        let read = send(&headers, SMUGGLED.as_bytes(), case).await;
        assert!(!read.iter().any(|request| request.line.contains("smuggled")), "{case}: {read:?}");
    }
    let read = send(&with(&[("cookie", "a=1"), ("cookie", "b=2")]), b"ab", "a plain one").await;
    let [request] = read.as_slice() else { panic!("{read:?}") };
    assert_eq!((request.body.as_slice(), request.values("cookie")), (b"ab".as_slice(), vec!["a=1; b=2"]));
}
