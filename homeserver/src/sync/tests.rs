//! What clients are told, on both engines.

mod no_loss;
mod support;

use super::EventFilter;
use super::LazyLoading;
use super::ReadError;
use super::room::Direction;
use super::room::MembersQuery;
use super::room::MessagesQuery;
use super::room::StateFormat;
use crate::rooms::Draft;
use crate::rooms::Transaction;
use crate::rooms::object;
use crate::rules::membership::Membership;
use crate::storage::testing::TestDb;
use crate::storage::testing::on_both_engines;
use crate::storage::testing::sqlite_in;
use ruma::OwnedEventId;
use ruma::api::client::room::create_room::v3::RoomPreset;
use serde_json::Value;
use serde_json::json;
use std::collections::HashMap;
use std::time::Duration;
use support::{ALICE, BOB, CAROL, Shard, bodies, ids, room, types, user};

#[tokio::test]
async fn a_first_sync_tells_state_and_timeline_without_overlap() {
    on_both_engines(|TestDb { db, .. }| async move {
        let shard = Shard::start(&db).await;
        let room_id = shard.create(RoomPreset::PrivateChat, &[BOB]).await;
        for number in 0..20 {
            shard.say(&room_id, ALICE, &format!("{number}")).await;
        }
        let answer = shard.client(BOB).await.sync().await;
        let joined = room(&answer, "join", &room_id);
        let expected: Vec<String> = (10..20).map(|number| number.to_string()).collect();
        assert_eq!(bodies(&joined["timeline"]["events"]), expected);
        assert_eq!(joined["timeline"]["limited"], true);
        let state = &joined["state"]["events"];
        for event_type in ["m.room.create", "m.room.power_levels", "m.room.name", "m.room.member"] {
            assert!(types(state).contains(&event_type), "{event_type} in {state}");
        }
        assert_eq!(types(state).iter().filter(|kind| **kind == "m.room.member").count(), 2);
        assert_eq!(joined["summary"], json!({ "m.joined_member_count": 2, "m.invited_member_count": 0 }));
        assert_eq!(joined["unread_notifications"]["notification_count"], 20);
        assert_eq!(answer["device_one_time_keys_count"], json!({ "signed_curve25519": 0 }));
        assert_eq!(answer["account_data"]["events"][0]["type"], "m.push_rules");

        // A room that is not longer than its timeline has no state beside it.
        let mut client = shard.client(BOB).await.with_filter(json!({ "room": { "timeline": { "limit": 100 } } }));
        let answer = client.sync().await;
        let joined = room(&answer, "join", &room_id);
        assert_eq!(joined["timeline"]["limited"], false);
        assert_eq!(joined["state"]["events"], json!([]));
        assert_eq!(types(&joined["timeline"]["events"])[0], "m.room.create");
    })
    .await;
}

#[tokio::test]
async fn what_is_new_is_told_once() {
    on_both_engines(|TestDb { db, .. }| async move {
        let shard = Shard::start(&db).await;
        let room_id = shard.create(RoomPreset::PrivateChat, &[BOB]).await;
        let (mut alice, mut bob) = (shard.client(ALICE).await, shard.client(BOB).await);
        alice.sync().await;
        bob.sync().await;
        let transaction = Transaction { user_nid: alice.user_nid, device_id: "DEVICE", scope: "send", txn_id: "txn1" };
        let content = json!({ "msgtype": "m.text", "body": "one" });
        shard.say_more(&room_id, ALICE, content, Some(transaction)).await;
        shard.say(&room_id, ALICE, "two").await;
        for (client, txn_id) in [(&mut alice, json!("txn1")), (&mut bob, Value::Null)] {
            let answer = client.sync().await;
            let joined = room(&answer, "join", &room_id);
            assert_eq!(bodies(&joined["timeline"]["events"]), ["one", "two"]);
            assert_eq!(joined["timeline"]["limited"], false);
            assert_eq!(joined["timeline"]["events"][0]["unsigned"]["transaction_id"], txn_id);
            assert!(joined["timeline"]["events"][0].get("room_id").is_none());
            assert!(joined["state"]["events"].as_array().is_none_or(Vec::is_empty));
            let again = client.sync().await;
            assert!(again.get("rooms").is_none(), "{again}");
        }
        shard.set(&room_id, "m.room.topic", json!({ "topic": "new" })).await;
        shard.set(&room_id, "m.room.topic", json!({ "topic": "newer" })).await;
        let answer = bob.sync().await;
        let timeline = &room(&answer, "join", &room_id)["timeline"]["events"];
        assert_eq!(types(timeline), ["m.room.topic", "m.room.topic"]);
        assert_eq!(timeline[1]["unsigned"]["prev_content"]["topic"], "new");
    })
    .await;
}

