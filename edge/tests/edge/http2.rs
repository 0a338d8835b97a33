//! HTTP/2: streams that end before their time, on either side.

use std::future::poll_fn;
use std::path::Path;
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UnixListener};
use tokio::sync::Semaphore;
use tokio_rustls::client::TlsStream;

use crate::client::{request, tls};
use crate::edge::{Edge, Options, patiently, socket};
use crate::policy::Policy;
use crate::smuggling::{block, edge_before_a_raw_shard, frame, preface};

/// What a shard has seen of requests that it does not answer.
pub(crate) struct Unanswered {
    asked: Semaphore,
    gone: Semaphore,
}

/// More than everybody on the way has room for.
pub(crate) const LONG: usize = 8 << 20;

/// A shard that is well, but breaks off its answer to `/half`, and never answers `/never`. It also tells who does not take all
/// of `/long`.
fn start_unreliable(path: &Path) -> Arc<Unanswered> {
    let listener = UnixListener::bind(path).unwrap();
    let unanswered = Arc::new(Unanswered { asked: Semaphore::new(0), gone: Semaphore::new(0) });
    let tells = unanswered.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, tells) = (BufReader::new(listener.accept().await.unwrap().0), tells.clone());
            tokio::spawn(async move {
                loop {
                    let (mut head, mut line) = (String::new(), String::new());
                    while line != "\r\n" {
                        line.clear();
                        if stream.read_line(&mut line).await.unwrap_or_default() == 0 {
                            return;
                        }
                        head += &line;
                    }
                    if head.contains("/half ") {
                        let half = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n";
                        return stream.write_all(half.as_bytes()).await.unwrap();
                    }
                    if head.contains("/never ") {
                        tells.asked.add_permits(1);
                        let _ = stream.read_to_end(&mut Vec::new()).await;
                        return tells.gone.add_permits(1);
                    }
                    let body = if head.contains("/long ") { LONG } else { 2 };
                    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {body}\r\n\r\n{}", "x".repeat(body));
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return tells.gone.add_permits(1);
                    }
                }
            });
        }
    });
    unanswered
}

