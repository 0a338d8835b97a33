//! Receipts and fully-read markers: each moves forward only.

use ruma::{EventId, OwnedEventId, RoomId, UserId};
use serde_json::json;

use super::Ephemeral;
use crate::{
    storage::{
        DbError, account_data,
        receipts::{self, EventInThread, FULLY_READ, READ, READ_PRIVATE, ReceiptRow, UNTHREADED},
    },
    stream::{Change, CommitError, Write},
};

/// The thread of everything that is in no thread.
const MAIN: &str = "main";

/// Events that one remote receipt may name; others are passed over. Servers name one.
const MAX_EVENTS: usize = 10;

/// What a receipt tells, and whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiptKind {
    /// `m.read`: everybody in the room.
    Read,
    /// `m.read.private`: the user's own devices.
    ReadPrivate,
    /// `m.fully_read`: the user's own devices, as account data of the room.
    FullyRead,
}

impl ReceiptKind {
    fn name(self) -> &'static str {
        match self {
            Self::Read => READ,
            Self::ReadPrivate => READ_PRIVATE,
            Self::FullyRead => FULLY_READ,
        }
    }
}

/// A receipt that a client sends.
#[derive(Clone, Debug)]
pub struct NewReceipt {
    pub kind: ReceiptKind,
    pub event_id: OwnedEventId,
    /// `main` or the root of a thread; `None` for a receipt that belongs to no thread.
    pub thread_id: Option<String>,
}

/// Why a receipt was refused.
#[derive(Debug, thiserror::Error)]
pub enum ReceiptError {
    #[error("the user is not in the room")]
    NotJoined,
    #[error("the event is not in the room")]
    NoSuchEvent,
    #[error("the thread_id is not `main` or an event id")]
    ThreadId,
    #[error("a fully-read marker belongs to no thread")]
    ThreadedMarker,
    #[error("the event is not in the thread")]
    OtherThread,
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error(transparent)]
    Db(#[from] DbError),
}

impl Ephemeral {
    /// Moves receipts of a local user forward, all in one room. One that would move back is passed over.
    ///
    /// # Errors
    /// See [`ReceiptError`]; then none of them moved, unless the database failed between them.
    pub async fn set_receipts(&self, user_nid: i64, room_id: &RoomId, new: &[NewReceipt]) -> Result<(), ReceiptError> {
        let room_nid = self.joined_room(user_nid, room_id).await?.ok_or(ReceiptError::NotJoined)?;
        let receipt_ts = self.parts().clock.now_ms();
        let mut writes = Vec::with_capacity(new.len());
        for receipt in new {
            check_thread_id(receipt)?;
            if !is_storable(&receipt.event_id) {
                return Err(ReceiptError::NoSuchEvent);
            }
            let event = receipts::find_event(&self.parts().db, room_nid, receipt.event_id.as_str()).await?;
            let event = event.ok_or(ReceiptError::NoSuchEvent)?;
            check_thread(&event, receipt)?;
            let row = ReceiptRow {
                room_nid,
                user_nid,
                receipt_type: receipt.kind.name().to_owned(),
                thread_id: receipt.thread_id.clone().unwrap_or_else(|| UNTHREADED.to_owned()),
                event_id: receipt.event_id.to_string(),
                position: event.position,
                receipt_ts,
            };
            writes.push(write(&row, receipt.kind, room_id));
        }
        // All are queued before the first is waited for, so that one transaction can carry them.
        let outcomes: Vec<_> = writes.into_iter().map(|write| self.parts().lane.submit(write)).collect();
        for outcome in outcomes {
            moved_or_passed_over(outcome.await)?;
        }
        Ok(())
    }