#[tokio::test]
async fn a_limited_timeline_comes_with_the_state_of_its_gap() {
    on_both_engines(|TestDb { db, .. }| async move {
        let shard = Shard::start(&db).await;
        let room_id = shard.create(RoomPreset::PrivateChat, &[BOB]).await;
        let filter = json!({ "room": { "timeline": { "limit": 3 } } });
        let mut bob = shard.client(BOB).await.with_filter(filter.clone());
        let mut after = shard.client(BOB).await.with_filter(filter);
        after.use_state_after = true;
        let first = bob.sync().await;
        after.sync().await;
        shard.set(&room_id, "m.room.topic", json!({ "topic": "in the gap" })).await;
        for number in 0..30 {
            shard.say(&room_id, ALICE, &format!("{number}")).await;
        }
        shard.set(&room_id, "m.room.name", json!({ "name": "in the timeline" })).await;
        let answer = bob.sync().await;
        let joined = room(&answer, "join", &room_id);
        assert_eq!(joined["timeline"]["limited"], true);
        assert_eq!(bodies(&joined["timeline"]["events"]), ["28", "29"]);
        assert_eq!(types(&joined["state"]["events"]), ["m.room.topic"]);
        let answer = after.sync().await;
        let joined = room(&answer, "join", &room_id);
        let mut state = types(&joined["state_after"]["events"]);
        state.sort_unstable();
        assert_eq!(state, ["m.room.name", "m.room.topic"]);
        assert!(joined.get("state").is_none());

        // The gap can be filled between the two tokens.
        let query = MessagesQuery {
            direction: Direction::Backward,
            from: Some(joined["timeline"]["prev_batch"].as_str().unwrap().parse().unwrap()),
            to: Some(first["next_batch"].as_str().unwrap().parse().unwrap()),
            limit: 100,
            filter: EventFilter::default(),
            lazy: LazyLoading::Off,
        };
        let gap: Value =
            serde_json::from_str(&shard.sync.messages(bob.reader(), &room_id, &query).await.unwrap()).unwrap();
        assert_eq!(gap["chunk"].as_array().unwrap().len(), 29);
        assert!(gap.get("end").is_none());
    })
    .await;
}

#[tokio::test]
async fn a_long_poll_ends_when_something_comes_or_its_time_is_up() {
    on_both_engines(|TestDb { db, .. }| async move {
        let shard = Shard::start(&db).await;
        let room_id = shard.create(RoomPreset::PrivateChat, &[BOB]).await;
        let other = shard.create(RoomPreset::PrivateChat, &[CAROL]).await;
        let mut bob = shard.client(BOB).await;
        bob.sync().await;
        let waiting = tokio::spawn(async move {
            let answer = bob.sync_for(Duration::from_secs(30)).await;
            (bob, answer)
        });
        tokio::time::sleep(Duration::from_millis(50)).await;
        shard.say(&other, CAROL, "not for bob").await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!waiting.is_finished());
        shard.say(&room_id, ALICE, "for bob").await;
        let (mut bob, answer) = tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap();
        assert_eq!(bodies(&room(&answer, "join", &room_id)["timeline"]["events"]), ["for bob"]);
        assert!(room(&answer, "join", &other).is_null());
        let answer = bob.sync_for(Duration::from_millis(20)).await;
        assert!(answer.get("rooms").is_none());
    })
    .await;
}