pub(crate) async fn edge_before_an_unreliable_shard(sections: &str) -> (Edge, Arc<Unanswered>) {
    let folder = tempfile::tempdir().unwrap();
    let unanswered = start_unreliable(&socket(folder.path(), 0));
    let sections = format!(
        "{sections}[[route]]\npath = \"/other\"\nupstream = [\"unix:{}\"]\nstrip_prefix = true\n",
        socket(folder.path(), 0).display()
    );
    let options = Options { shards: 1, sections: &sections, ..Options::default() };
    let edge = Edge::in_folder(folder, Vec::new(), options).await;
    edge.healthy_shards(1).await;
    (edge, unanswered)
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_taken_for_a_whole_one() {
    let (edge, _) = edge_before_an_unreliable_shard("").await;
    let mut connection = edge.http2().await;
    for target in ["/_matrix/client/v3/half", "/other/half"] {
        let broken = patiently(target, connection.try_read(request("GET", target, ""))).await;
        assert!(broken.is_err(), "{target}: {broken:?}");
    }
    // The other streams of the connection go on.
    assert_eq!(connection.send(request("GET", "/_matrix/client/v3/whole", "")).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_client_that_gives_a_request_up_takes_it_from_the_server() {
    let (edge, unanswered) = edge_before_an_unreliable_shard("").await;
    let mut connection = edge.http2().await;
    for target in ["/_matrix/client/v3/never", "/other/never"] {
        tokio::select! {
            answer = connection.send(request("GET", target, "")) => panic!("{target}: {answer:?}"),
            asked = patiently(target, unanswered.asked.acquire()) => asked.unwrap().forget(),
        }
        patiently(target, unanswered.gone.acquire()).await.unwrap().forget();
    }
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A connection on which a request with a body and trailers was sent.
async fn with_trailers(edge: &Edge, path: &str, more: &[(&str, &str)]) -> TlsStream<TcpStream> {
    let usual = [(":method", "PUT"), (":scheme", "https"), (":path", path), (":authority", "localhost")];
    let fields: Vec<_> = usual.iter().chain(more).copied().collect();
    let mut bytes = preface(&[]);
    bytes.extend(frame(HEADERS, END_HEADERS, 1, &block(&fields)));
    bytes.extend(frame(DATA, 0, 1, b"ab"));
    bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&[("x-trailer", "1")])));
    let mut stream = tls(edge.https, &edge.ca, "localhost", &[b"h2"]).await;
    stream.write_all(&bytes).await.unwrap();
    stream.flush().await.unwrap();
    stream
}

#[tokio::test]
async fn trailers_are_passed_over() {
    let (edge, shard) = edge_before_a_raw_shard().await;
    let continues = [("expect", "100-continue")];
    for (path, more) in [
        ("/_matrix/client/v3/x", [].as_slice()),
        ("/_matrix/client/v3/x", continues.as_slice()),
        ("/other/x", &[]),
        ("/other/x", &continues),
    ] {
        let mut stream = with_trailers(&edge, path, more).await;
        let mut seen = Vec::new();
        patiently(path, async {
            // The last frame of the stream has the shard's two bytes.
            while !seen.ends_with(b"ok") {
                assert!(stream.read_buf(&mut seen).await.unwrap() > 0, "{path} {more:?}: {}", seen.escape_ascii());
            }
        })
        .await;
        let read = shard.take();
        assert!(read.iter().any(|request| request.body == b"ab"), "{path} {more:?}: {read:?}");
    }
}

#[tokio::test]
async fn a_client_that_waits_for_a_word_gets_one() {
    let (edge, shard) = edge_before_a_raw_shard().await;
    for path in ["/_matrix/client/v3/x", "/other/x"] {
        let stream = tls(edge.https, &edge.ca, "localhost", &[b"h2"]).await;
        let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
        let connection = tokio::spawn(connection);
        let request = http::Request::put(format!("https://localhost{path}")).header("expect", "100-continue");
        let (mut answer, mut body) = client.send_request(request.body(()).unwrap(), false).unwrap();
        let word = patiently("the word", poll_fn(|cx| answer.poll_informational(cx))).await.unwrap().unwrap();
        assert_eq!(word.status(), http::StatusCode::CONTINUE);
        body.send_data(bytes::Bytes::from_static(b"ab"), true).unwrap();
        assert_eq!(patiently(path, answer).await.unwrap().status(), http::StatusCode::OK);
        assert!(shard.take().iter().any(|request| request.body == b"ab"), "{path}");
        connection.abort();
    }
}

#[tokio::test]
async fn who_gives_a_request_up_is_not_told_to_send_its_body() {
    const CANCEL: [u8; 4] = [0, 0, 0, 8];
    let (edge, _shard) = edge_before_a_raw_shard().await;
    let waits = [
        (":method", "PUT"),
        (":scheme", "https"),
        (":path", "/other/x"),
        (":authority", "localhost"),
        ("expect", "100-continue"),
    ];
    let mut bytes = preface(&[]);
    bytes.extend(frame(HEADERS, END_HEADERS, 1, &block(&waits)));
    bytes.extend(frame(RST_STREAM, 0, 1, &CANCEL));
    bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, 3, &block(&waits[..4])));
    let mut stream = tls(edge.https, &edge.ca, "localhost", &[b"h2"]).await;
    stream.write_all(&bytes).await.unwrap();
    stream.flush().await.unwrap();
    patiently("the other request's answer", async {
        let (mut head, mut payload) = ([0; 9], Vec::new());
        while payload != b"ok" {
            stream.read_exact(&mut head).await.unwrap();
            assert!(head[3] != HEADERS || head[8] == 3, "{head:?}");
            payload.resize(usize::from(head[1]) << 8 | usize::from(head[2]), 0);
            stream.read_exact(&mut payload).await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn who_is_answered_early_may_go_on_sending_for_a_while() {
    let (edge, _unanswered) = edge_before_an_unreliable_shard("").await;
    for (path, bytes) in [("/_matrix/media/v3/upload", LONG), ("/other/x", 1 << 20)] {
        let stream = tls(edge.https, &edge.ca, "localhost", &[b"h2"]).await;
        let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
        let connection = tokio::spawn(connection);
        for gives_in in [true, false] {
            let request = http::Request::put(format!("https://localhost{path}")).header("content-length", bytes);
            let (answer, mut body) = client.send_request(request.body(()).unwrap(), false).unwrap();
            let answer = patiently("the answer", answer).await.unwrap();
            assert_eq!(answer.status(), http::StatusCode::OK, "{path}");
            let mut rest = answer.into_body();
            while let Some(piece) = patiently("its body", rest.data()).await {
                assert_eq!(&piece.unwrap()[..], b"xx");
            }
            let mut unsent = if gives_in { bytes } else { 0 };
            while unsent > 0 {
                body.reserve_capacity(unsent);
                let room = patiently("room", poll_fn(|cx| body.poll_capacity(cx))).await.unwrap().unwrap().min(unsent);
                unsent -= room;
                body.send_data(vec![b'x'; room].into(), unsent == 0).unwrap();
            }
            if !gives_in {
                let reset = patiently("the end", poll_fn(|cx| body.poll_reset(cx))).await.unwrap();
                assert_eq!(reset, h2::Reason::NO_ERROR, "{path}");
            }
        }
        connection.abort();
    }
}

#[tokio::test]
async fn a_client_that_gives_up_after_trailers_is_noticed() {
    const CANCEL: [u8; 4] = [0, 0, 0, 8];
    let (edge, unanswered) = edge_before_an_unreliable_shard("").await;
    for path in ["/_matrix/client/v3/never", "/other/never"] {
        let mut stream = with_trailers(&edge, path, &[]).await;
        patiently(path, unanswered.asked.acquire()).await.unwrap().forget();
        stream.write_all(&frame(RST_STREAM, 0, 1, &CANCEL)).await.unwrap();
        stream.flush().await.unwrap();
        patiently(path, unanswered.gone.acquire()).await.unwrap().forget();
    }
}

#[tokio::test]
async fn a_client_that_takes_nothing_of_another_servers_answer_does_not_hold_it() {
    let policy = Policy::new("[connections]\nmin_bytes_per_second = 50000\nslow_seconds = 1\n");
    let (edge, unanswered) =
        edge_before_an_unreliable_shard(&format!("[admission]\npolicy = {:?}\n", policy.file())).await;
    let no_window = [0, 4, 0, 0, 0, 0];
    let fields = [(":method", "GET"), (":scheme", "https"), (":path", "/other/long"), (":authority", "localhost")];
    let mut bytes = preface(&no_window);
    bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&fields)));
    let mut stream = tls(edge.https, &edge.ca, "localhost", &[b"h2"]).await;
    stream.write_all(&bytes).await.unwrap();
    stream.flush().await.unwrap();
    patiently("the end of the answer", unanswered.gone.acquire()).await.unwrap().forget();
    patiently("the end of the stream", async {
        let mut head = [0; 9];
        while head[3] != RST_STREAM {
            stream.read_exact(&mut head).await.unwrap();
            let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            stream.read_exact(&mut vec![0; length]).await.unwrap();
        }
    })
    .await;
}
