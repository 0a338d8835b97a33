use std::{collections::HashMap, sync::Arc, time::Duration};

use gatehouse_shared::clock::SystemClock;
use ruma::{
    CanonicalJsonObject, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId,
    api::client::{filter::FilterDefinition, room::create_room::v3::RoomPreset},
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    EventFilter, LazyLoading, ReadError, SyncFilter, SyncParts, SyncRequest, Syncer,
    room::{Direction, MembersQuery, MessagesQuery, Reader, StateFormat},
};
use crate::{
    rooms::{Draft, NewRoom, Profile, Rooms, RoomsParts, Transaction, object},
    rules::{membership::Membership, room_version::RoomVersion, signatures::key_pair_from_seed},
    storage::{
        Db, UserNames,
        event_cache::EventCache,
        nid::Nids,
        receipts::{self, ReceiptRow},
        testing::{TestDb, on_both_engines, postgres, sqlite_in},
    },
    stream::{Change, Lane, Stream, Write},
};

const ALICE: &str = "@alice:gatehouse.test";
const BOB: &str = "@bob:gatehouse.test";
const CAROL: &str = "@carol:gatehouse.test";

/// A shard without HTTP.
struct Shard {
    rooms: Rooms,
    names: UserNames,
    lane: Lane,
    sync: Syncer,
    _running: tokio_util::sync::DropGuard,
}

impl Shard {
    async fn start(db: &Db) -> Self {
        let shutdown = CancellationToken::new();
        let stream = Stream::open(db.clone()).await.unwrap();
        let lane = stream.start(Arc::new(SystemClock), shutdown.clone()).await.unwrap();
        let nids = Nids::new(db.clone());
        let names = UserNames::new(db.clone(), nids.clone());
        let events = EventCache::default();
        let rooms = Rooms::new(RoomsParts {
            db: db.clone(),
            names: names.clone(),
            nids,
            event_cache: events.clone(),
            lane: lane.clone(),
            stream: stream.clone(),
            server_name: "gatehouse.test".try_into().unwrap(),
            signing_key: Arc::new(key_pair_from_seed(&[7; 32], "a_test".to_owned()).unwrap()),
            clock: Arc::new(SystemClock),
        });
        tokio::spawn(rooms.clone().follow(shutdown.clone()));
        let sync = Syncer::new(SyncParts {
            db: db.clone(),
            stream,
            events,
            names: names.clone(),
            clock: Arc::new(SystemClock),
            history: None,
            shutdown: shutdown.clone(),
        });
        Self { rooms, names, lane, sync, _running: shutdown.drop_guard() }
    }

    async fn create(&self, preset: RoomPreset, members: &[&str]) -> OwnedRoomId {
        let room = NewRoom {
            creator: user(ALICE),
            room_version: RoomVersion::V11,
            creation_content: CanonicalJsonObject::new(),
            preset,
            is_published: false,
            name: Some("Room".to_owned()),
            topic: None,
            alias: None,
            power_levels: CanonicalJsonObject::new(),
            initial_state: Vec::new(),
            invites: members.iter().map(|name| user(name)).collect(),
            remote_invites: Vec::new(),
            is_direct: false,
            profile: Profile { displayname: Some("Alice".to_owned()), avatar_url: None },
        };
        let room_id = self.rooms.create(&room).await.unwrap();
        for name in members {
            self.member(&room_id, name, "join").await;
        }
        room_id
    }

    async fn member(&self, room_id: &RoomId, name: &str, membership: &str) {
        let content = object(json!({ "membership": membership }));
        self.rooms.append(room_id, Draft::state(&user(name), "m.room.member", name, content)).await.unwrap();
    }

    async fn set(&self, room_id: &RoomId, event_type: &str, content: Value) {
        self.rooms.append(room_id, Draft::state(&user(ALICE), event_type, "", object(content))).await.unwrap();
    }

    async fn say(&self, room_id: &RoomId, name: &str, body: &str) -> OwnedEventId {
        self.say_more(room_id, name, json!({ "msgtype": "m.text", "body": body }), None).await
    }

