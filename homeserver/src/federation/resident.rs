//! Lets users of other servers join, leave and knock through us, and takes in invites for our users.
//!
//! Specification: server-server API, "Joining Rooms", "Knocking upon a room", "Leaving Rooms (Rejecting Invites)".

use std::collections::BTreeSet;

use ruma::{CanonicalJsonObject, CanonicalJsonValue, EventId, OwnedUserId, RoomId, RoomVersionId, ServerName, UserId};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Federation, Handshake, ServeError, serve::raw};
use crate::{
    rooms::{Current, Draft, Received},
    rules::{
        canonical,
        membership::{MemberContent, Membership, target_of},
        pdu::Pdu,
        power::RoomPower,
        room_version::RoomVersion,
        signatures, stripped_state,
    },
    storage::{
        events::{self, Place, Standing},
        nid::NidKind,
        outbox, rooms as rooms_table, servers,
    },
    stream::{Change, Write},
};

/// An event for the other server to complete and sign.
#[derive(Clone, Debug)]
pub struct Template {
    pub room_version: RoomVersion,
    pub event: CanonicalJsonObject,
}

/// A room as it was before a join that was accepted.
#[derive(Debug)]
pub struct SentJoin {
    pub state: Vec<Box<RawValue>>,
    pub auth_chain: Vec<Box<RawValue>>,
    /// The join, with our signature where the room asks for it.
    pub event: Box<RawValue>,
    pub servers_in_room: Vec<ruma::OwnedServerName>,
}

impl Federation {
    /// Makes the template of a membership event for a user of `origin`.
    ///
    /// # Errors
    /// When we are not in the room, or the room's rules do not let the user do that.
    pub async fn make_membership(
        &self,
        handshake: Handshake,
        origin: &ServerName,
        room_id: &RoomId,
        user_id: &UserId,
        versions: &[RoomVersionId],
    ) -> Result<Template, ServeError> {
        if user_id.server_name() != origin {
            return Err(ServeError::OtherServersUser);
        }
        let room = self.resident_room(origin, room_id).await?;
        let version = room.room_version;
        if handshake != Handshake::Leave && !versions.iter().any(|known| known.as_str() == version.as_str()) {
            return Err(ServeError::IncompatibleVersion(version.as_str()));
        }
        let mut content =
            CanonicalJsonObject::from([("membership".to_owned(), handshake.membership().as_str().into())]);
        if handshake == Handshake::Join
            && let Some(authoriser) = self.authoriser(&room, room_id, user_id).await?
        {
            content.insert("join_authorised_via_users_server".to_owned(), authoriser.as_str().into());
        }
        let draft = Draft::state(user_id, "m.room.member", user_id.as_str(), content);
        let pdu = self.parts.rooms.propose(room_id, &draft).await?;
        let mut event = pdu.to_object();
        for ours in ["hashes", "signatures", "event_id"] {
            event.remove(ours);
        }
        Ok(Template { room_version: version, event })
    }

    /// Takes in the join of a user of `origin`, and tells the room as it was before.
    ///
    /// # Errors
    /// When the event is not what it should be, or the room's rules do not allow it.
    pub async fn send_join(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        event_id: &EventId,
        event: &RawValue,
    ) -> Result<SentJoin, ServeError> {
        let (pdu, room) = self.send_membership(Handshake::Join, origin, room_id, event_id, event).await?;
        let stored = self.parts.rooms.find_event(pdu.event_id()).await?.ok_or(ServeError::NotFound)?;
        let state_nid = stored.state_nid.ok_or(ServeError::NotFound)?;
        let state = crate::rooms::RoomState::load(&self.parts.db, state_nid).await?;
        let state_ids: Vec<_> = state.iter().map(|(_, _, entry)| entry.event_id.clone()).collect();
        let mut roots = state_ids.clone();
        roots.push(pdu.event_id().to_owned());
        let chain = self.auth_chain(&roots).await?;
        let servers_in_room = servers::list_joined(&self.parts.db, room.room_nid).await?;
        Ok(SentJoin {
            state: self.read(&state_ids).await?.iter().map(raw).collect(),
            auth_chain: chain.iter().map(raw).collect(),
            event: raw(&pdu),
            servers_in_room,
        })
    }

