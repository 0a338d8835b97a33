//! Another server, as far as its events go: it signs with a key of its own and knows its own branch of a room.

use std::collections::{BTreeMap, HashMap};

use ruma::{CanonicalJsonObject, EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, RoomId, UInt, UserId};
use serde_json::{Value, json};

use super::{Shard, object};
use crate::{
    rooms::JoinedRemotely,
    rules::{
        auth::auth_types_for_event,
        pdu::{EventTemplate, Pdu, build},
        room_version::RoomVersion,
        signatures::key_pair_from_seed,
    },
};

pub(super) const CAROL: &str = "@carol:afar.test";
pub(super) const DAVE: &str = "@dave:afar.test";

/// A room as the other server has it at one point.
#[derive(Clone)]
pub(super) struct Branch {
    pub(super) version: RoomVersion,
    pub(super) room_id: OwnedRoomId,
    pub(super) heads: Vec<OwnedEventId>,
    pub(super) events: HashMap<OwnedEventId, Pdu>,
    state: BTreeMap<(String, String), OwnedEventId>,
    depth: u64,
}

impl Branch {
    /// A room that Carol made, with Dave in it, both in power; whoever likes may join.
    pub(super) fn new(version: RoomVersion) -> Self {
        let mut branch = Self {
            version,
            room_id: RoomId::parse(format!("!room{version}:afar.test")).unwrap(),
            heads: Vec::new(),
            events: HashMap::new(),
            state: BTreeMap::new(),
            depth: 0,
        };
        let mut create = json!({ "room_version": version.as_str() });
        if !version.rules().authorization.use_room_create_sender {
            create["creator"] = json!(CAROL);
        }
        let create = branch.send(CAROL, "m.room.create", Some(""), create);
        branch.room_id = create.room_id().to_owned();
        branch.membership(CAROL, CAROL, "join");
        let users = if version >= RoomVersion::V12 { json!({ DAVE: 100 }) } else { json!({ CAROL: 100, DAVE: 100 }) };
        branch.send(CAROL, "m.room.power_levels", Some(""), json!({ "users": users }));
        branch.send(CAROL, "m.room.join_rules", Some(""), json!({ "join_rule": "public" }));
        branch.membership(DAVE, DAVE, "join");
        branch
    }

    /// A room of our server, as the other one has it when it knows all that we do.
    pub(super) async fn of(shard: &Shard, room_id: &RoomId) -> Self {
        let current = shard.rooms.find(room_id).await.unwrap().unwrap();
        let heads = shard.rooms.extremities(room_id).await.unwrap();
        let state: BTreeMap<_, _> = current
            .state
            .iter()
            .map(|(kind, key, entry)| ((kind.to_owned(), key.to_owned()), entry.event_id.clone()))
            .collect();
        let mut events = HashMap::new();
        for event_id in heads.iter().chain(state.values()) {
            let stored = shard.rooms.find_event(event_id).await.unwrap().unwrap();
            events.insert(event_id.clone(), stored.pdu);
        }
        let depth = heads.iter().map(|event_id| events[event_id].depth()).max().unwrap_or_default();
        Self { version: current.room_version, room_id: room_id.to_owned(), heads, events, state, depth }
    }

    /// Makes an event on top of the branch without adding it.
    pub(super) fn make(&self, sender: &str, event_type: &str, state_key: Option<&str>, content: Value) -> Pdu {
        self.build(sender, event_type, state_key, object(content), None)
    }

    /// Makes a redaction on top of the branch without adding it.
    pub(super) fn make_redaction(&self, sender: &str, target: &EventId) -> Pdu {
        self.build(sender, "m.room.redaction", None, CanonicalJsonObject::new(), Some(target))
    }

    /// Adds an event on top of the branch.
    pub(super) fn add(&mut self, pdu: &Pdu) {
        if let Some(state_key) = pdu.state_key() {
            let key = (pdu.event_type().to_owned(), state_key.to_owned());
            self.state.insert(key, pdu.event_id().to_owned());
        }
        self.heads = vec![pdu.event_id().to_owned()];
        self.depth = pdu.depth();
        self.events.insert(pdu.event_id().to_owned(), pdu.clone());
    }

    /// Makes an event and adds it.
    pub(super) fn send(&mut self, sender: &str, event_type: &str, state_key: Option<&str>, content: Value) -> Pdu {
        let pdu = self.make(sender, event_type, state_key, content);
        self.add(&pdu);
        pdu
    }

    pub(super) fn message(&mut self, sender: &str, body: &str) -> Pdu {
        self.send(sender, "m.room.message", None, json!({ "msgtype": "m.text", "body": body }))
    }

    pub(super) fn membership(&mut self, sender: &str, user: &str, membership: &str) -> Pdu {
        self.send(sender, "m.room.member", Some(user), json!({ "membership": membership }))
    }

    pub(super) fn topic(&mut self, sender: &str, topic: &str) -> Pdu {
        self.send(sender, "m.room.topic", Some(""), json!({ "topic": topic }))
    }

    /// The ids of the state.
    pub(super) fn state_ids(&self) -> Vec<OwnedEventId> {
        self.state.values().cloned().collect()
    }

    /// The answer to a join of `user`, which is then part of the branch.
    pub(super) fn join_of(&mut self, user: &str) -> JoinedRemotely {
        let state = self.state.values().map(|event_id| self.events[event_id].clone()).collect();
        let auth_chain = self.events.values().cloned().collect();
        let join = self.membership(user, user, "join");
        JoinedRemotely { room_id: self.room_id.clone(), room_version: self.version, state, auth_chain, join }
    }

    fn build(
        &self,
        sender: &str,
        event_type: &str,
        state_key: Option<&str>,
        content: CanonicalJsonObject,
        redacts: Option<&EventId>,
    ) -> Pdu {
        let sender = <&UserId>::try_from(sender).unwrap();
        let auth_events: Vec<OwnedEventId> =
            auth_types_for_event(self.version, event_type, sender, state_key, &content)
                .unwrap()
                .into_iter()
                .filter_map(|(kind, key)| self.state.get(&(kind.to_string(), key)).cloned())
                .collect();
        let named = self.heads.iter().chain(&auth_events);
        let reference_hashes = match self.version.event_id_is_in_event() {
            true => named.map(|event_id| (event_id.clone(), self.events[event_id].reference_hash())).collect(),
            false => BTreeMap::new(),
        };
        let names_room = event_type != "m.room.create" || !self.version.room_id_is_create_event_id();
        let depth = self.depth + 1;
        let template = EventTemplate {
            room_id: Some(&*self.room_id).filter(|_| names_room),
            sender,
            event_type,
            state_key,
            content,
            redacts,
            prev_events: &self.heads,
            auth_events: &auth_events,
            reference_hashes,
            depth,
            origin_server_ts: MilliSecondsSinceUnixEpoch(UInt::new_saturating(1_790_000_000_000 + depth)),
        };
        let key = key_pair_from_seed(&[9; 32], "afar").unwrap();
        build(self.version, template, &key, sender.server_name()).unwrap()
    }
}
