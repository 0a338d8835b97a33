//! Appends events of our own users.

use std::collections::{BTreeMap, HashMap};

use ruma::{
    CanonicalJsonObject, EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, RoomId, UInt, UserId,
    events::StateEventType,
};

use super::{
    AppendError, Rooms,
    batch::{Batch, Incoming},
    hot::Hot,
};
use crate::{
    rules::{
        auth::{self, AuthError},
        pdu::{self, EventTemplate, Pdu},
    },
    storage::{
        event_cache,
        events::{self, Standing},
        nid::NidKind,
        rooms,
    },
    stream::{CommitError, Committed},
};

/// How often a lost race is run again before the client hears of it.
const ATTEMPTS: usize = 64;
/// The most `prev_events` that an event may have.
const MAX_PREV_EVENTS: usize = 20;

/// What a local user wants to send.
#[derive(Clone, Debug)]
pub struct Draft<'a> {
    pub sender: &'a UserId,
    pub event_type: &'a str,
    pub state_key: Option<&'a str>,
    pub content: CanonicalJsonObject,
    pub redacts: Option<&'a EventId>,
    /// The client's transaction, so that a repeated request makes one event.
    pub transaction: Option<Transaction<'a>>,
}

impl<'a> Draft<'a> {
    /// A state event.
    pub fn state(sender: &'a UserId, event_type: &'a str, state_key: &'a str, content: CanonicalJsonObject) -> Self {
        Self { sender, event_type, state_key: Some(state_key), content, redacts: None, transaction: None }
    }
}

/// A client's transaction id, which is scoped to its device and endpoint.
#[derive(Clone, Copy, Debug)]
pub struct Transaction<'a> {
    pub user_nid: i64,
    pub device_id: &'a str,
    /// Which endpoint, such as `send/!room/m.room.message`.
    pub scope: &'a str,
    pub txn_id: &'a str,
}

/// An event that is durable.
#[derive(Clone, Debug)]
pub struct Appended {
    pub event_id: OwnedEventId,
    pub event_nid: i64,
    pub position: i64,
    /// Where the commit stands; `None` when nothing was written because the event was there already.
    pub committed: Option<Committed>,
}

impl Rooms {
    /// Appends one event of a local user to a room.
    ///
    /// # Errors
    /// [`AppendError::UnknownRoom`], [`AppendError::Forbidden`] by the authorization rules, [`AppendError::Format`], and
    /// those of the database.
    pub async fn append(&self, room_id: &RoomId, draft: Draft<'_>) -> Result<OwnedEventId, AppendError> {
        self.append_checked(room_id, draft, |_| Ok(())).await.map(|appended| appended.event_id)
    }

    /// As [`Self::append`]; `check` may refuse by what the room is right before the append.
    pub(crate) async fn append_checked(
        &self,
        room_id: &RoomId,
        draft: Draft<'_>,
        check: impl Fn(&super::RoomState) -> Result<(), AppendError>,
    ) -> Result<Appended, AppendError> {
        match self.try_append(room_id, &draft, check).await {
            Ok(appended) => Ok(appended),
            // The transaction may be an old one whose answer got lost: then its event is the answer, whatever the room
            // thinks of a second one.
            Err(error) => match self.find_transaction(draft.transaction).await? {
                Some(event_id) => Ok(Appended { event_id, event_nid: 0, position: 0, committed: None }),
                None => Err(error),
            },
        }
    }

