//! Replacing the running program, and its shards, while clients talk.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::UnixDatagram;
use tokio::sync::Notify;

use crate::bans::dropped;
use crate::client::request;
use crate::double::Order;
use crate::edge::{Edge, Options, patiently, signal_process};
use crate::load::Load;
use crate::policy::Policy;
use crate::supervision::{gone, process_of, runs, supervised};

/// A process that an edge has started to replace it; ends with the test.
struct Successor(u32);

impl Drop for Successor {
    fn drop(&mut self) {
        if runs(self.0) {
            signal_process(self.0, "KILL");
        }
    }
}

async fn upgrade(edge: &Edge) -> Successor {
    let told = edge.command(&["upgrade", "--json"]).await;
    assert_eq!(told.code, Some(0), "{} {}\n{}", told.stdout, told.stderr, edge.log());
    Successor(told.json()["process_id"].as_u64().unwrap().try_into().unwrap())
}

async fn serving_process(edge: &Edge) -> u64 {
    edge.command(&["status", "--json"]).await.json()["process_id"].as_u64().unwrap()
}

#[tokio::test]
async fn an_upgrade_under_load_fails_no_request_and_long_polls_end_by_themselves() {
    let mut edge = Edge::start().await;
    let until = Arc::new(Notify::new());
    let mut polls = Vec::new();
    for mut connection in [edge.http1().await, edge.http2().await] {
        edge.shards[0].order(Order::Wait(until.clone()));
        polls.push(tokio::spawn(async move {
            connection.send(request("GET", "/_matrix/client/v3/sync?timeout=30000", "")).await.unwrap()
        }));
        edge.shards[0].taken.notified().await;
    }
    let load = Load::start(&edge).await;
    let first = upgrade(&edge).await;
    assert_ne!(edge.process.id(), Some(first.0));
    assert_eq!(serving_process(&edge).await, u64::from(first.0));
    load.progress(300).await;
    let second = upgrade(&edge).await;
    load.progress(300).await;
    assert_eq!(serving_process(&edge).await, u64::from(second.0));
    assert!(runs(edge.process.id().unwrap()), "the polls are still in the first process");
    until.notify_waiters();
    for poll in polls {
        assert_eq!(poll.await.unwrap().status, 200);
    }
    assert!(edge.ended().await.success());
    gone(first.0).await;
    load.progress(300).await;
    load.stop().await;
    signal_process(second.0, "TERM");
    gone(second.0).await;
}

#[tokio::test]
async fn a_broken_configuration_keeps_the_old_process_and_is_named() {
    let edge = Edge::start().await;
    let load = Load::start(&edge).await;
    edge.edit("[limits]", "[limits]\nmax_connections = \"many\"");
    let told = edge.command(&["upgrade"]).await;
    assert_eq!(told.code, Some(1));
    assert!(told.stderr.contains("edge.toml:") && told.stderr.contains("limits.max_connections"), "{}", told.stderr);
    edge.edit("max_connections = \"many\"", "");
    // Right by itself, but the address is another edge's.
    let other = Edge::start().await;
    edge.edit("http = [\"127.0.0.1:0\"]", &format!("http = [\"{}\"]", other.http));
    let told = edge.command(&["upgrade"]).await;
    assert_eq!(told.code, Some(1));
    assert!(told.stderr.contains(&other.http.to_string()) && told.stderr.contains("listen.http"), "{}", told.stderr);
    assert_eq!(serving_process(&edge).await, u64::from(edge.process.id().unwrap()));
    load.progress(100).await;
    load.stop().await;
}

#[tokio::test]
async fn an_upgrade_brings_what_a_reload_cannot() {
    let mut edge = Edge::start().await;
    edge.edit("health_interval_ms = 200", "health_interval_ms = 300");
    edge.edit("http = [\"127.0.0.1:0\"]", "http = []");
    let told = edge.command(&["reload", "--json"]).await.json();
    assert_eq!(told["needs_upgrade"], serde_json::json!(["listen.http", "upstream.health_interval_ms"]));
    let _successor = upgrade(&edge).await;
    assert!(edge.ended().await.success());
    assert_eq!(edge.ask("GET", "/_matrix/client/versions").await.status, 200);
    let told = edge.command(&["reload", "--json"]).await.json();
    assert_eq!(told["needs_upgrade"], serde_json::json!([]));
}

#[tokio::test]
async fn shards_live_on_under_the_new_process() {
    let mut edge = supervised(2).await;
    let load = Load::start(&edge).await;
    let shard = process_of(&edge, "/_matrix/client/versions").await;
    let first = upgrade(&edge).await;
    assert!(edge.ended().await.success());
    load.progress(100).await;
    assert_eq!(process_of(&edge, "/_matrix/client/versions").await, shard, "the shard was not restarted");

    // Twice removed from the process that started them, shards are still watched and still stopped.
    let second = upgrade(&edge).await;
    gone(first.0).await;
    load.stop().await;
    signal_process(shard, "KILL");
    let mut next = process_of(&edge, "/_matrix/client/versions").await;
    patiently("the restart", async {
        edge.healthy_shards(2).await;
        next = process_of(&edge, "/_matrix/client/versions").await;
    })
    .await;
    assert_ne!(next, shard);
    signal_process(second.0, "TERM");
    gone(second.0).await;
    gone(next).await;
}

#[tokio::test]
async fn a_killed_successor_leaves_no_shard_behind() {
    let mut edge = supervised(1).await;
    let shard = process_of(&edge, "/_matrix/client/versions").await;
    let successor = upgrade(&edge).await;
    assert!(edge.ended().await.success());
    signal_process(successor.0, "KILL");
    gone(shard).await;
}

