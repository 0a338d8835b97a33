//! Shards and clients without HTTP.

use super::super::EventFilter;
use super::super::LazyLoading;
use super::super::SyncFilter;
use super::super::SyncParts;
use super::super::SyncRequest;
use super::super::Syncer;
use super::super::room::Direction;
use super::super::room::MessagesQuery;
use super::super::room::Reader;
use crate::rooms::Draft;
use crate::rooms::NewRoom;
use crate::rooms::Profile;
use crate::rooms::Rooms;
use crate::rooms::RoomsParts;
use crate::rooms::Transaction;
use crate::rooms::object;
use crate::rules::room_version::RoomVersion;
use crate::rules::signatures::key_pair_from_seed;
use crate::storage::Db;
use crate::storage::UserNames;
use crate::storage::event_cache::EventCache;
use crate::storage::nid::Nids;
use crate::storage::receipts;
use crate::storage::receipts::ReceiptRow;
use crate::stream::Change;
use crate::stream::Lane;
use crate::stream::Stream;
use crate::stream::Write;
use gatehouse_shared::clock::SystemClock;
use ruma::CanonicalJsonObject;
use ruma::OwnedEventId;
use ruma::OwnedRoomId;
use ruma::OwnedUserId;
use ruma::RoomId;
use ruma::api::client::filter::FilterDefinition;
use ruma::api::client::room::create_room::v3::RoomPreset;
use serde_json::Value;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

pub(super) const ALICE: &str = "@alice:gatehouse.test";
pub(super) const BOB: &str = "@bob:gatehouse.test";
pub(super) const CAROL: &str = "@carol:gatehouse.test";

/// A shard without HTTP.
pub(super) struct Shard {
    pub(super) rooms: Rooms,
    pub(super) names: UserNames,
    pub(super) lane: Lane,
    pub(super) sync: Syncer,
    pub(super) _running: tokio_util::sync::DropGuard,
}

impl Shard {
    pub(super) async fn start(db: &Db) -> Self {
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

    pub(super) async fn create(&self, preset: RoomPreset, members: &[&str]) -> OwnedRoomId {
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

    pub(super) async fn member(&self, room_id: &RoomId, name: &str, membership: &str) {
        let content = object(json!({ "membership": membership }));
        self.rooms.append(room_id, Draft::state(&user(name), "m.room.member", name, content)).await.unwrap();
    }

    pub(super) async fn set(&self, room_id: &RoomId, event_type: &str, content: Value) {
        self.rooms.append(room_id, Draft::state(&user(ALICE), event_type, "", object(content))).await.unwrap();
    }

    pub(super) async fn say(&self, room_id: &RoomId, name: &str, body: &str) -> OwnedEventId {
        self.say_more(room_id, name, json!({ "msgtype": "m.text", "body": body }), None).await
    }

    pub(super) async fn say_more(
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

    pub(super) async fn read(&self, room_id: &RoomId, name: &str, event_id: &OwnedEventId, thread_id: &str) {
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

    pub(super) async fn client(&self, name: &str) -> Client {
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
pub(super) struct Client {
    pub(super) sync: Syncer,
    pub(super) user_id: OwnedUserId,
    pub(super) user_nid: i64,
    pub(super) device_id: String,
    pub(super) since: Option<String>,
    pub(super) filter: Arc<SyncFilter>,
    pub(super) use_state_after: bool,
}

impl Client {
    pub(super) fn with_filter(mut self, definition: Value) -> Self {
        let definition: FilterDefinition = serde_json::from_value(definition).unwrap();
        self.filter = Arc::new(SyncFilter::from(&definition));
        self
    }

    pub(super) async fn sync(&mut self) -> Value {
        self.sync_for(Duration::ZERO).await
    }

    pub(super) async fn sync_for(&mut self, timeout: Duration) -> Value {
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

    pub(super) fn reader(&self) -> Reader<'_> {
        Reader { user_id: &self.user_id, user_nid: self.user_nid, device_id: &self.device_id }
    }

    pub(super) async fn messages(
        &self,
        room_id: &RoomId,
        direction: Direction,
        from: Option<&str>,
        limit: usize,
    ) -> Value {
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

pub(super) fn user(name: &str) -> OwnedUserId {
    name.try_into().unwrap()
}

pub(super) fn room<'a>(answer: &'a Value, section: &str, room_id: &RoomId) -> &'a Value {
    &answer["rooms"][section][room_id.as_str()]
}

pub(super) fn bodies(events: &Value) -> Vec<String> {
    let events = events.as_array().into_iter().flatten();
    events.filter_map(|event| event["content"]["body"].as_str().map(str::to_owned)).collect()
}

pub(super) fn ids(events: &Value) -> Vec<String> {
    events.as_array().into_iter().flatten().map(|event| event["event_id"].as_str().unwrap().to_owned()).collect()
}

pub(super) fn types(events: &Value) -> Vec<&str> {
    events.as_array().into_iter().flatten().map(|event| event["type"].as_str().unwrap()).collect()
}