#[tokio::test]
async fn counts_move_with_events_and_receipts() {
    on_both_engines(|TestDb { db, .. }| async move {
        let shard = Shard::start(&db).await;
        let room_id = shard.create(RoomPreset::PrivateChat, &[BOB]).await;
        let mut bob = shard.client(BOB).await;
        bob.sync().await;
        let counts = |answer: &Value| room(answer, "join", &room_id)["unread_notifications"].clone();
        let first = shard.say(&room_id, ALICE, "one").await;
        assert_eq!(counts(&bob.sync().await), json!({ "highlight_count": 0, "notification_count": 1 }));
        shard.say(&room_id, ALICE, "two").await;
        shard.say(&room_id, BOB, "mine").await;
        let content = json!({ "msgtype": "m.text", "body": "you", "m.mentions": { "user_ids": [BOB] } });
        let last = shard.say_more(&room_id, ALICE, content, None).await;
        assert_eq!(counts(&bob.sync().await), json!({ "highlight_count": 1, "notification_count": 3 }));
        shard.read(&room_id, BOB, &first, "").await;
        let answer = bob.sync().await;
        assert_eq!(counts(&answer), json!({ "highlight_count": 1, "notification_count": 2 }));
        let receipt = &room(&answer, "join", &room_id)["ephemeral"]["events"][0];
        assert_eq!(receipt["content"][first.as_str()]["m.read"][BOB], json!({ "ts": 5 }));
        shard.read(&room_id, BOB, &last, "").await;
        assert_eq!(counts(&bob.sync().await), json!({ "highlight_count": 0, "notification_count": 0 }));

        // A shard that remembers nothing counts the same.
        let root = shard.say(&room_id, ALICE, "root").await;
        let relation = json!({ "rel_type": "m.thread", "event_id": root });
        let content = json!({ "msgtype": "m.text", "body": "in the thread", "m.relates_to": relation });
        shard.say_more(&room_id, ALICE, content, None).await;
        drop(shard);
        let shard = Shard::start(&db).await;
        let threads = json!({ "room": { "timeline": { "unread_thread_notifications": true } } });
        let mut bob = shard.client(BOB).await.with_filter(threads);
        let answer = bob.sync().await;
        assert_eq!(counts(&answer), json!({ "highlight_count": 0, "notification_count": 1 }));
        let in_threads = &room(&answer, "join", &room_id)["unread_thread_notifications"];
        assert_eq!(in_threads[root.as_str()]["notification_count"], 1);
        shard.read(&room_id, BOB, &root, "main").await;
        assert_eq!(counts(&bob.sync().await)["notification_count"], 0);
    })
    .await;
}

#[tokio::test]
async fn lazy_loading_tells_the_members_who_speak() {
    let folder = tempfile::tempdir().unwrap();
    let TestDb { db, .. } = &sqlite_in(folder.path()).await;
    let shard = Shard::start(db).await;
    let room_id = shard.create(RoomPreset::PrivateChat, &[BOB, CAROL]).await;
    for _ in 0..10 {
        shard.say(&room_id, ALICE, "hello").await;
    }
    let lazy = json!({ "room": { "state": { "lazy_load_members": true } } });
    let mut bob = shard.client(BOB).await.with_filter(lazy);
    let members = |answer: &Value| {
        let state = room(answer, "join", &room_id)["state"]["events"].as_array().cloned().unwrap_or_default();
        let members = state.iter().filter(|event| event["type"] == "m.room.member");
        let mut members: Vec<String> = members.map(|event| event["state_key"].as_str().unwrap().to_owned()).collect();
        members.sort_unstable();
        members
    };
    assert_eq!(members(&bob.sync().await), [ALICE, BOB]);
    shard.say(&room_id, CAROL, "hello").await;
    assert_eq!(members(&bob.sync().await), [CAROL]);
    shard.say(&room_id, CAROL, "again").await;
    let before = bob.since.clone();
    assert_eq!(members(&bob.sync().await), Vec::<String>::new());
    // Nothing was received of an answer that the client does not continue from.
    bob.since = before;
    shard.say(&room_id, ALICE, "and again").await;
    assert_eq!(members(&bob.sync().await), Vec::<String>::new());
}