#[tokio::test]
async fn shards_restart_one_by_one_without_a_failed_request() {
    for shards in [2, 1] {
        let edge = supervised(shards).await;
        let before = process_of(&edge, "/_matrix/client/versions").await;
        let load = Load::start(&edge).await;
        let told = edge.command(&["upgrade", "--shards", "--json"]).await;
        assert_eq!(told.code, Some(0), "{} {}", told.stdout, told.stderr);
        let reports = told.json();
        assert_eq!(reports.as_array().unwrap().len(), shards);
        assert!(reports.as_array().unwrap().iter().all(|shard| shard["healthy"] == true && shard["starts"] == 2));
        load.progress(100).await;
        load.stop().await;
        assert_ne!(process_of(&edge, "/_matrix/client/versions").await, before);
        let only = reports[0]["shard"].as_str().unwrap();
        assert_eq!(edge.command(&["shards", "restart", only]).await.code, Some(0));
        let listed = edge.command(&["shards", "list", "--json"]).await.json();
        assert_eq!(listed[0]["starts"], 3);
        let told = edge.command(&["shards", "restart", "unix:/nowhere"]).await;
        assert!(told.code == Some(1) && told.stderr.contains("gatehouse shards list"), "{}", told.stderr);
    }
}

#[tokio::test]
async fn systemd_is_told_who_serves() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let systemd = UnixDatagram::bind(&path).unwrap();
    let next = async || {
        let mut told = [0; 256];
        let bytes = patiently("a word to systemd", systemd.recv(&mut told)).await.unwrap();
        String::from_utf8_lossy(&told[..bytes]).into_owned()
    };
    let environment = [("NOTIFY_SOCKET", path.to_str().unwrap())];
    let mut edge = Edge::with(Options { shards: 1, environment: &environment, ..Options::default() }).await;
    assert_eq!(next().await, "READY=1");
    let successor = upgrade(&edge).await;
    let told = [next().await, next().await];
    let main = format!("MAINPID={}", successor.0);
    assert!(told.contains(&main), "{told:?}");
    assert!(told.iter().any(|told| told == "READY=1"), "{told:?}");
    assert!(edge.ended().await.success());
    signal_process(successor.0, "TERM");
    assert_eq!(next().await, "STOPPING=1");
}

#[tokio::test]
async fn a_stop_cuts_the_end_of_an_upgrade_short() {
    let mut edge = Edge::with(Options { shards: 1, limits: "drain_seconds = 1", ..Options::default() }).await;
    edge.shards[0].order(Order::Wait(Arc::new(Notify::new())));
    let mut busy = edge.http1().await;
    let poll = tokio::spawn(async move { busy.send(request("GET", "/_matrix/client/v3/sync", "")).await });
    edge.shards[0].taken.notified().await;
    let _successor = upgrade(&edge).await;
    let began = Instant::now();
    edge.signal("TERM");
    assert!(edge.ended().await.success());
    assert!(began.elapsed() < Duration::from_secs(10), "it took {:?}", began.elapsed());
    assert!(poll.await.unwrap().is_err());
    assert_eq!(edge.ask("GET", "/_matrix/client/versions").await.status, 200);
}

/// Nothing keeps the bans here but the processes themselves.
#[tokio::test]
async fn old_and_new_processes_hear_of_each_others_bans() {
    let policy = Policy::new(
        "[jails.login]\nfeeds = [\"login-failed\"]\nmaxretry = 1\nfindtime_seconds = 600\nbantime_seconds = 600\n",
    );
    let mut edge = policy.edge("").await;
    assert_eq!(edge.command(&["ban", "127.0.0.65"]).await.code, Some(0));
    // Two requests that the first process still has when the third one serves.
    let (guessed, polled) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let verdict = vec![("x-gatehouse-verdict", "login-failed @alice:localhost")];
    edge.shard().order(Order::SayWhen(guessed.clone(), verdict, String::new()));
    let mut guesser = edge.from("127.0.0.66").await;
    let guess = tokio::spawn(async move { guesser.send(request("POST", "/_matrix/client/v3/login", "{}")).await });
    patiently("the guess", edge.shard().taken.notified()).await;
    edge.shard().order(Order::Wait(polled.clone()));
    let mut poller = edge.from("127.0.0.67").await;
    let poll = tokio::spawn(async move { poller.send(request("GET", "/_matrix/client/v3/sync", "")).await });
    patiently("the long poll", edge.shard().taken.notified()).await;

    let first = upgrade(&edge).await;
    let _second = upgrade(&edge).await;
    assert!(edge.drops("127.0.0.65").await, "it was banned before");
    assert_eq!(edge.command(&["ban", "127.0.0.67"]).await.code, Some(0));
    assert!(patiently("the cut of the long poll", poll).await.unwrap().is_err());
    guessed.notify_one();
    // Who is banned may miss the answer.
    let _ = patiently("the verdict", guess).await;
    dropped(&edge, "127.0.0.66", true).await;
    assert!(edge.ended().await.success());
    gone(first.0).await;
    let bans = edge.command(&["bans", "--json"]).await.json();
    assert_eq!(bans.as_array().unwrap().len(), 3, "{bans}");
    polled.notify_one();
}

#[tokio::test]
async fn who_is_on_the_way_to_a_ban_is_no_further_from_it() {
    let policy = Policy::new(
        "[jails.login]\nfeeds = [\"login-failed\"]\nmaxretry = 3\nfindtime_seconds = 600\nbantime_seconds = 600\n",
    );
    let mut edge = policy.edge("").await;
    edge.offend("127.0.0.68", "login-failed @alice:localhost", 2).await;
    let _successor = upgrade(&edge).await;
    edge.offend("127.0.0.68", "login-failed @alice:localhost", 1).await;
    dropped(&edge, "127.0.0.68", true).await;
    assert!(edge.ended().await.success());
}
