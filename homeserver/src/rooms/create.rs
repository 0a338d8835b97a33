//! Makes rooms: all first events in one write. The specification, client-server API, "Creation".

use std::{collections::HashMap, sync::Arc};

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, MilliSecondsSinceUnixEpoch, OwnedRoomAliasId, OwnedRoomId, OwnedUserId,
    RoomId, UInt, api::client::room::create_room::v3::RoomPreset,
};
use serde_json::json;

use super::{
    AppendError, Draft, RoomState, Rooms,
    batch::Batch,
    hot::{Hot, HotRoom},
};
use crate::{
    params,
    rules::room_version::RoomVersion,
    storage::{Stmt, nid::NidKind, rooms::Members},
    stream::CommitError,
};

/// How often a room is made again because another one has its id.
const ATTEMPTS: usize = 64;

/// A state event that the creator asks for.
#[derive(Clone, Debug)]
pub struct InitialState {
    pub event_type: String,
    pub state_key: String,
    pub content: CanonicalJsonObject,
}

/// What a room is made of.
#[derive(Clone, Debug)]
pub struct NewRoom {
    pub creator: OwnedUserId,
    pub room_version: RoomVersion,
    /// What the creator adds to the content of `m.room.create`.
    pub creation_content: CanonicalJsonObject,
    pub preset: RoomPreset,
    /// Whether the room is listed in the directory.
    pub is_published: bool,
    pub name: Option<String>,
    pub topic: Option<String>,
    pub alias: Option<OwnedRoomAliasId>,
    /// Fields that replace those of the default power levels.
    pub power_levels: CanonicalJsonObject,
    pub initial_state: Vec<InitialState>,
    /// Users of this server that are invited at once.
    pub invites: Vec<OwnedUserId>,
    /// Users of other servers, who are invited afterwards; they count for the presets.
    pub remote_invites: Vec<OwnedUserId>,
    /// Whether the invites say that this is a direct chat.
    pub is_direct: bool,
    /// The creator's display name and avatar, for its membership.
    pub profile: Profile,
}

/// What a membership says about its user.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    pub displayname: Option<String>,
    pub avatar_url: Option<String>,
}

impl Profile {
    /// The content of a membership event.
    pub fn membership(&self, membership: &str) -> CanonicalJsonObject {
        let mut content = CanonicalJsonObject::new();
        content.insert("membership".to_owned(), membership.into());
        if let Some(displayname) = &self.displayname {
            content.insert("displayname".to_owned(), displayname.as_str().into());
        }
        if let Some(avatar_url) = &self.avatar_url {
            content.insert("avatar_url".to_owned(), avatar_url.as_str().into());
        }
        content
    }
}

impl Rooms {
    /// Makes a room with all its first events; durable when this returns.
    ///
    /// # Errors
    /// [`AppendError::Forbidden`] when the asked-for state is not allowed, [`AppendError::Format`], and those of the
    /// database: a constraint when the alias is taken.
    pub async fn create(&self, room: &NewRoom) -> Result<OwnedRoomId, AppendError> {
        let room_nid = self.shared.parts.nids.next(NidKind::Room).await?;
        let mut created_ts = self.now();
        for _ in 0..ATTEMPTS {
            match self.try_create(room, room_nid, created_ts).await {
                // The id of a version 12 room is a hash: whoever makes two such rooms in one millisecond makes one.
                Err(AppendError::Commit(CommitError::Conflict)) => {
                    created_ts.0 = created_ts.0.saturating_add(UInt::from(1_u8));
                }
                outcome => return outcome,
            }
        }
        Err(AppendError::Busy)
    }

    async fn try_create(
        &self,
        room: &NewRoom,
        room_nid: i64,
        created_ts: MilliSecondsSinceUnixEpoch,
    ) -> Result<OwnedRoomId, AppendError> {
        let parts = &self.shared.parts;
        let mut hot = Hot {
            room_nid,
            // The id of a version 12 room is known once its create event is built.
            room_id: RoomId::new_v1(self.server_name()),
            room_version: room.room_version,
            is_resident: true,
            members: Members::default(),
            position: 0,
            extremities: Vec::new(),
            state: Arc::new(RoomState::default()),
            pdus: HashMap::new(),
        };
        let mut batch = Batch::new(&hot);
        for InitialState { event_type, state_key, content } in room.first_events() {
            let draft = Draft::state(&room.creator, &event_type, &state_key, content);
            let pdu = self.build_at(&mut hot, &draft, created_ts).await?;
            if event_type == "m.room.create" {
                hot.room_id = pdu.room_id().to_owned();
            }
            self.take_own(&mut batch, &mut hot, &pdu, None).await?;
        }
        if let Some(alias) = &room.alias {
            batch.push(Stmt::new(
                "INSERT INTO room_aliases (alias, room_id, creator) VALUES ($1, $2, $3)",
                params![alias.as_str(), hot.room_id.as_str(), room.creator.as_str()],
            ));
        }
        if room.is_published {
            batch.push(Stmt::new("INSERT INTO published_rooms (room_nid) VALUES ($1)", params![room_nid]));
        }
        let room_id = hot.room_id.clone();
        parts.lane.commit(batch.into_first_write(&hot)).await?;
        self.note_nid(room_nid, &room_id);
        self.keep(&mut self.shared.hot.lock(), &room_id, Arc::new(HotRoom::with(hot)));
        Ok(room_id)
    }
}

