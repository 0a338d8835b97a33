//! Fetches from other servers what an event rests on: its auth chain, the events before it, the state before a gap.

use std::collections::HashSet;

use futures_util::{StreamExt, stream};
use ruma::{
    EventId, OwnedEventId, RoomId, ServerName, UInt,
    api::federation::{
        authorization::get_event_authorization,
        event::{get_event, get_missing_events, get_room_state, get_room_state_ids},
    },
};

use serde_json::value::RawValue;

use super::{Federation, ReceivePduError};
use crate::{
    remote::Patience,
    rules::{pdu::Pdu, room_version::RoomVersion},
};

/// Events of a state that are fetched one by one rather than with the whole state.
const FEW: usize = 20;
/// Events fetched at the same time.
const FETCHES: usize = 8;

impl Federation {
    /// The events between our newest ones and `pdu`, oldest first.
    pub(super) async fn fetch_missing_events(
        &self,
        origin: &ServerName,
        pdu: &Pdu,
        limit: UInt,
    ) -> Result<Vec<Pdu>, ReceivePduError> {
        let room_id = pdu.room_id();
        let earliest = self.parts.rooms.extremities(room_id).await?;
        let mut request =
            get_missing_events::v1::Request::new(room_id.to_owned(), earliest, vec![pdu.event_id().to_owned()]);
        request.limit = limit;
        let answer = self.parts.client.send(origin, request, Patience::Brief).await?;
        let limit = usize::try_from(u64::from(limit)).unwrap_or(usize::MAX);
        let raws: Vec<&RawValue> = answer.events.iter().take(limit).map(AsRef::as_ref).collect();
        let mut events = self.verify_all(room_id, pdu.room_version(), &raws).await?;
        events.sort_by_key(Pdu::depth);
        Ok(events)
    }

    /// Stores the events that authorise `pdu`, of which `missing` are not stored.
    pub(super) async fn fetch_auth_chain(
        &self,
        origin: &ServerName,
        pdu: &Pdu,
        missing: &[OwnedEventId],
    ) -> Result<(), ReceivePduError> {
        let (room_id, version) = (pdu.room_id(), pdu.room_version());
        let request = get_event_authorization::v1::Request::new(room_id.to_owned(), pdu.event_id().to_owned());
        let answer = self.parts.client.send(origin, request, Patience::Brief).await?;
        let chain: Vec<&RawValue> = answer.auth_chain.iter().map(AsRef::as_ref).collect();
        let chain = self.verify_all(room_id, version, &chain).await?;
        self.parts.rooms.store_outliers(room_id, version, &chain).await?;
        match self.parts.rooms.missing(missing).await?.into_iter().next() {
            None => Ok(()),
            Some(event_id) => Err(ReceivePduError::Incomplete(event_id)),
        }
    }

    /// Takes in an event beyond a gap, with the state before it as `origin` tells it.
    pub(super) async fn fetch_with_state(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        version: RoomVersion,
        event_id: &EventId,
    ) -> Result<(), ReceivePduError> {
        let pdu = match self.parts.rooms.find_event(event_id).await? {
            Some(stored) => stored.pdu,
            None => self.fetch_event(origin, room_id, version, event_id).await?,
        };
        let state = self.fetch_state_before(origin, &pdu).await?;
        let missing = self.parts.rooms.missing(&super::receive_pdu::needed_for_auth(&pdu)).await?;
        if !missing.is_empty() {
            self.fetch_auth_chain(origin, &pdu, &missing).await?;
        }
        self.parts.rooms.receive(&pdu, Some(&state)).await?;
        Ok(())
    }

    /// The state before an event as `origin` tells it; its events and their auth chains are stored when this returns.
    pub(super) async fn fetch_state_before(
        &self,
        origin: &ServerName,
        pdu: &Pdu,
    ) -> Result<Vec<OwnedEventId>, ReceivePduError> {
        let (room_id, version, event_id) = (pdu.room_id(), pdu.room_version(), pdu.event_id());
        let request = get_room_state_ids::v1::Request::new(event_id.to_owned(), room_id.to_owned());
        let ids = self.parts.client.send(origin, request, Patience::Brief).await?;
        let needed: Vec<OwnedEventId> = ids.pdu_ids.iter().chain(&ids.auth_chain_ids).cloned().collect();
        let missing = self.parts.rooms.missing(&distinct(needed)).await?;
        let fetched = if missing.len() <= FEW {
            self.fetch_events(origin, room_id, version, &missing).await?
        } else {
            let request = get_room_state::v1::Request::new(event_id.to_owned(), room_id.to_owned());
            let state = self.parts.client.send(origin, request, Patience::Insistent).await?;
            let all: Vec<&RawValue> = state.auth_chain.iter().chain(&state.pdus).map(AsRef::as_ref).collect();
            self.verify_all(room_id, version, &all).await?
        };
        self.parts.rooms.store_outliers(room_id, version, &fetched).await?;
        // An event of the state that nobody can show does not count; the others may still make a state.
        let lost: HashSet<OwnedEventId> = self.parts.rooms.missing(&ids.pdu_ids).await?.into_iter().collect();
        let state: Vec<OwnedEventId> =
            distinct(ids.pdu_ids).into_iter().filter(|event_id| !lost.contains(event_id)).collect();
        Ok(state)
    }

    /// Those of some events that can be had, verified.
    async fn fetch_events(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        version: RoomVersion,
        event_ids: &[OwnedEventId],
    ) -> Result<Vec<Pdu>, ReceivePduError> {
        let fetches = event_ids.iter().cloned().map(|event_id| {
            let (this, origin, room_id) = (self.clone(), origin.to_owned(), room_id.to_owned());
            async move { this.fetch_event(&origin, &room_id, version, &event_id).await }
        });
        let fetched: Vec<Result<Pdu, ReceivePduError>> =
            stream::iter(fetches).buffer_unordered(FETCHES).collect().await;
        let mut events = Vec::with_capacity(fetched.len());
        for result in fetched {
            match result {
                Ok(pdu) => events.push(pdu),
                Err(error) if error.is_ours() => return Err(error),
                Err(error) => {
                    tracing::debug!(error = &error as &dyn std::error::Error, %origin, "cannot fetch an event")
                }
            }
        }
        Ok(events)
    }

    async fn fetch_event(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        version: RoomVersion,
        event_id: &EventId,
    ) -> Result<Pdu, ReceivePduError> {
        let request = get_event::v1::Request::new(event_id.to_owned());
        let answer = self.parts.client.send(origin, request, Patience::Brief).await?;
        let pdu = self.verify(room_id, version, &answer.pdu).await?;
        if pdu.event_id() == event_id { Ok(pdu) } else { Err(ReceivePduError::Incomplete(event_id.to_owned())) }
    }
}

fn distinct(mut event_ids: Vec<OwnedEventId>) -> Vec<OwnedEventId> {
    event_ids.sort();
    event_ids.dedup();
    event_ids
}