    async fn say_more(
        &self,
        room_id: &RoomId,
        name: &str,
        content: Value,
        transaction: Option<Transaction<'_>>,
    ) -> OwnedEventId {
        let draft = Draft {
            sender: &user(name),
            event_type: "m.room.message",
            state_key: None,
            content: object(content),
            redacts: None,
            transaction,
        };
        self.rooms.append(room_id, draft).await.unwrap()
    }

    async fn read(&self, room_id: &RoomId, name: &str, event_id: &OwnedEventId, thread_id: &str) {
        let room_nid = self.rooms.find(room_id).await.unwrap().unwrap().room_nid;
        let event = self.rooms.find_event(event_id).await.unwrap().unwrap();
        let receipt = ReceiptRow {
            room_nid,
            user_nid: self.names.nid(&user(name)).await.unwrap(),
            receipt_type: receipts::READ.to_owned(),
            thread_id: thread_id.to_owned(),
            event_id: event_id.to_string(),
            position: event.position,
            receipt_ts: 5,
        };
        let write = Write {
            guard: Some(receipts::advance(&receipt).into()),
            statements: vec![receipts::place(&receipt)],
            changes: vec![Change::Room { room: room_nid }],
        };
        self.lane.commit(write).await.unwrap();
    }

    async fn client(&self, name: &str) -> Client {
        Client {
            sync: self.sync.clone(),
            user_id: user(name),
            user_nid: self.names.nid(&user(name)).await.unwrap(),
            device_id: "DEVICE".to_owned(),
            since: None,
            filter: Arc::default(),
            use_state_after: false,
        }
    }
}

/// A client that syncs.
struct Client {
    sync: Syncer,
    user_id: OwnedUserId,
    user_nid: i64,
    device_id: String,
    since: Option<String>,
    filter: Arc<SyncFilter>,
    use_state_after: bool,
}

impl Client {
    fn with_filter(mut self, definition: Value) -> Self {
        let definition: FilterDefinition = serde_json::from_value(definition).unwrap();
        self.filter = Arc::new(SyncFilter::from(&definition));
        self
    }

    async fn sync(&mut self) -> Value {
        self.sync_for(Duration::ZERO).await
    }

    async fn sync_for(&mut self, timeout: Duration) -> Value {
        let request = SyncRequest {
            user_id: &self.user_id,
            user_nid: self.user_nid,
            device_id: &self.device_id,
            since: self.since.as_deref().map(|since| since.parse().unwrap()),
            filter: self.filter.clone(),
            timeout,
            full_state: false,
            use_state_after: self.use_state_after,
        };
        let answer: Value = serde_json::from_str(&self.sync.sync(&request).await.unwrap()).unwrap();
        self.since = Some(answer["next_batch"].as_str().unwrap().to_owned());
        answer
    }

    fn reader(&self) -> Reader<'_> {
        Reader { user_id: &self.user_id, user_nid: self.user_nid, device_id: &self.device_id }
    }

    async fn messages(&self, room_id: &RoomId, direction: Direction, from: Option<&str>, limit: usize) -> Value {
        let query = MessagesQuery {
            direction,
            from: from.map(|from| from.parse().unwrap()),
            to: None,
            limit,
            filter: EventFilter::default(),
            lazy: LazyLoading::Off,
        };
        serde_json::from_str(&self.sync.messages(self.reader(), room_id, &query).await.unwrap()).unwrap()
    }
}

fn user(name: &str) -> OwnedUserId {
    name.try_into().unwrap()
}

fn room<'a>(answer: &'a Value, section: &str, room_id: &RoomId) -> &'a Value {
    &answer["rooms"][section][room_id.as_str()]
}

fn bodies(events: &Value) -> Vec<String> {
    let events = events.as_array().into_iter().flatten();
    events.filter_map(|event| event["content"]["body"].as_str().map(str::to_owned)).collect()
}

fn ids(events: &Value) -> Vec<String> {
    events.as_array().into_iter().flatten().map(|event| event["event_id"].as_str().unwrap().to_owned()).collect()
}

fn types(events: &Value) -> Vec<&str> {
    events.as_array().into_iter().flatten().map(|event| event["type"].as_str().unwrap()).collect()
}

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
