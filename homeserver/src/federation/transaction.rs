//! Takes in a transaction of another server: each once, events of one room in order, rooms side by side.
//!
//! Specification: server-server API, "Transactions".

use std::collections::BTreeMap;

use futures_util::future::join_all;
use ruma::{OwnedEventId, OwnedRoomId, ServerName, api::federation::transactions::edu::Edu, serde::Raw};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Federation, ReceivePduError, receive_pdu::room_id_of};
use crate::{
    rooms::Received,
    rules::{pdu::Pdu, room_version::RoomVersion},
    storage::{DbError, received_transactions},
    stream::CommitError,
};

/// Events that a transaction may hold.
pub const MAX_PDUS: usize = 50;
/// Ephemeral data units that a transaction may hold.
pub const MAX_EDUS: usize = 100;
/// How long answers are kept for transactions that are sent again: one day.
const ANSWERS_KEPT_MS: u64 = 24 * 60 * 60 * 1000;

/// What became of one event: nothing to say, or why it was not taken in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PduOutcome {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Why a whole transaction was not taken in.
#[derive(Debug, thiserror::Error)]
pub enum TransactionError {
    #[error("a transaction holds at most {MAX_PDUS} PDUs and {MAX_EDUS} EDUs")]
    TooLarge,
    /// Ours; the other server sends it again.
    #[error("an event could not be taken in")]
    Ours(#[source] ReceivePduError),
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error(transparent)]
    Db(#[from] DbError),
}

impl Federation {
    /// Takes in a transaction and says what became of its events.
    ///
    /// # Errors
    /// [`TransactionError::TooLarge`], and when we could not do our part: then nothing is remembered, and what was taken
    /// in already is known when the transaction comes again.
    pub async fn receive_transaction(
        &self,
        origin: &ServerName,
        txn_id: &str,
        pdus: &[Box<RawValue>],
        edus: &[Raw<Edu>],
    ) -> Result<BTreeMap<OwnedEventId, PduOutcome>, TransactionError> {
        if pdus.len() > MAX_PDUS || edus.len() > MAX_EDUS {
            return Err(TransactionError::TooLarge);
        }
        let _turn = self.origin_turns.take(origin.to_owned()).await;
        if let Some(answer) = received_transactions::find(&self.parts.db, origin, txn_id).await? {
            let answer = serde_json::from_str(&answer);
            return answer.map_err(|error| DbError::Corrupt(format!("received_transactions.answer: {error}")).into());
        }
        let outcomes = self.receive_pdus(origin, pdus).await?;
        for edu in edus {
            self.receive_edu(origin, edu).await?;
        }
        let answer = serde_json::to_string(&outcomes).unwrap_or_else(|_| "{}".to_owned());
        received_transactions::insert(&self.parts.db, origin, txn_id, self.now_ms(), &answer).await?;
        Ok(outcomes)
    }

    /// Forgets answers that nobody asks for any more; called from time to time.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn forget_old_transactions(&self) -> Result<(), DbError> {
        received_transactions::delete_before(&self.parts.db, self.now_ms().saturating_sub(ANSWERS_KEPT_MS)).await
    }

    async fn receive_pdus(
        &self,
        origin: &ServerName,
        pdus: &[Box<RawValue>],
    ) -> Result<BTreeMap<OwnedEventId, PduOutcome>, TransactionError> {
        let mut by_room: BTreeMap<OwnedRoomId, Vec<&RawValue>> = BTreeMap::new();
        for raw in pdus {
            // An event that names no room has no version, hence no id to answer under; the specification drops it.
            if let Some(room_id) = room_id_of(raw) {
                by_room.entry(room_id).or_default().push(raw);
            }
        }
        let rooms = by_room.into_iter().map(|(room_id, raws)| self.receive_pdus_of_room(origin, room_id, raws));
        let mut outcomes = BTreeMap::new();
        for result in join_all(rooms).await {
            outcomes.extend(result?);
        }
        Ok(outcomes)
    }

    async fn receive_pdus_of_room(
        &self,
        origin: &ServerName,
        room_id: OwnedRoomId,
        raws: Vec<&RawValue>,
    ) -> Result<Vec<(OwnedEventId, PduOutcome)>, TransactionError> {
        let _turn = self.room_turns.take(room_id.clone()).await;
        let version = self.parts.rooms.find(&room_id).await?.map(|room| room.room_version);
        let mut outcomes = Vec::with_capacity(raws.len());
        for raw in raws {
            let outcome = match self.receive_pdu(origin, raw).await {
                Ok(Received::Rejected(error)) => PduOutcome { error: Some(error.to_string()) },
                // That an event was soft-failed is nobody's business.
                Ok(Received::Known | Received::Accepted | Received::SoftFailed(_)) => PduOutcome::default(),
                Err(error) if error.is_ours() => return Err(TransactionError::Ours(error)),
                Err(error) => {
                    tracing::debug!(error = &error as &dyn std::error::Error, %origin, "an event was dropped");
                    PduOutcome { error: Some(error.to_string()) }
                }
            };
            if let Some(event_id) = event_id_of(version, raw) {
                outcomes.push((event_id, outcome));
            }
        }
        Ok(outcomes)
    }
}

/// The id of an event whose room we know.
fn event_id_of(version: Option<RoomVersion>, raw: &RawValue) -> Option<OwnedEventId> {
    Pdu::from_json_text(version?, raw.get()).ok().map(|pdu| pdu.event_id().to_owned())
}
