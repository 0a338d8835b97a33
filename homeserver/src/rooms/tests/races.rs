//! What failing commits, clients that go away, and several at once do to a room.

use std::{pin::pin, time::Duration};

use ruma::{RoomId, UserId, api::client::room::create_room::v3::RoomPreset};
use serde_json::json;

use super::{
    ALICE, BOB, Draft, Shard, TestDb, Transaction, membership, message, new_room, object, on_both_engines,
    receive::assert_consistent, room_with_bob, shard, timeline, user,
};
use crate::{
    params,
    rooms::AppendError,
    rules::{pdu::Pdu, room_version::RoomVersion},
    storage::Db,
};

fn topic<'a>(sender: &'a UserId, topic: &str) -> Draft<'a> {
    Draft::state(sender, "m.room.topic", "", object(json!({ "topic": topic })))
}

async fn topic_of(shard: &Shard, room_id: &RoomId) -> serde_json::Value {
    let content: Option<serde_json::Value> = shard.rooms.state_content(room_id, "m.room.topic", "").await.unwrap();
    content.unwrap()["topic"].clone()
}

/// A room that only our own users wrote to, one after the other, is a list: each event follows the one before it.
pub(super) async fn assert_linear(db: &Db, shard: &Shard, room_id: &RoomId) {
    let sql = "SELECT e.event_id FROM events e JOIN rooms r ON r.room_nid = e.room_nid \
               WHERE r.room_id = $1 ORDER BY e.position";
    let mut before: Option<Pdu> = None;
    for row in db.query(sql, params![room_id.as_str()]).await.unwrap() {
        let event_id: String = row.get(0).unwrap();
        let pdu = shard.rooms.find_event(event_id.as_str().try_into().unwrap()).await.unwrap().unwrap().pdu;
        match &before {
            Some(before) => {
                assert_eq!(pdu.prev_events(), [before.event_id().to_owned()]);
                assert_eq!(pdu.depth(), before.depth() + 1);
            }
            None => assert!(pdu.prev_events().is_empty()),
        }
        before = Some(pdu);
    }
}

#[tokio::test]
async fn a_commit_that_fails_leaves_memory_as_the_database_is() {
    on_both_engines(|TestDb { db, .. }| async move {
        let shard = shard(&db).await;
        let alice = user(ALICE);
        let room_id = room_with_bob(&shard).await;
        let transaction = Some(Transaction { user_nid: 1, device_id: "D", scope: "send", txn_id: "t" });
        let first = shard.rooms.append(&room_id, Draft { transaction, ..message(&alice, "first") }).await.unwrap();
        let length = timeline(&db, &room_id).await.len();
        // The transaction is there already, so each of these commits fails after memory has moved on.
        let doomed = (0..5).map(|number| {
            let draft = Draft { transaction, ..topic(&alice, &format!("doomed {number}")) };
            shard.rooms.append(&room_id, draft)
        });
        let healthy = (0..5).map(|number| {
            let (rooms, room_id, alice) = (&shard.rooms, &room_id, &alice);
            async move { rooms.append(room_id, message(alice, &format!("healthy {number}"))).await }
        });
        let (doomed, healthy) =
            tokio::join!(futures_util::future::join_all(doomed), futures_util::future::join_all(healthy));
        assert!(doomed.into_iter().all(|answer| answer.unwrap() == first));
        assert!(healthy.iter().all(Result::is_ok), "{healthy:?}");
        assert_eq!(topic_of(&shard, &room_id).await, "Topic");
        assert_eq!(timeline(&db, &room_id).await.len(), length + 5);
        assert_linear(&db, &shard, &room_id).await;
        assert_consistent(&db, &shard, &room_id).await;
    })
    .await;
}

