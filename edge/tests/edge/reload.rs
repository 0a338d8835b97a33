//! Reading the configuration again: all of it or nothing, and nobody notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::client::{Connection, request};
use crate::edge::{Edge, Options, patiently};

impl Edge {
    /// Changes the configuration's file.
    pub(crate) fn edit(&self, from: &str, to: &str) {
        let file = self.folder.path().join("edge.toml");
        let before = std::fs::read_to_string(&file).unwrap();
        assert!(before.contains(from), "{before}");
        // As an editor does it: nobody reads half a file.
        let beside = file.with_extension("new");
        std::fs::write(&beside, before.replacen(from, to, 1)).unwrap();
        std::fs::rename(&beside, &file).unwrap();
    }

    async fn published(&self) -> String {
        let document = self.ask("GET", "/.well-known/matrix/client").await.json();
        document["m.homeserver"]["base_url"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn a_reload_swaps_everything_and_names_what_needs_more() {
    let edge = Edge::with(Options { shards: 1, limits: "max_upload_bytes = 10", ..Options::default() }).await;
    edge.ask("POST", "/_matrix/media/v3/upload").await;
    edge.edit("https://matrix.localhost:8443", "https://other.localhost");
    edge.edit("health_interval_ms = 200", "health_interval_ms = 300");
    let told = edge.command(&["reload", "--json"]).await;
    assert_eq!(told.code, Some(0), "{}", told.stderr);
    assert_eq!(told.json()["needs_upgrade"], serde_json::json!(["upstream.health_interval_ms"]));
    assert_eq!(edge.published().await, "https://other.localhost");
    let told = edge.command(&["reload"]).await;
    assert!(told.stdout.contains("upstream.health_interval_ms") && told.stdout.contains("gatehouse upgrade"));
}

#[tokio::test]
async fn a_broken_configuration_changes_nothing_and_says_where() {
    let edge = Edge::start().await;
    let before = edge.published().await;
    edge.edit("https://matrix.localhost:8443", "https://other.localhost");
    edge.edit("[limits]", "[limits]\nmax_connections = \"many\"");
    let told = edge.command(&["reload"]).await;
    assert_eq!(told.code, Some(1));
    let file = edge.folder.path().join("edge.toml");
    let line = std::fs::read_to_string(&file).unwrap().lines().position(|line| line.contains("many")).unwrap() + 1;
    let place = format!("{}:{line}:19: limits.max_connections: ", file.display());
    assert!(told.stderr.contains(&place) && told.stderr.contains("nothing was changed"), "{}", told.stderr);
    let told = edge.command(&["reload", "--json"]).await;
    assert_eq!(told.code, Some(1));
    assert_eq!(told.json()["details"]["mistakes"][0]["key"], "limits.max_connections");
    assert_eq!(edge.published().await, before);

    edge.signal("HUP");
    patiently("the log line", async {
        while !edge.log().contains("the configuration stays as it was") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert_eq!(edge.published().await, before);
}

/// Sends requests until told to stop; every one must be answered with 200.
pub(crate) async fn keep_asking(mut connection: Connection, stop: Arc<AtomicBool>, answered: Arc<AtomicUsize>) {
    let mut number = 0;
    while !stop.load(Ordering::SeqCst) {
        number += 1;
        let target = format!("/_matrix/client/v3/rooms/!{number}:b/send/m.room.message/{number}");
        let answer = patiently("a request", connection.send(request("PUT", &target, "{}"))).await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        answered.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_hangup_every_100_ms_under_load_fails_no_request() {
    let edge = Arc::new(Edge::with(Options { shards: 2, ..Options::default() }).await);
    let stop = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicUsize::new(0));
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..6 {
        let connection = if client % 2 == 0 { edge.http1().await } else { edge.http2().await };
        clients.spawn(keep_asking(connection, stop.clone(), answered.clone()));
    }
    {
        // New connections meet each reload as well: their handshakes look a certificate up.
        let (edge, stop, answered) = (edge.clone(), stop.clone(), answered.clone());
        clients.spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                assert_eq!(edge.ask("GET", "/_matrix/client/versions").await.status, 200);
                answered.fetch_add(1, Ordering::SeqCst);
            }
        });
    }
    let mut turn = tokio::time::interval(Duration::from_millis(100));
    for round in 0..30 {
        turn.tick().await;
        let names = ["https://matrix.localhost:8443", "https://other.localhost"];
        edge.edit(names[round % 2], names[(round + 1) % 2]);
        edge.signal("HUP");
    }
    stop.store(true, Ordering::SeqCst);
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    assert!(answered.load(Ordering::SeqCst) > 300, "{answered:?} requests in three seconds");
    let reloads = edge.log().matches("the configuration was read again").count();
    assert!((20..=30).contains(&reloads), "{reloads} reloads");
    assert!(!edge.log().contains("stays as it was"));
}
