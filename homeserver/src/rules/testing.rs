//! Decides nothing: rooms made of real, signed events for the tests of this module.

use std::collections::{BTreeMap, HashMap};

use ruma::{
    CanonicalJsonObject, EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, RoomId, UInt, UserId,
    events::StateEventType,
    signatures::{Ed25519KeyPair, PublicKeyMap},
};
use serde_json::{Value, json};

use super::{
    auth::{AuthError, auth_types_for_event, check_against_auth_events, check_against_state, check_independent},
    canonical::to_object,
    pdu::{EventTemplate, Pdu, build},
    resolve::StateMap,
    room_version::RoomVersion,
    signatures::key_pair_from_seed,
};

/// The creator of every test room.
pub(super) const CREATOR: &str = "@creator:one.example";
/// A user of the creator's server.
pub(super) const ALICE: &str = "@alice:one.example";
/// A user of another server.
pub(super) const BOB: &str = "@bob:two.example";
/// A user of a third server.
pub(super) const CAROL: &str = "@carol:three.example";

/// The signing key that all servers of these tests share.
pub(super) fn key_pair() -> Ed25519KeyPair {
    key_pair_from_seed(&[7; 32], "test").expect("32 bytes are a key")
}

/// The public keys of the given servers, all the same.
pub(super) fn public_keys(servers: &[&str]) -> PublicKeyMap {
    let key = ruma::serde::Base64::new(key_pair().public_key().to_vec());
    servers
        .iter()
        .map(|server| ((*server).to_owned(), BTreeMap::from([("ed25519:test".to_owned(), key.clone())])))
        .collect()
}

pub(super) fn user(id: &str) -> &UserId {
    id.try_into().expect("a user id")
}

pub(super) fn object(value: Value) -> CanonicalJsonObject {
    to_object(&value).expect("a canonical object")
}

/// A room with its events and its current state.
#[derive(Clone)]
pub(super) struct Room {
    pub(super) version: RoomVersion,
    pub(super) events: HashMap<OwnedEventId, Pdu>,
    pub(super) state: StateMap,
    pub(super) heads: Vec<OwnedEventId>,
    pub(super) now: u64,
    room_id: Option<OwnedRoomId>,
}

impl Room {
    /// A room with nothing but its create event.
    pub(super) fn bare(version: RoomVersion, create_content: Value) -> Self {
        let named = !version.room_id_is_create_event_id();
        let room_id = named.then(|| RoomId::parse("!room:one.example").expect("a room id"));
        let mut room =
            Self { version, events: HashMap::new(), state: StateMap::new(), heads: Vec::new(), now: 1_000, room_id };
        let mut content = object(create_content);
        content.insert("room_version".to_owned(), version.as_str().into());
        if !version.rules().authorization.use_room_create_sender {
            content.insert("creator".to_owned(), CREATOR.into());
        }
        let create = room.make(CREATOR, "m.room.create", Some(""), content, None);
        room.room_id = Some(create.room_id().to_owned());
        room.add(create);
        room
    }

    /// A room whose creator joined and set default power levels and the given join rule.
    pub(super) fn with_join_rule(version: RoomVersion, join_rule: Value) -> Self {
        let mut room = Self::bare(version, json!({}));
        room.send(CREATOR, "m.room.member", Some(CREATOR), json!({ "membership": "join" }));
        let users = if version >= RoomVersion::V12 { json!({}) } else { json!({ CREATOR: 100 }) };
        room.send(CREATOR, "m.room.power_levels", Some(""), json!({ "users": users, "invite": 50 }));
        room.send(CREATOR, "m.room.join_rules", Some(""), join_rule);
        room
    }

    /// A public room.
    pub(super) fn public(version: RoomVersion) -> Self {
        Self::with_join_rule(version, json!({ "join_rule": "public" }))
    }

    /// Makes an event on top of the room without adding it.
    pub(super) fn event(&self, sender: &str, event_type: &str, state_key: Option<&str>, content: Value) -> Pdu {
        self.make(sender, event_type, state_key, object(content), None)
    }

    /// Makes a redaction on top of the room without adding it.
    pub(super) fn redaction(&self, sender: &str, target: &EventId) -> Pdu {
        self.make(sender, "m.room.redaction", None, CanonicalJsonObject::new(), Some(target))
    }

    fn make(
        &self,
        sender: &str,
        event_type: &str,
        state_key: Option<&str>,
        content: CanonicalJsonObject,
        redacts: Option<&EventId>,
    ) -> Pdu {
        let sender = user(sender);
        let auth_types =
            auth_types_for_event(self.version, event_type, sender, state_key, &content).unwrap_or_default();
        let auth_events: Vec<_> = auth_types.iter().filter_map(|key| self.state.get(key).cloned()).collect();
        let depth = self.heads.iter().filter_map(|id| self.events.get(id)).map(Pdu::depth).max().unwrap_or(0) + 1;
        let names_room = event_type != "m.room.create" || !self.version.room_id_is_create_event_id();
        let template = EventTemplate {
            room_id: self.room_id.as_deref().filter(|_| names_room),
            sender,
            event_type,
            state_key,
            content,
            redacts,
            prev_events: &self.heads,
            auth_events: &auth_events,
            reference_hashes: BTreeMap::new(),
            depth,
            origin_server_ts: MilliSecondsSinceUnixEpoch(UInt::try_from(self.now).expect("a time")),
        };
        build(self.version, template, &key_pair(), sender.server_name()).expect("a valid event")
    }

    /// Adds an event on top of the room, unchecked.
    pub(super) fn add(&mut self, pdu: Pdu) {
        if let Some(state_key) = pdu.state_key() {
            self.state.insert((pdu.event_type().into(), state_key.to_owned()), pdu.event_id().to_owned());
        }
        self.heads = vec![pdu.event_id().to_owned()];
        self.now += 1;
        self.events.insert(pdu.event_id().to_owned(), pdu);
    }

    /// Makes an event, checks it and adds it.
    pub(super) fn send(&mut self, sender: &str, event_type: &str, state_key: Option<&str>, content: Value) -> Pdu {
        let pdu = self.event(sender, event_type, state_key, content);
        self.check(&pdu).unwrap_or_else(|error| panic!("{pdu:?} of {sender} in version {}: {error}", self.version));
        self.add(pdu.clone());
        pdu
    }

    /// Joins a user to a room that lets them.
    pub(super) fn join(&mut self, member: &str) -> Pdu {
        self.send(member, "m.room.member", Some(member), json!({ "membership": "join" }))
    }

    /// Runs every authorization check of an event on top of the room.
    pub(super) fn check(&self, pdu: &Pdu) -> Result<(), AuthError> {
        check_independent(pdu, |id| self.events.get(id).cloned())?;
        check_against_auth_events(pdu, |id| self.events.get(id).cloned())?;
        check_against_state(pdu, |kind, key| self.at(kind, key))
    }

    /// Makes an event and says whether it is allowed.
    pub(super) fn allows(&self, sender: &str, event_type: &str, state_key: Option<&str>, content: Value) -> bool {
        self.check(&self.event(sender, event_type, state_key, content)).is_ok()
    }

    /// The state event of that type and key.
    pub(super) fn at(&self, kind: &StateEventType, key: &str) -> Option<Pdu> {
        self.state.get(&(kind.clone(), key.to_owned())).and_then(|id| self.events.get(id)).cloned()
    }
}
