//! Rooms on both engines: what local users do, one after the other and at once.

mod afar;
mod races;
mod receive;

use std::sync::Arc;

use gatehouse_shared::clock::SystemClock;
use ruma::{
    CanonicalJsonObject, OwnedRoomId, OwnedUserId, RoomId, UserId, api::client::room::create_room::v3::RoomPreset,
    user_id,
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{
    AppendError, Draft, NewRoom, Rooms, RoomsParts, Transaction,
    create::{Profile, object},
};
use crate::{
    params,
    rules::{room_version::RoomVersion, signatures::key_pair_from_seed},
    storage::{
        Db,
        event_cache::EventCache,
        nid::Nids,
        testing::{self, TestDb, on_both_engines},
        user_names::UserNames,
    },
    stream::Stream,
};

const ALICE: &str = "@alice:gatehouse.test";
const BOB: &str = "@bob:gatehouse.test";

struct Shard {
    rooms: Rooms,
    stream: Stream,
    _running: tokio_util::sync::DropGuard,
}

async fn shard(db: &Db) -> Shard {
    let shutdown = CancellationToken::new();
    let stream = Stream::open(db.clone()).await.unwrap();
    let lane = stream.start(Arc::new(SystemClock), shutdown.clone()).await.unwrap();
    let nids = Nids::new(db.clone());
    let rooms = Rooms::new(RoomsParts {
        db: db.clone(),
        names: UserNames::new(db.clone(), nids.clone()),
        nids,
        event_cache: EventCache::default(),
        lane,
        stream: stream.clone(),
        server_name: "gatehouse.test".try_into().unwrap(),
        signing_key: Arc::new(key_pair_from_seed(&[7; 32], "a_test".to_owned()).unwrap()),
        clock: Arc::new(SystemClock),
    });
    tokio::spawn(rooms.clone().follow(shutdown.clone()));
    Shard { rooms, stream, _running: shutdown.drop_guard() }
}

fn new_room(version: RoomVersion, preset: RoomPreset) -> NewRoom {
    NewRoom {
        creator: user(ALICE),
        room_version: version,
        creation_content: CanonicalJsonObject::new(),
        preset,
        is_published: false,
        name: Some("Room".to_owned()),
        topic: Some("Topic".to_owned()),
        alias: None,
        power_levels: CanonicalJsonObject::new(),
        initial_state: Vec::new(),
        invites: vec![user(BOB)],
        remote_invites: Vec::new(),
        is_direct: true,
        profile: Profile { displayname: Some("Alice".to_owned()), avatar_url: None },
    }
}

fn user(text: &str) -> OwnedUserId {
    text.try_into().unwrap()
}

fn message<'a>(sender: &'a UserId, body: &str) -> Draft<'a> {
    Draft {
        sender,
        event_type: "m.room.message",
        state_key: None,
        content: object(json!({ "msgtype": "m.text", "body": body })),
        redacts: None,
        transaction: None,
    }
}

fn membership<'a>(sender: &'a UserId, membership: &str) -> Draft<'a> {
    Draft::state(sender, "m.room.member", sender.as_str(), object(json!({ "membership": membership })))
}

/// Position, type and body of a room's events in order.
async fn timeline(db: &Db, room_id: &RoomId) -> Vec<(i64, String, String)> {
    let sql = "SELECT e.position, e.event_type, e.json FROM events e JOIN rooms r ON r.room_nid = e.room_nid \
               WHERE r.room_id = $1 AND e.position IS NOT NULL ORDER BY e.position";
    let rows = db.query(sql, params![room_id.as_str()]).await.unwrap();
    let body = |json: String| {
        let event: serde_json::Value = serde_json::from_str(&json).unwrap();
        event["content"]["body"].as_str().unwrap_or_default().to_owned()
    };
    rows.iter().map(|row| (row.get(0).unwrap(), row.get(1).unwrap(), body(row.get(2).unwrap()))).collect()
}

