//! Reading the configuration again: all of it or nothing, and nobody notices.

use std::time::Duration;

use crate::edge::{Edge, Options, patiently};
use crate::load::Load;

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

#[tokio::test]
async fn a_hangup_every_100_ms_under_load_fails_no_request() {
    let edge = Edge::with(Options { shards: 2, ..Options::default() }).await;
    let load = Load::start(&edge).await;
    let mut turn = tokio::time::interval(Duration::from_millis(100));
    for round in 0..30 {
        turn.tick().await;
        let names = ["https://matrix.localhost:8443", "https://other.localhost"];
        edge.edit(names[round % 2], names[(round + 1) % 2]);
        edge.signal("HUP");
    }
    let answered = load.stop().await;
    assert!(answered > 100, "{answered} requests in three seconds");
    let reloads = edge.log().matches("the configuration was read again").count();
    // Signals that come while one is served are one.
    assert!((10..=30).contains(&reloads), "{reloads} reloads");
    assert!(!edge.log().contains("stays as it was"));
}
