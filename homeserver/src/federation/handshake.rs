//! Joins, leaves and knocks through other servers: make the event's template there, sign it here, send it there.
//!
//! Specification: server-server API, "Joining Rooms", "Knocking upon a room", "Leaving Rooms (Rejecting Invites)".

use std::collections::{BTreeMap, HashMap};

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, EventId, MilliSecondsSinceUnixEpoch, OwnedServerName, RoomId,
    RoomVersionId, ServerName, UInt, UserId,
    api::federation::membership::{
        RawStrippedState, create_join_event, create_knock_event, create_leave_event, prepare_join_event,
        prepare_knock_event, prepare_leave_event,
    },
};
use serde_json::value::RawValue;

use super::{Federation, HandshakeError, ServeError, serve::raw};
use crate::{
    remote::{Patience, RequestError},
    rooms::JoinedRemotely,
    rules::{
        auth, canonical,
        membership::Membership,
        pdu::{EventTemplate, Pdu, build, finish},
        room_version::RoomVersion,
    },
    storage::{DbError, outbox},
};

/// Servers that are asked before we give up.
const MAX_SERVERS: usize = 8;
/// The fields that are taken over from another server's template; content and time are ours.
const KEPT: [&str; 7] = ["auth_events", "depth", "prev_events", "room_id", "sender", "state_key", "type"];

/// The three membership changes that take two steps with another server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    Join,
    Leave,
    Knock,
}

impl Handshake {
    /// The membership that it brings.
    pub fn membership(self) -> Membership {
        match self {
            Self::Join => Membership::Join,
            Self::Leave => Membership::Leave,
            Self::Knock => Membership::Knock,
        }
    }
}

/// What became of a join through another server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoteJoin {
    /// The user is in the room.
    Joined,
    /// Another local user joined meanwhile: we are in the room now and can append the join ourselves.
    WeAreInTheRoom,
}

/// A template of another server.
struct Made {
    version: RoomVersion,
    event: CanonicalJsonObject,
}

impl Federation {
    /// Joins a room that this server is not in, through one of the `via` servers, and takes the room over. `content` is
    /// that of the membership event.
    ///
    /// # Errors
    /// What the last server said, or why its answer cannot be used.
    pub async fn join_remotely(
        &self,
        user_id: &UserId,
        room_id: &RoomId,
        via: &[OwnedServerName],
        content: CanonicalJsonObject,
    ) -> Result<RemoteJoin, HandshakeError> {
        let _turn = self.room_turns.take(room_id.to_owned()).await;
        if let Some(room) = self.parts.rooms.find(room_id).await?
            && room.is_resident
            && self.are_we_joined(room.room_nid).await?
        {
            return Ok(RemoteJoin::WeAreInTheRoom);
        }
        let mut failure = self.without_candidates(via);
        for server in self.candidates(via) {
            match self.join_through(server, user_id, room_id, &content).await {
                Ok(()) => return Ok(RemoteJoin::Joined),
                Err(error) if is_final(&error) => return Err(error),
                Err(error) => failure = worse(failure, error, server),
            }
        }
        Err(failure)
    }