#[tokio::test]
async fn invites_joins_and_leaves_are_told() {
    on_both_engines(|TestDb { db, .. }| async move {
        let shard = Shard::start(&db).await;
        let room_id = shard.create(RoomPreset::PrivateChat, &[]).await;
        let mut bob = shard.client(BOB).await;
        bob.sync().await;
        let alice = user(ALICE);
        let invite =
            Draft::state(&alice, "m.room.member", BOB, object(json!({ "membership": "invite", "displayname": "Bob" })));
        shard.rooms.append(&room_id, invite.clone()).await.unwrap();
        let answer = bob.sync().await;
        let invited = &room(&answer, "invite", &room_id)["invite_state"]["events"];
        assert!(types(invited).contains(&"m.room.name") && types(invited).contains(&"m.room.create"), "{invited}");
        let own = invited.as_array().unwrap().iter().find(|event| event["state_key"] == BOB).unwrap();
        assert_eq!(own["content"]["membership"], "invite");
        assert!(bob.sync().await.get("rooms").is_none());

        shard.say(&room_id, ALICE, "before").await;
        shard.member(&room_id, BOB, "join").await;
        shard.say(&room_id, ALICE, "while").await;
        let answer = bob.sync().await;
        let joined = room(&answer, "join", &room_id);
        assert_eq!(bodies(&joined["timeline"]["events"]), ["before", "while"]);
        let all = joined["state"]["events"]
            .as_array()
            .unwrap()
            .iter()
            .chain(joined["timeline"]["events"].as_array().unwrap());
        assert!(all.filter(|event| event["type"] == "m.room.create").count() == 1);

        shard.member(&room_id, BOB, "leave").await;
        shard.say(&room_id, ALICE, "after").await;
        let answer = bob.sync().await;
        let left = room(&answer, "leave", &room_id);
        assert_eq!(types(&left["timeline"]["events"]), ["m.room.member"]);
        assert!(bob.sync().await.get("rooms").is_none());
        let page = bob.messages(&room_id, Direction::Backward, None, 100).await;
        assert_eq!(bodies(&page["chunk"]), ["while", "before"]);

        // A refused invite shows nothing of the room.
        shard.set(&room_id, "m.room.history_visibility", json!({ "history_visibility": "joined" })).await;
        shard.rooms.append(&room_id, invite).await.unwrap();
        bob.sync().await;
        let mut carol = shard.client(CAROL).await;
        carol.sync().await;
        let invite = Draft::state(&alice, "m.room.member", CAROL, object(json!({ "membership": "invite" })));
        shard.rooms.append(&room_id, invite).await.unwrap();
        carol.sync().await;
        shard.member(&room_id, CAROL, "leave").await;
        let answer = carol.sync().await;
        let left = room(&answer, "leave", &room_id);
        assert_eq!(types(&left["timeline"]["events"]), ["m.room.member"]);
        assert_eq!(left["state"]["events"], json!([]));
        let refused = shard.sync.state(carol.reader(), &room_id).await;
        assert!(matches!(refused, Err(ReadError::NotInRoom)));
    })
    .await;
}

#[tokio::test]
async fn history_is_seen_from_when_it_was_meant_to_be() {
    on_both_engines(|TestDb { db, .. }| async move {
        let shard = Shard::start(&db).await;
        let room_id = shard.create(RoomPreset::PublicChat, &[]).await;
        let shared = shard.say(&room_id, ALICE, "shared").await;
        shard.set(&room_id, "m.room.history_visibility", json!({ "history_visibility": "joined" })).await;
        let hidden = shard.say(&room_id, ALICE, "hidden").await;
        shard.member(&room_id, BOB, "join").await;
        shard.say(&room_id, ALICE, "seen").await;
        let mut bob = shard.client(BOB).await.with_filter(json!({ "room": { "timeline": { "limit": 100 } } }));
        let answer = bob.sync().await;
        assert_eq!(bodies(&room(&answer, "join", &room_id)["timeline"]["events"]), ["shared", "seen"]);
        for direction in [Direction::Backward, Direction::Forward] {
            let mut seen = bodies(&bob.messages(&room_id, direction, None, 100).await["chunk"]);
            seen.sort_unstable();
            assert_eq!(seen, ["seen", "shared"]);
        }
        assert!(shard.sync.event(bob.reader(), &room_id, &shared).await.is_ok());
        let refused = shard.sync.event(bob.reader(), &room_id, &hidden).await;
        assert!(matches!(refused, Err(ReadError::UnknownEvent)));
        let filter = EventFilter::default();
        let refused = shard.sync.context(bob.reader(), &room_id, &hidden, 5, &filter, LazyLoading::Off).await;
        assert!(matches!(refused, Err(ReadError::UnknownEvent)));
        let carol = shard.client(CAROL).await;
        let refused = shard.sync.state(carol.reader(), &room_id).await;
        assert!(matches!(refused, Err(ReadError::NotInRoom)));
    })
    .await;
}

