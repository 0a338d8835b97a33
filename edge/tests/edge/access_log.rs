//! The access log: one line a request, no secrets, and a file that may be moved away.

use std::path::PathBuf;
use std::time::Duration;

use crate::client::request;
use crate::edge::{Edge, Options, patiently};

async fn logging(keys: &str) -> (Edge, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("access.log");
    let sections = format!("[access_log]\nfile = \"{}\"\n{keys}", file.display());
    let shard = crate::double::Shard::start(&crate::edge::socket(folder.path(), 0), "shard 0");
    let options = Options { shards: 1, sections: &sections, ..Options::default() };
    (Edge::in_folder(folder, vec![shard], options).await, file)
}

/// The lines of `file`, once there are so many.
async fn lines(file: &PathBuf, count: usize) -> Vec<String> {
    patiently("the lines", async {
        loop {
            let text = std::fs::read_to_string(file).unwrap_or_default();
            if text.lines().count() >= count && text.ends_with('\n') {
                return text.lines().map(str::to_owned).collect();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}

#[tokio::test]
async fn each_request_is_a_line_without_its_token() {
    let (edge, file) = logging("client_address = \"truncated\"").await;
    let mut secret = request("GET", "/_matrix/client/v3/sync?access_token=gh_secret&since=1", "");
    secret.headers_mut().insert("authorization", "Bearer gh_secret".parse().unwrap());
    secret.headers_mut().insert("user-agent", "a client/1.0".parse().unwrap());
    let mut piped = request("GET", "/_matrix/client/v3/sync", "");
    piped.headers_mut().insert("expect", "100-continue".parse().unwrap());
    // A stream of HTTP/2 is noted in a task of its own, so the next request waits for that.
    for (asked, secret) in [secret, piped].into_iter().enumerate() {
        assert_eq!(edge.http2().await.send(secret).await.unwrap().status, 200);
        lines(&file, asked + 1).await;
    }
    assert_eq!(edge.ask("GET", "/nowhere").await.status, 404);
    let mut plain = tokio::net::TcpStream::connect(edge.http).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut plain, b"GET /x?access_token=gh_secret HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    let lines = lines(&file, 4).await;
    assert!(!lines.concat().contains("gh_secret"), "{lines:#?}");
    let [sync, piped, nowhere, redirected] =
        [0, 1, 2, 3].map(|at| serde_json::from_str::<serde_json::Value>(&lines[at]).unwrap());
    assert_eq!(sync["target"], "/_matrix/client/v3/sync?access_token=hidden&since=1");
    assert_eq!((&sync["status"], &sync["protocol"]), (&200.into(), &"HTTP/2.0".into()));
    assert_eq!((&piped["status"], &piped["protocol"]), (&200.into(), &"HTTP/2.0".into()));
    assert_eq!((&sync["class"], &sync["client"]), (&"sync".into(), &"127.0.0.0".into()));
    assert_eq!((&sync["host"], &sync["user_agent"]), (&"localhost".into(), &"a client/1.0".into()));
    assert!(sync["bytes"].as_u64().unwrap() > 10 && sync["duration_ms"].as_f64().unwrap() > 0.0);
    assert!(sync["shard"].as_str().unwrap().ends_with("shard-0.sock"));
    assert_eq!((&nowhere["status"], &nowhere["shard"]), (&404.into(), &serde_json::Value::Null));
    assert_eq!(redirected["status"], 308);
}

#[tokio::test]
async fn a_file_that_was_moved_away_is_opened_anew_and_no_line_is_lost() {
    let (edge, file) = logging("format = \"combined\"").await;
    edge.ask("GET", "/_matrix/client/versions").await;
    let line = &lines(&file, 1).await[0];
    assert!(
        line.starts_with("127.0.0.1 - - [") && line.contains("\"GET /_matrix/client/versions HTTP/1.1\" 200 "),
        "{line}"
    );
    let moved = file.with_extension("log.1");
    std::fs::rename(&file, &moved).unwrap();
    edge.ask("GET", "/_matrix/client/before").await;
    lines(&moved, 2).await;
    edge.signal("HUP");
    patiently("the new file", async {
        while !file.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    edge.ask("GET", "/_matrix/client/after").await;
    let (before, after) = (lines(&moved, 2).await, std::fs::read_to_string(&file));
    assert!(before[1].contains("/_matrix/client/before"));
    let found = patiently("the line", async {
        let mut text = after.unwrap_or_default() + &before.concat();
        while !text.contains("/_matrix/client/after") {
            tokio::time::sleep(Duration::from_millis(5)).await;
            text = std::fs::read_to_string(&file).unwrap() + &std::fs::read_to_string(&moved).unwrap();
        }
        text
    });
    found.await;
    edge.edit("access.log", "nowhere/access.log");
    let told = edge.command(&["reload"]).await;
    assert!(told.code == Some(1) && told.stderr.contains("nowhere/access.log"), "{}", told.stderr);
}

#[tokio::test]
async fn what_waits_is_written_before_the_edge_ends() {
    let (mut edge, file) = logging("").await;
    let mut connection = edge.http2().await;
    for number in 0..200 {
        connection.send(request("GET", &format!("/_matrix/client/v3/rooms/!{number}:a/members"), "")).await.unwrap();
    }
    edge.signal("TERM");
    assert!(edge.ended().await.success());
    assert_eq!(std::fs::read_to_string(file).unwrap().lines().count(), 200);
}
