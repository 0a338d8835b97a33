//! Shards that the edge starts itself: killed, restarted, and never left behind.

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::UnixListener;

use crate::client::request;
use crate::edge::{Edge, Options, patiently, signal_process};

const ARGUMENTS: &str = "GATEHOUSE_TEST_SHARD_ARGUMENTS";

/// How often the supervised process was told to read again what can be.
static TOLD: AtomicUsize = AtomicUsize::new(0);

/// Not a test: what the supervised process does. The edge starts this very program through a script.
#[tokio::test]
#[ignore = "the supervised process of the other tests"]
async fn be_a_shard() {
    let Ok(arguments) = std::env::var(ARGUMENTS) else { return };
    let arguments: Vec<&str> = arguments.split(' ').collect();
    let [.., "run", "--supervised", "--config", _, "--listen", address] = arguments[..] else {
        panic!("unexpected arguments {arguments:?}");
    };
    assert!(std::env::var("GATEHOUSE_CLUSTER_SECRET").is_ok());
    let path = address.strip_prefix("unix:").unwrap();
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path).unwrap();
    let served = async {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let answer = |request: Request<Incoming>| async move {
                    // Long enough that a kill finds requests in flight.
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    let target = request.uri().to_string();
                    let told = TOLD.load(Ordering::SeqCst);
                    let body = serde_json::json!({ "process": std::process::id(), "target": target, "told": told });
                    let body = body.to_string();
                    Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from(body))))
                };
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service_fn(answer))
                    .await;
            });
        }
    };
    let stdin_closes = tokio::task::spawn_blocking(|| {
        while std::io::stdin().read(&mut [0]).is_ok_and(|read| read > 0) {
            TOLD.fetch_add(1, Ordering::SeqCst);
        }
    });
    tokio::select! {
        () = served => {}
        _ = stdin_closes => {}
    }
}

pub(crate) async fn supervised(shards: usize) -> Edge {
    let folder = tempfile::tempdir().unwrap();
    let program: PathBuf = folder.path().join("shard.sh");
    let own = std::env::current_exe().unwrap();
    let script = format!(
        "#!/bin/sh\n{ARGUMENTS}=\"$*\" exec {} --ignored --exact supervision::be_a_shard --nocapture >/dev/null\n",
        own.display()
    );
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
    std::fs::write(folder.path().join("homeserver.toml"), "").unwrap();
    let sections = format!(
        "[supervise]\nshards = {shards}\nprogram = \"{0}/shard.sh\"\nconfig = \"{0}/homeserver.toml\"\n\
         socket_folder = \"{0}/sockets\"\nstop_seconds = 5\n",
        folder.path().display()
    );
    let edge = Edge::in_folder(folder, vec![], Options { sections: &sections, ..Options::default() }).await;
    edge.healthy_shards(shards).await;
    edge
}

pub(crate) async fn process_of(edge: &Edge, target: &str) -> u32 {
    edge.ask("GET", target).await.json()["process"].as_u64().unwrap().try_into().unwrap()
}

pub(crate) fn runs(process: u32) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // A process that ended but was not waited for yet is a zombie.
    state.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

pub(crate) async fn gone(process: u32) {
    patiently("the shard's end", async {
        while runs(process) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_reload_reaches_the_shards_and_restarts_none() {
    let edge = supervised(1).await;
    let process = process_of(&edge, "/_matrix/client/v3/sync").await;
    assert_eq!(edge.command(&["reload"]).await.code, Some(0));
    patiently("the word", async {
        while edge.ask("GET", "/_matrix/client/v3/sync").await.json()["told"] != 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert_eq!(process_of(&edge, "/_matrix/client/v3/sync").await, process);
}

#[tokio::test]
async fn no_request_is_lost_while_killed_shards_restart() {
    let edge = Arc::new(supervised(2).await);
    let stop = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..4)
        .map(|client| {
            let (edge, stop, answered) = (edge.clone(), stop.clone(), answered.clone());
            tokio::spawn(async move {
                let mut connection = edge.http2().await;
                let mut number = 0;
                while !stop.load(Ordering::SeqCst) {
                    number += 1;
                    let target = format!("/_matrix/client/v3/rooms/!{client}-{number}:b/send/m.room.message/{number}");
                    let sent = connection.send(request("PUT", &target, "{}"));
                    let answer = patiently("a request", sent).await.unwrap();
                    assert_eq!(answer.status, 200, "{answer:?}");
                    assert_eq!(answer.json()["target"], target);
                    answered.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    for round in 1..=3 {
        let target = answered.load(Ordering::SeqCst) + 200;
        patiently("progress", async {
            while answered.load(Ordering::SeqCst) < target {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        let victim = process_of(&edge, &format!("/_matrix/client/v3/rooms/!{round}:b/members")).await;
        signal_process(victim, "KILL");
        patiently("the restart", async {
            while starts(&edge).await < 2 + round {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        edge.healthy_shards(2).await;
    }
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.unwrap();
    }
    assert_eq!(starts(&edge).await, 5);
    assert!(!edge.private("/metrics").await.lines().any(|line| line.contains("5xx") && !line.ends_with(" 0")));
}

/// How many times the edge has started a shard.
async fn starts(edge: &Edge) -> u32 {
    let metrics = edge.private("/metrics").await;
    let series = metrics.lines().filter(|line| line.starts_with("gatehouse_edge_shard_starts_total{"));
    series.map(|line| line.rsplit(' ').next().unwrap().parse::<u32>().unwrap()).sum()
}

#[tokio::test]
async fn a_stopped_edge_stops_its_shards() {
    let mut edge = supervised(1).await;
    let shard = process_of(&edge, "/_matrix/client/versions").await;
    edge.signal("TERM");
    assert!(edge.ended().await.success());
    assert!(!runs(shard));
}

#[tokio::test]
async fn a_killed_edge_leaves_no_shard_behind() {
    let mut edge = supervised(1).await;
    let shard = process_of(&edge, "/_matrix/client/versions").await;
    edge.signal("KILL");
    edge.ended().await;
    gone(shard).await;
}