#[tokio::test]
async fn pages_hold_every_event_once_in_both_directions() {
    on_both_engines(|TestDb { db, .. }| async move {
        let shard = Shard::start(&db).await;
        let room_id = shard.create(RoomPreset::PrivateChat, &[BOB]).await;
        for number in 0..25 {
            shard.say(&room_id, BOB, &format!("{number}")).await;
        }
        let bob = shard.client(BOB).await;
        let mut pages = HashMap::new();
        for direction in [Direction::Backward, Direction::Forward] {
            let (mut all, mut from): (Vec<String>, Option<String>) = (Vec::new(), None);
            loop {
                let page = bob.messages(&room_id, direction, from.as_deref(), 7).await;
                all.extend(ids(&page["chunk"]));
                match page.get("end") {
                    Some(end) => from = Some(end.as_str().unwrap().to_owned()),
                    None => break,
                }
            }
            pages.insert(direction == Direction::Forward, all);
        }
        let (mut backward, forward) = (pages[&false].clone(), pages[&true].clone());
        backward.reverse();
        assert_eq!(backward, forward);
        assert!(forward.len() > 25);

        let middle: OwnedEventId = forward[forward.len() - 10].as_str().try_into().unwrap();
        let filter = EventFilter::default();
        let context = shard.sync.context(bob.reader(), &room_id, &middle, 4, &filter, LazyLoading::New);
        let context: Value = serde_json::from_str(&context.await.unwrap()).unwrap();
        assert_eq!(ids(&context["events_before"]), [&*forward[forward.len() - 11], &*forward[forward.len() - 12]]);
        assert_eq!(ids(&context["events_after"]), [&*forward[forward.len() - 9], &*forward[forward.len() - 8]]);
        let before = bob.messages(&room_id, Direction::Backward, context["start"].as_str(), 1).await;
        assert_eq!(ids(&before["chunk"]), [&*forward[forward.len() - 13]]);
        let after = bob.messages(&room_id, Direction::Forward, context["end"].as_str(), 1).await;
        assert_eq!(ids(&after["chunk"]), [&*forward[forward.len() - 7]]);
    })
    .await;
}

