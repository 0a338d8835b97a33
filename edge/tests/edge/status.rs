//! What the edge says about itself: in a terminal, as JSON, and as a page in a real browser.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::task::JoinSet;

use crate::edge::{Edge, Options, patiently};
use crate::load::Load;

impl Edge {
    async fn status(&self) -> Value {
        let answer = self.private("/status.json").await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        serde_json::from_str(body).unwrap()
    }

    /// Waits until a class was seen.
    async fn seen_traffic(&self, class: &str) -> Value {
        patiently("the class of requests", async {
            loop {
                let status = self.status().await;
                let of_class = status["traffic"].as_array().unwrap().iter().find(|one| one["class"] == class);
                if let Some(one) = of_class {
                    return one.clone();
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
        .await
    }
}

#[tokio::test]
async fn status_tells_of_traffic_shards_and_slow_endpoints() {
    let edge = Edge::with(Options { shards: 2, ..Options::default() }).await;
    // One look before the requests, so that they are seen as new.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let load = Load::start(&edge).await;
    edge.ask("GET", "/_matrix/client/v3/sync").await;
    let sync = edge.seen_traffic("sync").await;
    assert_eq!(sync["failed_per_second"], 0.0);
    load.stop().await;
    let status = edge.status().await;
    let routes: Vec<&str> =
        status["slow_routes"].as_array().unwrap().iter().map(|route| route["route"].as_str().unwrap()).collect();
    assert!(routes.contains(&"/_matrix/client/v3/rooms/{}/send/{}/{}"), "{routes:?}");
    assert!(!routes.iter().any(|route| route.ends_with("/sync")), "a long poll is not slow: {routes:?}");
    assert_eq!(status["certificates"][0]["names"], serde_json::json!(["localhost", "127.0.0.1", "::1"]));
    assert!(status["certificates"][0]["expires"].as_u64() > status["now"].as_u64());
    assert!(status["shards"].as_array().unwrap().iter().all(|shard| shard["healthy"] == true));
    let asked = edge.command(&["status", "--json"]).await.json();
    for key in ["version", "process_id", "server_name", "shards", "slow_routes", "traffic"] {
        assert!(!asked[key].is_null(), "{key}");
    }
    let shown = edge.command(&["status"]).await.stdout;
    assert!(shown.contains("sync") && shown.contains("takes requests") && shown.contains('█'), "{shown}");
}

/// Runs Chromium without a window on `url`; answers the document as the browser has it and what it complained of.
async fn browse(url: &str, width: u32, picture: &Path) -> (String, String) {
    let profile = tempfile::tempdir().unwrap();
    let mut browser = Command::new("chromium");
    browser
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"])
        .args(["--enable-logging=stderr", "--disable-dev-shm-usage", "--virtual-time-budget=3000", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("--window-size={width},1500"))
        .arg(format!("--screenshot={}", picture.display()))
        .arg(url)
        .kill_on_drop(true);
    let output = browser.stdout(Stdio::piped()).stderr(Stdio::piped()).output();
    let output = tokio::time::timeout(Duration::from_secs(120), output).await.expect("the browser takes forever");
    let output = output.expect("chromium is missing; homeserver/tests/interop/setup.sh installs it");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// Where the pictures are left to be looked at.
fn pictures() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("status-page");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

#[tokio::test]
async fn the_page_lives_in_a_browser_on_a_desk_and_on_a_phone() {
    let edge = Edge::with(Options { shards: 3, ..Options::default() }).await;
    edge.shards[2].die().await;
    edge.healthy_shards(2).await;
    let load = Load::start(&edge).await;
    edge.ask("GET", "/_matrix/client/v3/sync").await;
    edge.ask("PUT", "/_matrix/federation/v1/send/1").await;
    edge.ask("GET", "/nowhere").await;
    edge.seen_traffic("client").await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let head = edge.private("/").await;
    assert!(head.contains("content-security-policy: default-src 'none'; style-src 'sha256-"), "{head}");
    for (width, name) in [(1280, "desk.png"), (390, "phone.png")] {
        let picture = pictures().join(name);
        let _ = std::fs::remove_file(&picture);
        let (document, complaints) = browse(&format!("http://{}/", edge.metrics), width, &picture).await;
        assert!(document.contains("data-live=\"true\""), "the page is not alive: {document} {complaints}");
        assert!(document.contains("2 of 3 shards take requests"), "{document}");
        assert!(document.contains("shard-0.sock") && document.contains("<polyline"), "{document}");
        assert!(!complaints.contains("Content Security Policy") && !complaints.contains("CONSOLE"), "{complaints}");
        assert!(std::fs::metadata(&picture).unwrap().len() > 20_000, "the picture is empty");
    }
    load.stop().await;
}

/// A file system that hangs costs whoever asks for the status their answer, and nobody else anything.
#[tokio::test]
async fn a_certificate_that_cannot_be_read_holds_up_the_status_alone() {
    let mut edge = Edge::start().await;
    let chain = edge.folder.path().join("ca/localhost.pem");
    let aside = edge.folder.path().join("aside.pem");
    let hang = async || {
        std::fs::rename(&chain, &aside).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&chain).status().unwrap().success());
        // More of them than the edge has threads.
        let asking: JoinSet<_> = (0..100).map(|_| ask_for_status(edge.metrics)).collect();
        let pipe = chain.clone();
        // Opened once there is somebody who reads.
        let opened = tokio::task::spawn_blocking(move || File::options().write(true).open(pipe));
        (asking, patiently("a reader", opened).await.unwrap().unwrap())
    };
    let (asking, writer) = hang().await;
    for _ in 0..10 {
        assert_eq!(edge.ask("GET", "/_matrix/client/versions").await.status, 200);
    }
    assert!(edge.private("/metrics").await.contains("gatehouse_edge_bans 0\n"));
    std::fs::rename(&aside, &chain).unwrap();
    drop((writer, asking));
    assert!(edge.status().await["certificates"][0]["problem"].is_null());
    let (_asking, _writer) = hang().await;
    edge.signal("TERM");
    assert!(edge.ended().await.success());
}

async fn ask_for_status(address: SocketAddr) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /status.json HTTP/1.1\r\n\r\n").await.unwrap();
    // Given up by the edge after some seconds.
    let _ = stream.read_to_end(&mut Vec::new()).await;
}