#[tokio::test]
async fn a_room_of_every_version_takes_messages() {
    on_both_engines(|TestDb { db, .. }| async move {
        let shard = shard(&db).await;
        for version in RoomVersion::ALL {
            for preset in [RoomPreset::PrivateChat, RoomPreset::PublicChat, RoomPreset::TrustedPrivateChat] {
                let room_id = shard.rooms.create(&new_room(version, preset)).await.unwrap();
                shard.rooms.append(&room_id, membership(&user(BOB), "join")).await.unwrap();
                shard.rooms.append(&room_id, message(&user(BOB), "one")).await.unwrap();
                shard.rooms.append(&room_id, message(&user(ALICE), "two")).await.unwrap();
                let events = timeline(&db, &room_id).await;
                assert!(events.iter().map(|event| event.0).eq(1..=events.len() as i64), "{events:?}");
                let bodies: Vec<&str> = events.iter().rev().take(2).map(|event| event.2.as_str()).collect();
                assert_eq!(bodies, ["two", "one"], "{version:?}");
                assert_eq!(shard.rooms.membership(&room_id, &user(BOB)).await.unwrap().as_deref(), Some("join"));
            }
        }
    })
    .await;
}

#[tokio::test]
async fn what_the_rules_refuse_is_not_stored() {
    on_both_engines(|TestDb { db, .. }| async move {
        let shard = shard(&db).await;
        let room_id = shard.rooms.create(&new_room(RoomVersion::V11, RoomPreset::PrivateChat)).await.unwrap();
        let before = timeline(&db, &room_id).await.len();
        let carol = user_id!("@carol:gatehouse.test");
        let refused = shard.rooms.append(&room_id, message(carol, "hello")).await;
        assert!(matches!(refused, Err(AppendError::Forbidden(_))), "{refused:?}");
        let refused = shard.rooms.append(&room_id, membership(carol, "join")).await;
        assert!(matches!(refused, Err(AppendError::Forbidden(_))), "{refused:?}");
        let unknown =
            shard.rooms.append(&RoomId::new_v1("gatehouse.test".try_into().unwrap()), message(carol, "?")).await;
        assert!(matches!(unknown, Err(AppendError::UnknownRoom)), "{unknown:?}");
        assert_eq!(timeline(&db, &room_id).await.len(), before);
        // The room goes on as before.
        shard.rooms.append(&room_id, message(&user(ALICE), "still here")).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_transaction_makes_one_event() {
    on_both_engines(|TestDb { db, .. }| async move {
        let shard = shard(&db).await;
        let alice = user(ALICE);
        let room_id = shard.rooms.create(&new_room(RoomVersion::V12, RoomPreset::PrivateChat)).await.unwrap();
        let before = timeline(&db, &room_id).await.len();
        let draft = || Draft {
            transaction: Some(Transaction { user_nid: 1, device_id: "D", scope: "send", txn_id: "t" }),
            ..message(&alice, "once")
        };
        let sends = (0..8).map(|_| shard.rooms.append(&room_id, draft()));
        let answers = futures_util::future::join_all(sends).await;
        let first = answers[0].as_ref().unwrap();
        assert!(answers.iter().all(|answer| answer.as_ref().unwrap() == first), "{answers:?}");
        assert_eq!(timeline(&db, &room_id).await.len(), before + 1);
    })
    .await;
}

#[tokio::test]
async fn the_same_state_is_not_sent_twice() {
    on_both_engines(|TestDb { db, .. }| async move {
        let shard = shard(&db).await;
        let alice = user(ALICE);
        let room_id = shard.rooms.create(&new_room(RoomVersion::V12, RoomPreset::PrivateChat)).await.unwrap();
        let topic = || Draft::state(&alice, "m.room.topic", "", object(json!({ "topic": "new" })));
        let first = shard.rooms.append(&room_id, topic()).await.unwrap();
        assert_eq!(shard.rooms.append(&room_id, topic()).await.unwrap(), first);
    })
    .await;
}

#[tokio::test]
async fn a_redaction_takes_the_content_away() {
    on_both_engines(|TestDb { db, .. }| async move {
        let shard = shard(&db).await;
        let alice = user(ALICE);
        for version in RoomVersion::ALL {
            let room_id = shard.rooms.create(&new_room(version, RoomPreset::PrivateChat)).await.unwrap();
            let secret = shard.rooms.append(&room_id, message(&alice, "secret")).await.unwrap();
            let draft = Draft {
                event_type: "m.room.redaction",
                content: CanonicalJsonObject::new(),
                redacts: Some(&secret),
                ..message(&alice, "")
            };
            let redaction = shard.rooms.append(&room_id, draft).await.unwrap();
            let stored = shard.rooms.find_event(&secret).await.unwrap().unwrap();
            assert!(!stored.pdu.json().contains("secret"), "{}", stored.pdu.json());
            assert_eq!(stored.redacted_by, Some(redaction));
        }
    })
    .await;
}

async fn room_with_bob(shard: &Shard) -> OwnedRoomId {
    let room_id = shard.rooms.create(&new_room(RoomVersion::V12, RoomPreset::PublicChat)).await.unwrap();
    shard.rooms.append(&room_id, membership(&user(BOB), "join")).await.unwrap();
    room_id
}

/// Many senders at once, over all given shards; afterwards the room is a gap-free list with each message once.
async fn hammer(db: &Db, shards: &[Shard], each: usize) {
    let room_id = room_with_bob(&shards[0]).await;
    let before = timeline(db, &room_id).await.len();
    let alice = user(ALICE);
    let senders = shards
        .iter()
        .enumerate()
        .flat_map(|(shard_number, shard)| (0..4).map(move |sender| (shard, format!("{shard_number}.{sender}"))));
    let sends = senders.map(|(shard, name)| {
        let (room_id, alice) = (&room_id, &alice);
        async move {
            for number in 0..each {
                shard.rooms.append(room_id, message(alice, &format!("{name}.{number}"))).await.unwrap();
            }
        }
    });
    futures_util::future::join_all(sends).await;
    let events = timeline(db, &room_id).await;
    assert!(events.iter().map(|event| event.0).eq(1..=events.len() as i64));
    races::assert_linear(db, &shards[0], &room_id).await;
    assert_eq!(events.len(), before + shards.len() * 4 * each);
    let mut bodies: Vec<&str> = events.iter().skip(before).map(|event| event.2.as_str()).collect();
    // Each sender's messages stand in the order in which they were sent.
    for shard in 0..shards.len() {
        for sender in 0..4 {
            let prefix = format!("{shard}.{sender}.");
            let numbers = bodies.iter().filter_map(|body| body.strip_prefix(&prefix)?.parse::<usize>().ok());
            assert!(numbers.eq(0..each));
        }
    }
    bodies.sort_unstable();
    bodies.dedup();
    assert_eq!(bodies.len(), shards.len() * 4 * each);
    for shard in shards {
        shard.stream.refresh().await.unwrap();
    }
    assert!(shards.iter().all(|shard| shard.stream.positions() == shards[0].stream.positions()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_senders_in_one_room_make_one_order() {
    on_both_engines(|TestDb { db, .. }| async move {
        hammer(&db, &[shard(&db).await], 25).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_shards_in_one_room_make_one_order() {
    let TestDb { db, config } = &testing::postgres().await;
    let other = Db::open(config).await.unwrap();
    let shards = [shard(db).await, shard(&other).await];
    hammer(db, &shards, 15).await;
    let lanes = db.query("SELECT lane FROM lanes WHERE seq > 1", params![]).await.unwrap();
    assert_eq!(lanes.len(), 2, "both shards wrote in lanes of their own");
}

#[tokio::test]
async fn a_restarted_shard_goes_on_where_the_last_one_stopped() {
    on_both_engines(|TestDb { db, .. }| async move {
        let first = shard(&db).await;
        let room_id = room_with_bob(&first).await;
        drop(first);
        let second = shard(&db).await;
        second.rooms.append(&room_id, message(&user(BOB), "again")).await.unwrap();
        let events = timeline(&db, &room_id).await;
        assert_eq!(events.last().unwrap().2, "again");
        assert!(events.iter().map(|event| event.0).eq(1..=events.len() as i64));
    })
    .await;
}