#[tokio::test]
async fn a_client_that_goes_away_half_way_harms_nobody() {
    on_both_engines(|TestDb { db, .. }| async move {
        let shard = shard(&db).await;
        let alice = user(ALICE);
        let room_id = room_with_bob(&shard).await;
        for polls in 0..12 {
            {
                let text = format!("given up after {polls}");
                let mut append = pin!(shard.rooms.append(&room_id, topic(&alice, &text)));
                for _ in 0..polls {
                    if futures_util::poll!(append.as_mut()).is_ready() {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
            shard.rooms.append(&room_id, message(&alice, &format!("after {polls}"))).await.unwrap();
            assert_consistent(&db, &shard, &room_id).await;
        }
        assert_linear(&db, &shard, &room_id).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_see_what_is_committed_and_wait_for_nobody() {
    on_both_engines(|TestDb { db, .. }| async move {
        let shard = shard(&db).await;
        let alice = user(ALICE);
        let room_id = room_with_bob(&shard).await;
        let writes = async {
            for number in 0..30 {
                let text = format!("topic {number}");
                shard.rooms.append(&room_id, topic(&alice, &text)).await.unwrap();
                assert_eq!(topic_of(&shard, &room_id).await, text, "who wrote reads it");
            }
        };
        let reads = async {
            for _ in 0..300 {
                topic_of(&shard, &room_id).await;
                tokio::task::yield_now().await;
            }
        };
        tokio::join!(writes, reads);
        let hot = shard.rooms.hot(&room_id);
        let _held = shard.rooms.lock(&room_id, &hot).await.unwrap();
        let read = tokio::time::timeout(Duration::from_secs(5), topic_of(&shard, &room_id)).await;
        assert_eq!(read.unwrap(), "topic 29");
        hot.mark_stale();
        let read = tokio::time::timeout(Duration::from_secs(5), topic_of(&shard, &room_id)).await;
        assert_eq!(read.unwrap(), "topic 29", "out of the database, too");
    })
    .await;
}

#[tokio::test]
async fn the_same_state_at_once_is_one_durable_event_for_all() {
    on_both_engines(|TestDb { db, .. }| async move {
        let shard = shard(&db).await;
        let alice = user(ALICE);
        let room_id = room_with_bob(&shard).await;
        let length = timeline(&db, &room_id).await.len();
        let sends = (0..6).map(|_| async {
            let event_id = shard.rooms.append(&room_id, topic(&alice, "same")).await.unwrap();
            assert!(shard.rooms.find_event(&event_id).await.unwrap().is_some(), "answered before it was durable");
            event_id
        });
        let mut answers = futures_util::future::join_all(sends).await;
        answers.dedup();
        assert_eq!(answers.len(), 1);
        assert_eq!(timeline(&db, &room_id).await.len(), length + 1);
    })
    .await;
}

#[tokio::test]
async fn only_rooms_that_exist_are_kept_and_not_too_many() {
    on_both_engines(|TestDb { db, .. }| async move {
        let shard = shard(&db).await;
        let room_id = room_with_bob(&shard).await;
        let nobody_knows = |number: usize| ruma::OwnedRoomId::try_from(format!("!{number}:nowhere.test")).unwrap();
        assert!(shard.rooms.find(&nobody_knows(1)).await.unwrap().is_none());
        assert!(shard.rooms.hot_if_kept(&nobody_knows(1)).is_none());
        let busy = shard.rooms.hot(&nobody_knows(0));
        for number in 0..10_000 {
            shard.rooms.hot(&nobody_knows(number));
            if number % 100 == 0 {
                shard.rooms.find(&room_id).await.unwrap();
            }
        }
        assert!(shard.rooms.shared.hot.lock().len() <= super::super::HOT_ROOMS);
        assert!(shard.rooms.hot_if_kept(&room_id).is_some(), "what is used stays");
        assert!(std::sync::Arc::ptr_eq(&busy, &shard.rooms.hot(&nobody_knows(0))), "what is in use stays the same");
        shard.rooms.append(&room_id, message(&user(ALICE), "still here")).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn redacting_others_takes_power_however_it_is_sent() {
    on_both_engines(|TestDb { db, .. }| async move {
        let shard = shard(&db).await;
        let (alice, bob) = (user(ALICE), user(BOB));
        for version in RoomVersion::ALL {
            let room_id = shard.rooms.create(&new_room(version, RoomPreset::PublicChat)).await.unwrap();
            shard.rooms.append(&room_id, membership(&bob, "join")).await.unwrap();
            let hers = shard.rooms.append(&room_id, message(&alice, "hers")).await.unwrap();
            let his = shard.rooms.append(&room_id, message(&bob, "his")).await.unwrap();
            let redaction = |target, state_key, content| Draft {
                sender: &bob,
                event_type: "m.room.redaction",
                state_key,
                content,
                redacts: target,
                transaction: Some(Transaction { user_nid: 2, device_id: "D", scope: version.as_str(), txn_id: "t" }),
            };
            let refused = shard.rooms.append(&room_id, redaction(Some(&hers), None, object(json!({})))).await;
            assert!(matches!(refused, Err(AppendError::Forbidden(_))), "{version}: {refused:?}");
            let hidden = object(json!({ "redacts": hers }));
            let refused = shard.rooms.append(&room_id, redaction(None, Some(""), hidden)).await;
            assert!(matches!(refused, Err(AppendError::UnknownEvent)), "{version}: {refused:?}");
            let first = shard.rooms.append(&room_id, redaction(Some(&his), None, object(json!({})))).await.unwrap();
            shard.rooms.append(&room_id, membership(&bob, "leave")).await.unwrap();
            let again = shard.rooms.append(&room_id, redaction(Some(&his), None, object(json!({})))).await.unwrap();
            assert_eq!(first, again, "the answer to a repeated request is the same after leaving");
            assert!(shard.rooms.find_event(&hers).await.unwrap().unwrap().pdu.json().contains("hers"));
        }
    })
    .await;
}