#[tokio::test]
async fn members_and_state_are_told_as_of_when_one_was_there() {
    on_both_engines(|TestDb { db, .. }| async move {
        let shard = Shard::start(&db).await;
        let room_id = shard.create(RoomPreset::PrivateChat, &[BOB]).await;
        let mut bob = shard.client(BOB).await;
        bob.sync().await;
        let at = bob.since.clone().unwrap();
        shard.member(&room_id, BOB, "leave").await;
        shard.set(&room_id, "m.room.name", json!({ "name": "later" })).await;
        let name = shard.sync.state_event(bob.reader(), &room_id, "m.room.name", "", StateFormat::Content).await;
        assert_eq!(name.unwrap(), r#"{"name":"Room"}"#);
        let gone = shard.sync.state_event(bob.reader(), &room_id, "m.room.topic", "", StateFormat::Content).await;
        assert!(matches!(gone, Err(ReadError::UnknownState)));
        let alice = shard.client(ALICE).await;
        let count = async |query: MembersQuery| {
            let members = shard.sync.members(alice.reader(), &room_id, &query).await.unwrap();
            serde_json::from_str::<Value>(&members).unwrap()["chunk"].as_array().unwrap().len()
        };
        let joined = MembersQuery { membership: Some(Membership::Join), ..MembersQuery::default() };
        assert_eq!(count(joined.clone()).await, 1);
        assert_eq!(count(MembersQuery { at: Some(at.parse().unwrap()), ..joined }).await, 2);
        let not_joined = MembersQuery { not_membership: Some(Membership::Join), ..MembersQuery::default() };
        assert_eq!(count(not_joined).await, 1);
        let joined: Value =
            serde_json::from_str(&shard.sync.joined_members(alice.reader(), &room_id).await.unwrap()).unwrap();
        assert_eq!(joined["joined"], json!({ ALICE: { "display_name": "Alice" } }));
    })
    .await;
}

#[tokio::test]
async fn filters_hide_and_redactions_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let TestDb { db, .. } = &sqlite_in(folder.path()).await;
    let shard = Shard::start(db).await;
    let room_id = shard.create(RoomPreset::PrivateChat, &[BOB]).await;
    let other = shard.create(RoomPreset::PrivateChat, &[BOB]).await;
    let filter = json!({ "room": {
        "not_rooms": [other],
        "timeline": { "types": ["m.room.message"], "not_senders": [BOB] },
        "state": { "types": ["m.room.name"] },
    }});
    let mut bob = shard.client(BOB).await.with_filter(filter);
    bob.sync().await;
    let event_id = shard.say(&room_id, ALICE, "shown").await;
    shard.say(&room_id, BOB, "hidden").await;
    shard.say(&other, ALICE, "hidden").await;
    shard.set(&room_id, "m.room.topic", json!({ "topic": "hidden" })).await;
    let answer = bob.sync().await;
    assert_eq!(bodies(&room(&answer, "join", &room_id)["timeline"]["events"]), ["shown"]);
    assert!(room(&answer, "join", &other).is_null());

    let redaction = Draft {
        sender: &user(ALICE),
        event_type: "m.room.redaction",
        state_key: None,
        content: object(json!({ "redacts": event_id })),
        redacts: Some(&event_id),
        transaction: None,
    };
    shard.rooms.append(&room_id, redaction).await.unwrap();
    let event: Value =
        serde_json::from_str(&shard.sync.event(bob.reader(), &room_id, &event_id).await.unwrap()).unwrap();
    assert_eq!(event["content"], json!({}));
    assert_eq!(event["unsigned"]["redacted_because"]["type"], "m.room.redaction");
}

#[tokio::test]
async fn edits_and_threads_are_bundled() {
    let folder = tempfile::tempdir().unwrap();
    let TestDb { db, .. } = &sqlite_in(folder.path()).await;
    let shard = Shard::start(db).await;
    let room_id = shard.create(RoomPreset::PrivateChat, &[BOB]).await;
    let root = shard.say(&room_id, ALICE, "root").await;
    let relate = |kind: &str, body: &str| json!({ "msgtype": "m.text", "body": body, "m.relates_to": { "rel_type": kind, "event_id": root } });
    shard.say_more(&room_id, ALICE, relate("m.replace", "edited"), None).await;
    shard.say_more(&room_id, BOB, relate("m.replace", "not bob's to edit"), None).await;
    shard.say_more(&room_id, BOB, relate("m.thread", "reply"), None).await;
    let bob = shard.client(BOB).await;
    let event: Value = serde_json::from_str(&shard.sync.event(bob.reader(), &room_id, &root).await.unwrap()).unwrap();
    let relations = &event["unsigned"]["m.relations"];
    assert_eq!(relations["m.replace"]["content"]["body"], "edited");
    assert_eq!(relations["m.thread"]["count"], 1);
    assert_eq!(relations["m.thread"]["current_user_participated"], true);
    assert_eq!(relations["m.thread"]["latest_event"]["content"]["body"], "reply");
    let threads = shard.sync.threads(bob.reader(), &room_id, None, 10, false).await.unwrap();
    assert_eq!(ids(&serde_json::from_str::<Value>(&threads).unwrap()["chunk"]), [root.to_string()]);
}