impl NewRoom {
    /// The first events in the order of the specification.
    fn first_events(&self) -> Vec<InitialState> {
        let mut events = vec![
            event("m.room.create", "", self.create_content()),
            event("m.room.member", self.creator.as_str(), self.profile.membership("join")),
            event("m.room.power_levels", "", self.power_levels_content()),
        ];
        if let Some(alias) = &self.alias {
            events.push(event("m.room.canonical_alias", "", object(json!({ "alias": alias }))));
        }
        let (join_rule, history_visibility, guest_access) = match self.preset {
            RoomPreset::PublicChat => ("public", "shared", "forbidden"),
            _ => ("invite", "shared", "can_join"),
        };
        events.push(event("m.room.join_rules", "", object(json!({ "join_rule": join_rule }))));
        events.push(event(
            "m.room.history_visibility",
            "",
            object(json!({ "history_visibility": history_visibility })),
        ));
        events.push(event("m.room.guest_access", "", object(json!({ "guest_access": guest_access }))));
        for asked in &self.initial_state {
            // What the creator asks for takes the place of what the preset would have said.
            match events.iter_mut().skip(2).find(|event| same_key(event, asked)) {
                Some(event) => *event = asked.clone(),
                None => events.push(asked.clone()),
            }
        }
        if let Some(name) = &self.name {
            events.push(event("m.room.name", "", object(json!({ "name": name }))));
        }
        if let Some(topic) = &self.topic {
            let content = json!({
                "topic": topic,
                "m.topic": { "m.text": [{ "body": topic, "mimetype": "text/plain" }] },
            });
            events.push(event("m.room.topic", "", object(content)));
        }
        for user_id in &self.invites {
            let mut content = object(json!({ "membership": "invite" }));
            if self.is_direct {
                content.insert("is_direct".to_owned(), true.into());
            }
            events.push(event("m.room.member", user_id.as_str(), content));
        }
        events
    }

    fn create_content(&self) -> CanonicalJsonObject {
        let mut content = self.creation_content.clone();
        let rules = self.room_version.rules();
        if !rules.authorization.use_room_create_sender {
            content.insert("creator".to_owned(), self.creator.as_str().into());
        }
        if rules.authorization.additional_room_creators && self.preset == RoomPreset::TrustedPrivateChat {
            let named = content.get("additional_creators").and_then(CanonicalJsonValue::as_array).unwrap_or(&[]);
            let mut creators: Vec<CanonicalJsonValue> = named.to_vec();
            for user_id in self.all_invites() {
                let user_id = CanonicalJsonValue::from(user_id.as_str());
                if !creators.contains(&user_id) {
                    creators.push(user_id);
                }
            }
            if !creators.is_empty() {
                content.insert("additional_creators".to_owned(), CanonicalJsonValue::Array(creators));
            }
        }
        content.insert("room_version".to_owned(), self.room_version.as_str().into());
        content
    }

    fn power_levels_content(&self) -> CanonicalJsonObject {
        let creators_are_above = self.room_version.rules().authorization.explicitly_privilege_room_creators;
        let mut users = CanonicalJsonObject::new();
        if !creators_are_above {
            users.insert(self.creator.as_str().to_owned(), level(100));
            if self.preset == RoomPreset::TrustedPrivateChat {
                users.extend(self.all_invites().map(|user_id| (user_id.as_str().to_owned(), level(100))));
            }
        }
        let tombstone = if creators_are_above { 150 } else { 100 };
        let mut content = object(json!({
            "users": {},
            "users_default": 0,
            "events_default": 0,
            "state_default": 50,
            "ban": 50,
            "kick": 50,
            "redact": 50,
            "invite": if self.preset == RoomPreset::PublicChat { 50 } else { 0 },
            "historical": 100,
            "events": {
                "m.room.avatar": 50,
                "m.room.canonical_alias": 50,
                "m.room.encryption": 100,
                "m.room.history_visibility": 100,
                "m.room.name": 50,
                "m.room.power_levels": 100,
                "m.room.server_acl": 100,
                "m.room.tombstone": tombstone,
            },
        }));
        content.insert("users".to_owned(), CanonicalJsonValue::Object(users));
        content.extend(self.power_levels.clone());
        content
    }

    fn all_invites(&self) -> impl Iterator<Item = &OwnedUserId> {
        self.invites.iter().chain(&self.remote_invites)
    }
}

fn same_key(one: &InitialState, other: &InitialState) -> bool {
    one.event_type == other.event_type && one.state_key == other.state_key
}

fn event(event_type: &str, state_key: &str, content: CanonicalJsonObject) -> InitialState {
    InitialState { event_type: event_type.to_owned(), state_key: state_key.to_owned(), content }
}

fn level(level: i32) -> CanonicalJsonValue {
    CanonicalJsonValue::Integer(level.into())
}

/// An object written out in this file as canonical JSON.
pub(crate) fn object(value: serde_json::Value) -> CanonicalJsonObject {
    match CanonicalJsonValue::try_from(value) {
        Ok(CanonicalJsonValue::Object(object)) => object,
        // Only texts, flags and small whole numbers are written out, and those are canonical.
        _ => CanonicalJsonObject::new(),
    }
}