    /// Takes another server's word for its user's public receipt (part of an `m.receipt` EDU). Passed over when the
    /// user is not in the room. Of several events the newest counts; one that we do not have is kept without a place.
    /// The caller has checked that the sending server is the user's.
    ///
    /// # Errors
    /// [`ReceiptError::Commit`] or [`ReceiptError::Db`].
    pub async fn receive_receipt(
        &self,
        user_id: &UserId,
        room_id: &RoomId,
        event_ids: &[OwnedEventId],
        thread_id: Option<&str>,
        receipt_ts: u64,
    ) -> Result<(), ReceiptError> {
        let Some(user_nid) = self.parts().names.find(user_id).await? else { return Ok(()) };
        let Some(room_nid) = self.joined_room(user_nid, room_id).await? else { return Ok(()) };
        if thread_id.is_some_and(|thread_id| !is_thread_id(thread_id)) {
            return Ok(());
        }
        let mut newest: Option<(Option<i64>, &OwnedEventId)> = None;
        for event_id in event_ids.iter().filter(|event_id| is_storable(event_id)).take(MAX_EVENTS) {
            let event = receipts::find_event(&self.parts().db, room_nid, event_id.as_str()).await?;
            let position = event.and_then(|event| event.position);
            if newest.is_none_or(|(best, _)| position > best) {
                newest = Some((position, event_id));
            }
        }
        let Some((position, event_id)) = newest else { return Ok(()) };
        let row = ReceiptRow {
            room_nid,
            user_nid,
            receipt_type: READ.to_owned(),
            thread_id: thread_id.unwrap_or(UNTHREADED).to_owned(),
            event_id: event_id.to_string(),
            position,
            // A clock that runs ahead elsewhere must not win over what comes later.
            receipt_ts: receipt_ts.min(self.parts().clock.now_ms()),
        };
        let outcome = self.parts().lane.commit(write(&row, ReceiptKind::Read, room_id)).await;
        Ok(moved_or_passed_over(outcome)?)
    }
}

fn write(row: &ReceiptRow, kind: ReceiptKind, room_id: &RoomId) -> Write {
    let mut statements = vec![receipts::place(row)];
    let change = match kind {
        ReceiptKind::Read => Change::Room { room: row.room_nid },
        ReceiptKind::ReadPrivate => Change::User { user: row.user_nid },
        ReceiptKind::FullyRead => {
            let content = json!({ "event_id": row.event_id }).to_string();
            statements.push(account_data::upsert(row.user_nid, room_id.as_str(), FULLY_READ, &content));
            Change::User { user: row.user_nid }
        }
    };
    Write { guard: Some(receipts::advance(row).into()), statements, changes: vec![change] }
}

fn moved_or_passed_over<T>(outcome: Result<T, CommitError>) -> Result<(), CommitError> {
    match outcome {
        // The receipt stands there or further already.
        Ok(_) | Err(CommitError::Conflict) => Ok(()),
        Err(error) => Err(error),
    }
}

fn check_thread_id(receipt: &NewReceipt) -> Result<(), ReceiptError> {
    let Some(thread_id) = &receipt.thread_id else { return Ok(()) };
    if receipt.kind == ReceiptKind::FullyRead {
        return Err(ReceiptError::ThreadedMarker);
    }
    if is_thread_id(thread_id) { Ok(()) } else { Err(ReceiptError::ThreadId) }
}

fn is_thread_id(thread_id: &str) -> bool {
    thread_id == MAIN || <&EventId>::try_from(thread_id).is_ok_and(is_storable)
}

/// Whether the id can be kept: PostgreSQL keeps no zero byte, and nothing is named by more than 255 bytes.
fn is_storable(event_id: &EventId) -> bool {
    event_id.as_str().len() <= 255 && !event_id.as_str().contains('\0')
}

fn check_thread(event: &EventInThread, receipt: &NewReceipt) -> Result<(), ReceiptError> {
    let is_in_thread = match receipt.thread_id.as_deref() {
        None => true,
        Some(MAIN) => event.thread_root.is_none(),
        Some(root) => receipt.event_id == root || event.thread_root.as_deref() == Some(root),
    };
    if is_in_thread { Ok(()) } else { Err(ReceiptError::OtherThread) }
}