    /// Takes in that a user of `origin` leaves.
    ///
    /// # Errors
    /// As [`Self::send_join`].
    pub async fn send_leave(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        event_id: &EventId,
        event: &RawValue,
    ) -> Result<(), ServeError> {
        self.send_membership(Handshake::Leave, origin, room_id, event_id, event).await.map(drop)
    }

    /// Takes in the knock of a user of `origin`, and tells what a stranger may know of the room.
    ///
    /// # Errors
    /// As [`Self::send_join`].
    pub async fn send_knock(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        event_id: &EventId,
        event: &RawValue,
    ) -> Result<Vec<Box<RawValue>>, ServeError> {
        self.send_membership(Handshake::Knock, origin, room_id, event_id, event).await?;
        self.room_state_for_strangers(room_id).await
    }

    /// Signs an invite of one of our users and shows it to that user.
    ///
    /// # Errors
    /// When the event is no invite of a local user by a user of `origin`.
    pub async fn receive_invite(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        event_id: &EventId,
        room_version: &str,
        event: &RawValue,
        room_state: &[Box<RawValue>],
    ) -> Result<Box<RawValue>, ServeError> {
        let version = RoomVersion::parse(room_version)?;
        let pdu = self.verify(room_id, version, event).await?;
        check_membership(&pdu, Membership::Invite, event_id)?;
        if pdu.sender().server_name() != origin {
            return Err(ServeError::OtherServersUser);
        }
        let invited = target_of(&pdu).ok_or(ServeError::WrongEvent("the event is no invite"))?;
        if !self.parts.rooms.is_local(invited) || !servers::has_user(&self.parts.db, invited).await? {
            return Err(ServeError::NoSuchUser);
        }
        let mut object = pdu.to_object();
        signatures::countersign(version, &mut object, self.parts.key.pair(), self.server_name())
            .map_err(|_| ServeError::WrongEvent("the event cannot be signed"))?;
        let signed = Pdu::from_json(version, object).map_err(|error| ServeError::Event(error.into()))?;
        let room = self.parts.rooms.find(room_id).await?;
        let is_resident = match &room {
            Some(room) => room.is_resident && self.are_we_joined(room.room_nid).await?,
            None => false,
        };
        if is_resident {
            // It comes to the room in a transaction like any other event.
            if !self.is_admitted(room_id, origin).await? {
                return Err(ServeError::NotAdmitted);
            }
            return Ok(raw(&signed));
        }
        self.show_from_afar(&signed, invited, Membership::Invite, room_state).await?;
        Ok(raw(&signed))
    }

    /// Stores the membership of one of our users in a room that we are not in, with what is known of the room.
    pub(super) async fn show_from_afar(
        &self,
        pdu: &Pdu,
        user_id: &UserId,
        membership: Membership,
        room_state: &[Box<RawValue>],
    ) -> Result<(), ServeError> {
        let stripped: Vec<Box<RawValue>> = room_state.iter().filter_map(|event| stripped_state::prune(event)).collect();
        let own = stripped_state::strip(pdu);
        let stripped = stripped_state::list(stripped.iter().chain(own.iter()).map(AsRef::as_ref));
        let room_nid = self.parts.rooms.room_nid(pdu.room_id(), pdu.room_version()).await?;
        let user_nid = self.parts.names.nid(user_id).await?;
        let event_nid = self.store_from_afar(room_nid, pdu).await?;
        let row = rooms_table::MembershipRow {
            room_nid,
            user_nid,
            membership: membership.as_str(),
            event_nid,
            position: None,
            is_local: true,
            stripped_state: Some(stripped.get()),
        };
        let write = Write {
            guard: None,
            statements: vec![rooms_table::set_membership(&row)],
            changes: vec![Change::Membership { room: room_nid, user: user_nid }],
        };
        Ok(self.parts.rooms.commit(write).await?)
    }

