//! Many write and many read at once: nothing is lost, nothing comes twice.

use super::support::{ALICE, BOB, CAROL, Shard, bodies, room};
use crate::storage::testing::TestDb;
use crate::storage::testing::postgres;
use crate::storage::testing::sqlite_in;
use ruma::OwnedRoomId;
use ruma::api::client::room::create_room::v3::RoomPreset;
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Writers on every shard, readers on every shard: each reader sees each event of each room once, in order.
async fn nothing_is_lost_or_doubled(shards: Vec<Shard>) {
    const ROOMS: usize = 3;
    const MESSAGES: usize = 40;
    let first = shards.first().unwrap();
    let mut rooms = Vec::new();
    for _ in 0..ROOMS {
        rooms.push(first.create(RoomPreset::PrivateChat, &[BOB, CAROL]).await);
    }
    let shards: Vec<Arc<Shard>> = shards.into_iter().map(Arc::new).collect();
    let mut writers = tokio::task::JoinSet::new();
    for (index, shard) in shards.iter().enumerate() {
        for room_id in &rooms {
            let (shard, room_id) = (shard.clone(), room_id.clone());
            writers.spawn(async move {
                for number in 0..MESSAGES {
                    shard.say(&room_id, ALICE, &format!("{index}-{number}")).await;
                }
            });
        }
    }
    let expected = shards.len() * MESSAGES;
    let mut readers = tokio::task::JoinSet::new();
    for (number, name) in [BOB, CAROL, BOB, CAROL].into_iter().enumerate() {
        let mut clients = Vec::new();
        for shard in &shards {
            let limits = json!({ "room": { "timeline": { "limit": 400 } } });
            clients.push(shard.client(name).await.with_filter(limits));
        }
        let rooms = rooms.clone();
        readers.spawn(async move {
            let mut seen: HashMap<OwnedRoomId, Vec<String>> = HashMap::new();
            let mut since = None;
            for turn in 0.. {
                // Some stay with a shard, some change with each request.
                let index = if number < 2 { turn % clients.len() } else { 0 };
                let client = &mut clients[index];
                client.since = since;
                let answer = client.sync_for(Duration::from_secs(5)).await;
                since = client.since.clone();
                for room_id in &rooms {
                    let joined = room(&answer, "join", room_id);
                    assert!(turn == 0 || joined["timeline"]["limited"] != true);
                    seen.entry(room_id.clone()).or_default().extend(bodies(&joined["timeline"]["events"]));
                }
                if seen.values().all(|seen| seen.len() >= expected) {
                    break;
                }
                assert!(turn < 1_000, "something is missing: {seen:?}");
            }
            seen
        });
    }
    while let Some(done) = writers.join_next().await {
        done.unwrap();
    }
    let all: Vec<_> = tokio::time::timeout(Duration::from_secs(60), readers.join_all()).await.unwrap();
    for seen in &all {
        for (room_id, bodies) in seen {
            assert_eq!(bodies, &all[0][room_id], "all readers see one order");
            assert_eq!(bodies.len(), expected);
            for index in 0..shards.len() {
                let of_writer: Vec<&String> =
                    bodies.iter().filter(|body| body.starts_with(&format!("{index}-"))).collect();
                let wanted: Vec<String> = (0..MESSAGES).map(|number| format!("{index}-{number}")).collect();
                assert!(of_writer.into_iter().eq(&wanted), "what one writer wrote is seen in its order");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_shards_on_one_database_lose_and_double_nothing() {
    let TestDb { db, .. } = &postgres().await;
    nothing_is_lost_or_doubled(vec![Shard::start(db).await, Shard::start(db).await]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_shard_on_a_file_loses_and_doubles_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let TestDb { db, .. } = &sqlite_in(folder.path()).await;
    nothing_is_lost_or_doubled(vec![Shard::start(db).await]).await;
}