    async fn try_append(
        &self,
        room_id: &RoomId,
        draft: &Draft<'_>,
        check: impl Fn(&super::RoomState) -> Result<(), AppendError>,
    ) -> Result<Appended, AppendError> {
        if draft.event_type == "m.room.create" {
            return Err(AuthError { reason: "the room has a create event already".to_owned() }.into());
        }
        if draft.event_type == "m.room.redaction" {
            self.check_redaction(room_id, draft).await?;
        }
        let hot_room = self.hot(room_id);
        for _ in 0..ATTEMPTS {
            let (appended, outcome) = {
                let mut locked = self.lock(room_id, &hot_room).await?;
                let hot = locked.get().ok_or(AppendError::UnknownRoom)?;
                check_residence(hot)?;
                check(&hot.state)?;
                if let Some((event_id, is_pending)) = self.same_state(hot, draft).await? {
                    if is_pending {
                        // Nobody may hear of it before it is durable, and it may still be lost.
                        hot_room.settled().await;
                        continue;
                    }
                    return Ok(Appended { event_id, event_nid: 0, position: 0, committed: None });
                }
                let mut batch = Batch::new(hot);
                let pdu = self.build(hot, draft).await?;
                let moving = locked.start_moving().ok_or(AppendError::UnknownRoom)?;
                let appended = self.take_own(&mut batch, moving.hot, &pdu, draft.transaction).await?;
                self.push_transaction(&mut batch, draft, &appended.event_id);
                let write = batch.into_write(moving.hot);
                (appended, moving.submit(&self.shared.parts.lane, write))
            };
            match outcome.await {
                Ok(committed) => return Ok(Appended { committed: Some(committed), ..appended }),
                Err(CommitError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(AppendError::Busy)
    }

    async fn find_transaction(
        &self,
        transaction: Option<Transaction<'_>>,
    ) -> Result<Option<OwnedEventId>, AppendError> {
        let Some(transaction) = transaction else { return Ok(None) };
        let Transaction { user_nid, device_id, scope, txn_id } = transaction;
        let found = rooms::find_transaction(&self.shared.parts.db, user_nid, device_id, scope, txn_id).await?;
        Ok(found.and_then(|event_id| event_id.try_into().ok()))
    }

    fn push_transaction(&self, batch: &mut Batch, draft: &Draft<'_>, event_id: &EventId) {
        if let Some(Transaction { user_nid, device_id, scope, txn_id }) = draft.transaction {
            let now = self.shared.parts.clock.now_ms();
            batch.push(rooms::insert_transaction(user_nid, device_id, scope, txn_id, event_id.as_str(), now));
        }
    }

    /// The event that already stands at the draft's key with the same content and sender, if it does, and whether it is
    /// still to be committed.
    async fn same_state(&self, hot: &mut Hot, draft: &Draft<'_>) -> Result<Option<(OwnedEventId, bool)>, AppendError> {
        let Some(state_key) = draft.state_key else { return Ok(None) };
        let state = hot.state.clone();
        let Some(entry) = state.get(draft.event_type, state_key) else { return Ok(None) };
        let key = (StateEventType::from(draft.event_type), state_key.to_owned());
        self.prefetch(&mut hot.pdus, &state, &[key]).await?;
        let is_same = hot.pdus.get(&entry.event_nid).is_some_and(|old| {
            old.sender() == draft.sender
                && old.content_as::<CanonicalJsonObject>().is_ok_and(|content| content == draft.content)
        });
        if !is_same {
            return Ok(None);
        }
        let stored = events::find(&self.shared.parts.db, &entry.event_id).await?;
        // What memory holds may have been redacted meanwhile, by another shard.
        let is_redacted = stored.as_ref().is_some_and(|stored| stored.redacted_by.is_some());
        Ok((!is_redacted).then(|| (entry.event_id.clone(), stored.is_none())))
    }

    /// Takes in an event that was built on top of all extremities.
    pub(super) async fn take_own(
        &self,
        batch: &mut Batch,
        hot: &mut Hot,
        pdu: &Pdu,
        transaction: Option<Transaction<'_>>,
    ) -> Result<Appended, AppendError> {
        let event_nid = self.shared.parts.nids.next(NidKind::Event).await?;
        let incoming = Incoming {
            pdu,
            event_nid,
            standing: Standing::Accepted,
            state_before: None,
            is_outlier: false,
            is_followed: false,
            transaction: transaction.map(|transaction| event_cache::Transaction {
                user_nid: transaction.user_nid,
                device_id: transaction.device_id.to_owned(),
                txn_id: transaction.txn_id.into(),
            }),
            resolved: None,
        };
        let place = self.take_in(batch, hot, incoming).await?;
        Ok(Appended {
            event_id: pdu.event_id().to_owned(),
            event_nid,
            position: place.position.unwrap_or_default(),
            committed: None,
        })
    }

    /// Builds, signs and authorises an event on top of all extremities.
    pub(super) async fn build(&self, hot: &mut Hot, draft: &Draft<'_>) -> Result<Pdu, AppendError> {
        self.build_at(hot, draft, self.now()).await
    }

    /// As [`Self::build`], with the time that the event is of.
    pub(super) async fn build_at(
        &self,
        hot: &mut Hot,
        draft: &Draft<'_>,
        origin_server_ts: MilliSecondsSinceUnixEpoch,
    ) -> Result<Pdu, AppendError> {
        let version = hot.room_version;
        let mut keys =
            auth::auth_types_for_event(version, draft.event_type, draft.sender, draft.state_key, &draft.content)?;
        let create = (StateEventType::RoomCreate, String::new());
        let named = keys.len();
        if !keys.contains(&create) {
            // Not among the auth events of version 12, but the rules still look at it.
            keys.push(create);
        }
        let state = hot.state.clone();
        self.prefetch(&mut hot.pdus, &state, &keys).await?;
        let auth_events: Vec<OwnedEventId> = keys[..named]
            .iter()
            .filter_map(|(kind, key)| state.get(&kind.to_string(), key))
            .map(|entry| entry.event_id.clone())
            .collect();
        // Newest first, if there are too many to name.
        hot.extremities.sort_by_key(|extremity| std::cmp::Reverse(extremity.depth));
        let prev_events: Vec<OwnedEventId> =
            hot.extremities.iter().take(MAX_PREV_EVENTS).map(|extremity| extremity.event_id.clone()).collect();
        let depth = hot.extremities.first().map_or(0, |extremity| extremity.depth).saturating_add(1);
        let template = EventTemplate {
            room_id: Some(&*hot.room_id).filter(|_| {
                !(version.room_id_is_create_event_id() && draft.event_type == "m.room.create" && prev_events.is_empty())
            }),
            sender: draft.sender,
            event_type: draft.event_type,
            state_key: draft.state_key,
            content: draft.content.clone(),
            redacts: draft.redacts,
            prev_events: &prev_events,
            auth_events: &auth_events,
            reference_hashes: self.reference_hashes(hot, &prev_events, &auth_events).await?,
            depth,
            origin_server_ts,
        };
        let pdu = pdu::build(version, template, &self.shared.parts.signing_key, self.server_name())?;
        let at = |kind: &StateEventType, key: &str| {
            let entry = state.get(&kind.to_string(), key)?;
            hot.pdus.get(&entry.event_nid).cloned()
        };
        auth::check_against_state(&pdu, at)?;
        Ok(pdu)
    }

    /// What room versions 1 and 2 say beside each event that they point at.
    async fn reference_hashes(
        &self,
        hot: &Hot,
        prev_events: &[OwnedEventId],
        auth_events: &[OwnedEventId],
    ) -> Result<BTreeMap<OwnedEventId, String>, AppendError> {
        if !hot.room_version.event_id_is_in_event() {
            return Ok(BTreeMap::new());
        }
        let newest = hot.extremities.iter().filter_map(|extremity| hot.pdus.get(&extremity.event_nid));
        let state = hot.state.iter().filter_map(|(_, _, entry)| hot.pdus.get(&entry.event_nid));
        let kept: HashMap<&EventId, &Pdu> = newest.chain(state).map(|pdu| (pdu.event_id(), pdu)).collect();
        let named = || prev_events.iter().chain(auth_events).map(|event_id| &**event_id);
        let missing = named().filter(|event_id| !kept.contains_key(event_id));
        let stored = events::find_by_ids(&self.shared.parts.db, missing).await?;
        let hash_of = |event_id: &EventId| {
            let pdu = kept.get(event_id).copied().or_else(|| stored.get(event_id).map(|event| &event.pdu))?;
            Some((event_id.to_owned(), pdu.reference_hash()))
        };
        Ok(named().filter_map(hash_of).collect())
    }

    pub(super) fn now(&self) -> MilliSecondsSinceUnixEpoch {
        MilliSecondsSinceUnixEpoch(UInt::new_saturating(self.shared.parts.clock.now_ms()))
    }
}

/// Nobody appends to a room whose newest events this server may not know.
pub(super) fn check_residence(hot: &Hot) -> Result<(), AppendError> {
    if hot.is_resident {
        return Ok(());
    }
    match hot.position {
        // Only an invite told of it.
        0 => Err(AppendError::UnknownRoom),
        _ => Err(AuthError { reason: "no user of this server is in the room".to_owned() }.into()),
    }
}