    /// Stores an event whose auth events we cannot know, since we are not in its room.
    async fn store_from_afar(&self, room_nid: i64, pdu: &Pdu) -> Result<i64, ServeError> {
        if let Some(stored) = self.parts.rooms.find_event(pdu.event_id()).await? {
            return Ok(stored.event_nid);
        }
        let event_nid = self.parts.nids.next(NidKind::Event).await?;
        let place = Place { event_nid, room_nid, position: None, state_nid: None, standing: Standing::Accepted };
        let write = Write { guard: None, statements: vec![events::insert(pdu, place)], changes: Vec::new() };
        self.parts.rooms.commit(write).await?;
        Ok(event_nid)
    }

    /// What goes along with invites and knocks: whole events, since version 1.16 of the specification.
    pub(super) async fn room_state_for_strangers(&self, room_id: &RoomId) -> Result<Vec<Box<RawValue>>, ServeError> {
        let mut state = Vec::new();
        for event_type in stripped_state::STRIPPED_STATE_TYPES {
            if let Some(pdu) = self.parts.rooms.state_event(room_id, event_type, "").await? {
                state.push(raw(&pdu));
            }
        }
        Ok(state)
    }

    async fn send_membership(
        &self,
        handshake: Handshake,
        origin: &ServerName,
        room_id: &RoomId,
        event_id: &EventId,
        event: &RawValue,
    ) -> Result<(Pdu, Current), ServeError> {
        let room = self.resident_room(origin, room_id).await?;
        let countersigned = self.countersign_restricted_join(handshake, &room, room_id, event).await?;
        let pdu = self.verify(room_id, room.room_version, countersigned.as_deref().unwrap_or(event)).await?;
        check_membership(&pdu, handshake.membership(), event_id)?;
        if pdu.sender().server_name() != origin || pdu.state_key() != Some(pdu.sender().as_str()) {
            return Err(ServeError::OtherServersUser);
        }
        let _turn = self.room_turns.take(room_id.to_owned()).await;
        // Said before the event is in, so that the sender cannot meet the event without knowing.
        self.parts.db.write(vec![outbox::note_handshake(pdu.event_id(), true)]).await?;
        match self.take_in(origin, &pdu).await? {
            Received::Accepted | Received::Known => Ok((pdu, room)),
            Received::SoftFailed(error) | Received::Rejected(error) => Err(error.into()),
        }
    }

    /// The room, if we are in it and its access list admits the server.
    async fn resident_room(&self, origin: &ServerName, room_id: &RoomId) -> Result<Current, ServeError> {
        let room = self.parts.rooms.find(room_id).await?.filter(|room| room.is_resident).ok_or(ServeError::NotFound)?;
        if !self.are_we_joined(room.room_nid).await? {
            return Err(ServeError::NotFound);
        }
        if !self.is_admitted(room_id, origin).await? {
            return Err(ServeError::NotAdmitted);
        }
        Ok(room)
    }

    /// Adds our signature to a join that one of our users authorises.
    async fn countersign_restricted_join(
        &self,
        handshake: Handshake,
        room: &Current,
        room_id: &RoomId,
        event: &RawValue,
    ) -> Result<Option<Box<RawValue>>, ServeError> {
        if handshake != Handshake::Join {
            return Ok(None);
        }
        let version = room.room_version;
        let pdu = Pdu::from_json_text(version, event.get()).map_err(|error| ServeError::Event(error.into()))?;
        let Some(authoriser) = MemberContent::of(&pdu).join_authorised_via_users_server else { return Ok(None) };
        if !self.parts.rooms.is_local(&authoriser) {
            return Ok(None);
        }
        // The conditions may have changed since the template was made.
        if self.authoriser(room, room_id, pdu.sender()).await?.is_none() {
            return Ok(None);
        }
        let mut object = pdu.to_object();
        signatures::countersign(version, &mut object, self.parts.key.pair(), self.server_name())
            .map_err(|_| ServeError::WrongEvent("the event cannot be signed"))?;
        let text = canonical::to_text(&object);
        Ok(RawValue::from_string(text).ok())
    }