    /// Leaves a room that this server is not in: rejects an invite or takes a knock back. Leaves here even when no
    /// server takes it, so that nobody is stuck with an invite from a dead server.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn leave_remotely(
        &self,
        user_id: &UserId,
        room_id: &RoomId,
        via: &[OwnedServerName],
        content: CanonicalJsonObject,
    ) -> Result<(), HandshakeError> {
        let mut left = None;
        for server in self.candidates(via) {
            match self.leave_through(server, user_id, room_id, &content).await {
                Ok(pdu) => {
                    left = Some(pdu);
                    break;
                }
                Err(HandshakeError::Db(error)) => return Err(error.into()),
                Err(error) => {
                    tracing::info!(error = &error as &dyn std::error::Error, %server, room.id = %room_id, "cannot leave there");
                }
            }
        }
        let pdu = match left {
            Some(pdu) => pdu,
            None => self.leave_alone(user_id, room_id, content).await?,
        };
        self.show_from_afar(&pdu, user_id, Membership::Leave, &[]).await.map_err(stored)
    }

    /// Knocks on a room that this server is not in.
    ///
    /// # Errors
    /// What the last server said, or why its answer cannot be used.
    pub async fn knock_remotely(
        &self,
        user_id: &UserId,
        room_id: &RoomId,
        via: &[OwnedServerName],
        content: CanonicalJsonObject,
    ) -> Result<(), HandshakeError> {
        let mut failure = self.without_candidates(via);
        for server in self.candidates(via) {
            match self.knock_through(server, user_id, room_id, &content).await {
                Ok((pdu, state)) => {
                    return self.show_from_afar(&pdu, user_id, Membership::Knock, &state).await.map_err(stored);
                }
                Err(error) if is_final(&error) => return Err(error),
                Err(error) => failure = worse(failure, error, server),
            }
        }
        Err(failure)
    }

    fn candidates<'a>(&'a self, via: &'a [OwnedServerName]) -> impl Iterator<Item = &'a OwnedServerName> {
        let us = self.server_name().to_owned();
        let mut seen = std::collections::BTreeSet::new();
        let others = via.iter().filter(move |server| **server != us && seen.insert((*server).clone()));
        others.filter(|server| self.parts.client.may_call(server)).take(MAX_SERVERS)
    }

    /// What to tell when nobody can be asked: whether it is us who do not want to.
    fn without_candidates(&self, via: &[OwnedServerName]) -> HandshakeError {
        match via.iter().find(|server| !self.parts.client.may_call(server)) {
            Some(denied) => HandshakeError::Request(RequestError::Denied(denied.clone())),
            None => HandshakeError::NoServer,
        }
    }

    async fn join_through(
        &self,
        server: &ServerName,
        user_id: &UserId,
        room_id: &RoomId,
        content: &CanonicalJsonObject,
    ) -> Result<(), HandshakeError> {
        let mut request = prepare_join_event::v1::Request::new(room_id.to_owned(), user_id.to_owned());
        request.ver = all_versions();
        let made =
            self.parts.client.send(server, request, Patience::Insistent).await.map_err(HandshakeError::Request)?;
        let made = made_of(made.room_version.as_ref(), &made.event)?;
        let join = self.complete(Handshake::Join, &made, user_id, room_id, content)?;
        let request = create_join_event::v2::Request::new(room_id.to_owned(), join.event_id().to_owned(), raw(&join));
        let answer =
            self.parts.client.send(server, request, Patience::Insistent).await.map_err(HandshakeError::Request)?;
        let answer = answer.room_state;
        if answer.members_omitted {
            return Err(HandshakeError::Nonsense("members are left out, which was not asked for"));
        }
        let join = self.signed_join(&made, room_id, join, answer.event.as_deref()).await?;
        let state: Vec<&RawValue> = answer.state.iter().map(AsRef::as_ref).collect();
        let state = self.verify_all(room_id, made.version, &state).await?;
        let auth_chain: Vec<&RawValue> = answer.auth_chain.iter().map(AsRef::as_ref).collect();
        let auth_chain = self.verify_all(room_id, made.version, &auth_chain).await?;
        check_room(&join, &state, &auth_chain)?;
        // The server that let us in tells the others. Said before the event is in, so that the sender cannot miss it.
        self.parts.db.write(vec![outbox::note_handshake(join.event_id(), false)]).await?;
        let room_id = room_id.to_owned();
        let joined = JoinedRemotely { room_id, room_version: made.version, state, auth_chain, join };
        Ok(self.parts.rooms.join_remotely(&joined).await?)
    }

    /// The join as the other server signed it too, which a restricted room needs.
    async fn signed_join(
        &self,
        made: &Made,
        room_id: &RoomId,
        join: Pdu,
        signed: Option<&RawValue>,
    ) -> Result<Pdu, HandshakeError> {
        let Some(signed) = signed else { return Ok(join) };
        let signed = self.verify(room_id, made.version, signed).await?;
        if signed.event_id() != join.event_id() {
            return Err(HandshakeError::Nonsense("another event than ours came back"));
        }
        Ok(signed)
    }

    async fn leave_through(
        &self,
        server: &ServerName,
        user_id: &UserId,
        room_id: &RoomId,
        content: &CanonicalJsonObject,
    ) -> Result<Pdu, HandshakeError> {
        let request = prepare_leave_event::v1::Request::new(room_id.to_owned(), user_id.to_owned());
        let made = self.parts.client.send(server, request, Patience::Brief).await.map_err(HandshakeError::Request)?;
        let made = made_of(made.room_version.as_ref(), &made.event)?;
        let leave = self.complete(Handshake::Leave, &made, user_id, room_id, content)?;
        let request =
            create_leave_event::v2::Request::new(room_id.to_owned(), leave.event_id().to_owned(), raw(&leave));
        self.parts.client.send(server, request, Patience::Brief).await.map_err(HandshakeError::Request)?;
        Ok(leave)
    }

    async fn knock_through(
        &self,
        server: &ServerName,
        user_id: &UserId,
        room_id: &RoomId,
        content: &CanonicalJsonObject,
    ) -> Result<(Pdu, Vec<Box<RawValue>>), HandshakeError> {
        let mut request = prepare_knock_event::v1::Request::new(room_id.to_owned(), user_id.to_owned());
        request.ver = all_versions();
        let client = &self.parts.client;
        let made = client.send(server, request, Patience::Insistent).await.map_err(HandshakeError::Request)?;
        let made = made_of(Some(&made.room_version), &made.event)?;
        let knock = self.complete(Handshake::Knock, &made, user_id, room_id, content)?;
        let request =
            create_knock_event::v1::Request::new(room_id.to_owned(), knock.event_id().to_owned(), raw(&knock));
        let answer = client.send(server, request, Patience::Insistent).await.map_err(HandshakeError::Request)?;
        Ok((knock, answer.knock_room_state.iter().filter_map(stripped_text).collect()))
    }

    /// A leave that no other server knows of.
    async fn leave_alone(
        &self,
        user_id: &UserId,
        room_id: &RoomId,
        content: CanonicalJsonObject,
    ) -> Result<Pdu, HandshakeError> {
        let room = self.parts.rooms.find(room_id).await?.ok_or(HandshakeError::NoServer)?;
        let template = EventTemplate {
            room_id: Some(room_id),
            sender: user_id,
            event_type: "m.room.member",
            state_key: Some(user_id.as_str()),
            content,
            redacts: None,
            prev_events: &[],
            auth_events: &[],
            reference_hashes: BTreeMap::new(),
            depth: 1,
            origin_server_ts: MilliSecondsSinceUnixEpoch(UInt::new_saturating(self.now_ms())),
        };
        Ok(build(room.room_version, template, self.parts.key.pair(), self.server_name())?)
    }

    /// Checks another server's template, and makes our event of it.
    fn complete(
        &self,
        handshake: Handshake,
        made: &Made,
        user_id: &UserId,
        room_id: &RoomId,
        content: &CanonicalJsonObject,
    ) -> Result<Pdu, HandshakeError> {
        let text = |key: &str| made.event.get(key).and_then(CanonicalJsonValue::as_str);
        let theirs = made.event.get("content").and_then(CanonicalJsonValue::as_object);
        let membership = theirs.and_then(|content| content.get("membership")).and_then(CanonicalJsonValue::as_str);
        // We sign this: it must say what we mean, whatever the other server would like us to say.
        if text("type") != Some("m.room.member")
            || text("room_id") != Some(room_id.as_str())
            || text("sender") != Some(user_id.as_str())
            || text("state_key") != Some(user_id.as_str())
            || membership != Some(handshake.membership().as_str())
        {
            return Err(HandshakeError::Nonsense("the template is of another event"));
        }
        let mut content = content.clone();
        content.insert("membership".to_owned(), handshake.membership().as_str().into());
        let authoriser = theirs.and_then(|content| content.get("join_authorised_via_users_server"));
        if let Some(authoriser) = authoriser.filter(|_| handshake == Handshake::Join) {
            content.insert("join_authorised_via_users_server".to_owned(), authoriser.clone());
        }
        // Nothing else of the template is signed, whatever it holds.
        let mut event = made.event.clone();
        event.retain(|key, _| KEPT.contains(&key.as_str()));
        event.insert("content".to_owned(), CanonicalJsonValue::Object(content));
        event.insert("origin_server_ts".to_owned(), UInt::new_saturating(self.now_ms()).into());
        Ok(finish(made.version, event, self.parts.key.pair(), self.server_name())?)
    }
}

