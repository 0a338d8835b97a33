//! What is compressed on its way to clients, for whom, and that it comes out as it went in.

use std::process::Stdio;

use tokio::io::AsyncWriteExt;

use crate::client::{Answer, Connection, request};
use crate::double::Order;
use crate::edge::{Edge, Options, patiently};

const SYNC: &str = "/_matrix/client/v3/sync?since=x";

fn events() -> String {
    let event = r#"{"type":"m.room.message","sender":"@alice:localhost","content":{"body":"hello"}}"#;
    format!("[{}]", vec![event; 200].join(","))
}

async fn asked(edge: &Edge, mut connection: Connection, target: &str, accept: &str, order: Order) -> Answer {
    edge.shards[0].order(order);
    let mut request = request("GET", target, "");
    request.headers_mut().insert("accept-encoding", accept.parse().unwrap());
    patiently(target, connection.send(request)).await.unwrap()
}

fn json(body: String) -> Order {
    Order::Say(vec![("content-type", "application/json"), ("etag", "\"v1\"")], body)
}

/// Unpacks by programs that take nothing which is not whole.
async fn unpacked(answer: &Answer) -> Vec<u8> {
    const BROTLI: &str = "process.stdout.write(zlib.brotliDecompressSync(fs.readFileSync(0)))";
    let (program, arguments) = match answer.header("content-encoding") {
        "gzip" => ("gzip", ["-dc", "-q"]),
        "zstd" => ("zstd", ["-dc", "-q"]),
        "br" => ("node", ["-e", BROTLI]),
        other => panic!("{other}"),
    };
    let mut process = tokio::process::Command::new(program);
    let mut process = process.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut stdin, packed) = (process.stdin.take().unwrap(), answer.body.clone());
    // Beside the reading: neither pipe may fill while the other waits.
    tokio::spawn(async move { stdin.write_all(&packed).await });
    let output = patiently(program, process.wait_with_output()).await.unwrap();
    assert!(output.status.success(), "{program}: {output:?}");
    output.stdout
}

#[tokio::test]
async fn json_is_compressed_for_who_asks_and_comes_out_as_it_went_in() {
    let edge = Edge::start().await;
    let events = events();
    for (accept, coding) in [("gzip, deflate", "gzip"), ("br, gzip;q=0.8", "br"), ("zstd;q=0.5, gzip;q=0.4", "zstd")] {
        for connection in [edge.http1().await, edge.http2().await] {
            let answer = asked(&edge, connection, SYNC, accept, json(events.clone())).await;
            assert_eq!(answer.header("content-encoding"), coding, "{answer:?}");
            assert_eq!(answer.header("vary"), "accept-encoding");
            assert_eq!(answer.header("etag"), "W/\"v1\"");
            assert!(!answer.headers.contains_key("content-length"));
            assert!(answer.body.len() < events.len() / 10, "{} bytes", answer.body.len());
            assert!(unpacked(&answer).await == events.as_bytes());
        }
    }
}

#[tokio::test]
async fn large_answers_are_compressed_piece_by_piece() {
    let edge = Edge::start().await;
    let events = vec![events(); 100].join(",");
    for (coding, connection) in [("gzip", edge.http1().await), ("br", edge.http2().await), ("zstd", edge.http1().await)]
    {
        let answer = asked(&edge, connection, SYNC, coding, json(events.clone())).await;
        assert!(unpacked(&answer).await == events.as_bytes());
    }
}

#[tokio::test]
async fn what_must_stay_as_it_is_does() {
    let edge = Edge::start().await;
    let long = events();
    let media = "/_matrix/client/v1/media/download/a/b";
    let say = |headers: Vec<(&'static str, &'static str)>, body: &str| Order::Say(headers, body.to_owned());
    let content_type = ("content-type", "application/json");
    for (target, accept, order) in [
        (SYNC, "identity", json(long.clone())),
        (SYNC, "gzip;q=0", json(long.clone())),
        (SYNC, "gzip", json("{}".to_owned())),
        (SYNC, "gzip", say(vec![content_type, ("content-encoding", "x-own")], &long)),
        (SYNC, "gzip", say(vec![("content-type", "image/png")], &long)),
        (SYNC, "gzip", say(vec![("content-type", "text/event-stream")], &long)),
        (SYNC, "gzip", say(vec![content_type, ("cache-control", "no-transform")], &long)),
        (media, "gzip", say(vec![("content-type", "text/plain")], &long)),
    ] {
        let answer = asked(&edge, edge.http1().await, target, accept, order).await;
        let untouched = answer.headers.get("content-encoding").is_none_or(|coding| coding == "x-own");
        assert!(untouched && answer.headers.contains_key("content-length"), "{accept}: {answer:?}");
    }
    let none = Edge::with(Options {
        shards: 1,
        sections: "[compression]\nzstd = 0\nbrotli = 0\ngzip = 0\n",
        ..Options::default()
    });
    let edge = none.await;
    let answer = asked(&edge, edge.http1().await, SYNC, "gzip, br, zstd", json(long)).await;
    assert!(!answer.headers.contains_key("content-encoding") && !answer.headers.contains_key("vary"));
}