    /// The local user who lets somebody into a restricted room; `None` when nobody needs to.
    async fn authoriser(
        &self,
        room: &Current,
        room_id: &RoomId,
        user_id: &UserId,
    ) -> Result<Option<OwnedUserId>, ServeError> {
        let rooms = &self.parts.rooms;
        let Some(rules) = rooms.state_content::<JoinRules>(room_id, "m.room.join_rules", "").await? else {
            return Ok(None);
        };
        if !matches!(rules.join_rule.as_str(), "restricted" | "knock_restricted") {
            return Ok(None);
        }
        if matches!(rooms.membership(room_id, user_id).await?.as_deref(), Some("join" | "invite")) {
            return Ok(None);
        }
        let mut knows_all = true;
        let mut is_met = false;
        for allow in rules.allow.iter().filter(|allow| allow.kind == "m.room_membership") {
            let Some(other) = allow.room_id.as_deref().and_then(|id| <&RoomId>::try_from(id).ok()) else { continue };
            match rooms.find(other).await? {
                Some(known) if known.is_resident && self.are_we_joined(known.room_nid).await? => {
                    is_met |= rooms.membership(other, user_id).await?.as_deref() == Some("join");
                }
                _ => knows_all = false,
            }
        }
        if !is_met {
            let error =
                crate::rules::auth::AuthError { reason: "the user is in none of the rooms that let in".to_owned() };
            return Err(if knows_all { error.into() } else { ServeError::UnableToAuthorise });
        }
        self.inviter(room, room_id).await?.map(Some).ok_or(ServeError::UnableToGrant)
    }

    /// A local user who is joined and may invite.
    async fn inviter(&self, room: &Current, room_id: &RoomId) -> Result<Option<OwnedUserId>, ServeError> {
        let rooms = &self.parts.rooms;
        let Some(create) = rooms.state_event(room_id, "m.room.create", "").await? else { return Ok(None) };
        let power_levels = rooms.state_event(room_id, "m.room.power_levels", "").await?;
        let power = RoomPower::new(&create, power_levels.as_ref());
        let local: BTreeSet<OwnedUserId> = room
            .state
            .of_type("m.room.member")
            .filter_map(|(key, _)| <&UserId>::try_from(key).ok())
            .filter(|user_id| rooms.is_local(user_id) && power.can_invite(user_id))
            .map(ToOwned::to_owned)
            .collect();
        for user_id in local {
            if rooms.membership(room_id, &user_id).await?.as_deref() == Some("join") {
                return Ok(Some(user_id));
            }
        }
        Ok(None)
    }
}

#[derive(Deserialize)]
struct JoinRules {
    join_rule: String,
    #[serde(default)]
    allow: Vec<AllowRule>,
}

#[derive(Deserialize)]
struct AllowRule {
    #[serde(rename = "type")]
    kind: String,
    room_id: Option<String>,
}

/// Whether an event is the membership that an endpoint takes, under the id that the path names.
fn check_membership(pdu: &Pdu, membership: Membership, event_id: &EventId) -> Result<(), ServeError> {
    if pdu.event_type() != "m.room.member" || pdu.state_key().is_none() {
        return Err(ServeError::WrongEvent("the event is no membership"));
    }
    if Membership::of(pdu) != Some(membership) {
        return Err(ServeError::WrongEvent("the event has another membership"));
    }
    if pdu.event_id() != event_id {
        return Err(ServeError::WrongEvent("the path names another event"));
    }
    Ok(())
}

/// The text of a template, without what only the maker adds.
impl Template {
    /// The event as raw JSON.
    pub fn raw(&self) -> Box<RawValue> {
        let value = CanonicalJsonValue::Object(self.event.clone());
        serde_json::value::to_raw_value(&value).expect("canonical values always serialise")
    }
}