fn all_versions() -> Vec<RoomVersionId> {
    RoomVersion::ALL.into_iter().map(RoomVersion::id).collect()
}

fn made_of(version: Option<&RoomVersionId>, event: &RawValue) -> Result<Made, HandshakeError> {
    // A server that names none is from before there were versions.
    let version = RoomVersion::parse(version.map_or("1", RoomVersionId::as_str))?;
    let event = canonical::parse_object(event.get().as_bytes())
        .map_err(|_| HandshakeError::Nonsense("the template is no event"))?;
    Ok(Made { version, event })
}

/// Whether what the other server told is a room that our user may be in.
fn check_room(join: &Pdu, state: &[Pdu], auth_chain: &[Pdu]) -> Result<(), HandshakeError> {
    let at: HashMap<(&str, &str), &Pdu> =
        state.iter().filter_map(|pdu| Some(((pdu.event_type(), pdu.state_key()?), pdu))).collect();
    if at.len() != state.len() {
        return Err(HandshakeError::Nonsense("the state holds what is no state, or two events at one key"));
    }
    if !at.contains_key(&("m.room.create", "")) {
        return Err(HandshakeError::Nonsense("the state has no create event"));
    }
    let by_id: HashMap<&EventId, &Pdu> = auth_chain.iter().chain(state).map(|pdu| (pdu.event_id(), pdu)).collect();
    let fetch = |event_id: &EventId| by_id.get(event_id).map(|pdu| (*pdu).clone());
    auth::check_independent(join, fetch)?;
    auth::check_against_auth_events(join, fetch)?;
    auth::check_against_state(join, |kind, key| at.get(&(&*kind.to_string(), key)).map(|pdu| (*pdu).clone()))?;
    Ok(())
}

/// Whether asking another server cannot help.
fn is_final(error: &HandshakeError) -> bool {
    match error {
        HandshakeError::Request(RequestError::Refused { errcode, .. }) => errcode == "M_INCOMPATIBLE_ROOM_VERSION",
        HandshakeError::Db(_) | HandshakeError::Commit(_) | HandshakeError::UnsupportedVersion(_) => true,
        _ => false,
    }
}

/// What to tell when several servers failed: a refusal says more than a server that did not answer.
fn worse(before: HandshakeError, now: HandshakeError, server: &ServerName) -> HandshakeError {
    tracing::info!(error = &now as &dyn std::error::Error, %server, "a server did not let a user in");
    match (&before, &now) {
        (HandshakeError::Request(RequestError::Refused { .. }), HandshakeError::Request(later))
            if !matches!(later, RequestError::Refused { .. }) =>
        {
            before
        }
        _ => now,
    }
}

fn stored(error: ServeError) -> HandshakeError {
    match error {
        ServeError::Commit(error) => error.into(),
        ServeError::Db(error) => error.into(),
        other => DbError::Corrupt(other.to_string()).into(),
    }
}

/// Stripped state as it came, whichever of its two forms it has.
pub fn stripped_text(event: &RawStrippedState) -> Option<Box<RawValue>> {
    serde_json::value::to_raw_value(event).ok()
}
