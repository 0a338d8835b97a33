//! Sends what waits for one server: transactions in order, the next once the one before arrived.
//!
//! Specification: server-server API, "Transactions".

use std::{collections::VecDeque, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use parking_lot::Mutex;
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedServerName, OwnedTransactionId, UInt,
    api::federation::transactions::{edu::Edu, send_transaction_message},
    serde::Raw,
};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::SenderParts;
use crate::{
    federation::{MAX_EDUS, MAX_PDUS, serve::raw},
    remote::{Blame, Patience, RequestError},
    storage::{
        DbError, events,
        outbox::{self, Item},
        to_device,
    },
};

/// How long to wait after the database failed.
const PAUSE: Duration = Duration::from_secs(2);
/// How long a server rests at most before we look again whether somebody else found it alive.
const LOOK: Duration = Duration::from_secs(30);
/// How long to wait after a server refused a transaction; doubled with each refusal in a row.
const REFUSED_FIRST: Duration = Duration::from_secs(60);
/// And at most.
const REFUSED_LONGEST: Duration = Duration::from_secs(60 * 60);
/// Items that are kept for a server that has been dead for a while.
const OUTBOX_KEPT: usize = 10_000;
/// EDUs that may get lost and are kept for one server.
const PASSING_KEPT: usize = 1_000;

/// What the follower holds of a destination.
pub(super) struct Mailbox {
    shared: Arc<Shared>,
}

struct Shared {
    wake: Notify,
    /// EDUs that are worth nothing tomorrow, oldest first, by what they are about.
    passing: Mutex<VecDeque<(String, Box<RawValue>)>>,
}

impl Mailbox {
    pub(super) fn wake(&self) {
        self.shared.wake.notify_one();
    }

    pub(super) fn pass(&self, key: String, edu: Box<RawValue>) {
        let mut passing = self.shared.passing.lock();
        passing.retain(|(other, _)| *other != key);
        if passing.len() >= PASSING_KEPT {
            passing.pop_front();
        }
        passing.push_back((key, edu));
        drop(passing);
        self.wake();
    }
}

/// The task that sends to one server.
pub(super) struct Destination {
    parts: Arc<SenderParts>,
    name: OwnedServerName,
    shared: Arc<Shared>,
}

/// What is sent at once, and the rows that are deleted when it arrived.
struct Transaction {
    txn_id: OwnedTransactionId,
    pdus: Vec<Box<RawValue>>,
    edus: Vec<Raw<Edu>>,
    outbox_nids: Vec<i64>,
    to_device_nids: Vec<i64>,
}

impl Destination {
    pub(super) fn new(parts: Arc<SenderParts>, name: OwnedServerName) -> (Self, Mailbox) {
        let shared = Arc::new(Shared { wake: Notify::new(), passing: Mutex::default() });
        (Self { parts, name, shared: shared.clone() }, Mailbox { shared })
    }

    pub(super) async fn run(self, stop: CancellationToken) {
        // Kept until it arrived, so that what is sent again is the same transaction.
        let mut transaction: Option<Transaction> = None;
        let mut refusals = 0;
        while !stop.is_cancelled() {
            if !self.parts.client.may_call(&self.name) {
                transaction = None;
                self.drop_all(&stop).await;
                continue;
            }
            let rest = self.parts.client.destinations().rest(&self.name).await;
            if !rest.is_zero() {
                self.shared.passing.lock().clear();
                if rest > LOOK {
                    self.bound_outbox().await;
                }
                self.sleep(rest.min(LOOK), &stop).await;
                continue;
            }
            if transaction.is_none() {
                transaction = match self.next_transaction().await {
                    Ok(next) => next,
                    Err(error) => {
                        tracing::warn!(error = &error as &dyn std::error::Error, server = %self.name, "cannot read the outbox");
                        self.sleep(PAUSE, &stop).await;
                        continue;
                    }
                };
            }
            let Some(waiting) = &transaction else {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = self.shared.wake.notified() => {}
                }
                continue;
            };
            let sent = tokio::select! {
                () = stop.cancelled() => return,
                sent = self.send(waiting) => sent,
            };
            match sent {
                Ok(()) => {
                    refusals = 0;
                    self.forget(waiting, &stop).await;
                    transaction = None;
                }
                // The client remembered the failure; the loop rests.
                Err(error) if error.blame() == Blame::Unreachable => {}
                Err(error) => {
                    let own = REFUSED_FIRST.saturating_mul(1 << refusals.min(6));
                    refusals += 1;
                    let pause = error.retry_after().unwrap_or(own).min(REFUSED_LONGEST);
                    self.pause(pause, &stop).await;
                }
            }
        }
    }

    /// What waits for a server that may never come back does not grow for ever.
    async fn bound_outbox(&self) {
        let bound = outbox::delete_all_but_newest(&self.name, OUTBOX_KEPT);
        if let Err(error) = self.parts.db.write(vec![bound]).await {
            tracing::debug!(error = &error as &dyn std::error::Error, server = %self.name, "cannot bound the outbox");
        }
    }

    /// What waits for a server that the operator denied goes, and no more is sent. Were the server allowed again, it
    /// would fetch from us what it misses, as after a long absence.
    async fn drop_all(&self, stop: &CancellationToken) {
        self.shared.passing.lock().clear();
        let all = vec![outbox::delete_all(&self.name), to_device::delete_all_outgoing(self.name.as_str())];
        if let Err(error) = self.parts.db.write(all).await {
            tracing::warn!(error = &error as &dyn std::error::Error, server = %self.name, "cannot clear the outbox");
            return self.pause(PAUSE, stop).await;
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.shared.wake.notified() => {}
        }
    }

    async fn sleep(&self, duration: Duration, stop: &CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(duration) => {}
            () = self.shared.wake.notified() => {}
        }
    }

    /// Sleeps although somebody may call: who refused us is not asked sooner because there is more to say.
    async fn pause(&self, duration: Duration, stop: &CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(duration) => {}
        }
    }

    async fn send(&self, transaction: &Transaction) -> Result<(), RequestError> {
        let now = MilliSecondsSinceUnixEpoch(UInt::new_saturating(self.parts.clock.now_ms()));
        let origin = self.parts.server_name.clone();
        let mut request = send_transaction_message::v1::Request::new(transaction.txn_id.clone(), origin, now);
        request.pdus = transaction.pdus.clone();
        request.edus = transaction.edus.clone();
        match self.parts.client.send(&self.name, request, Patience::Brief).await {
            Ok(answer) => {
                for (event_id, error) in
                    answer.pdus.iter().filter_map(|(id, outcome)| Some((id, outcome.as_ref().err()?)))
                {
                    tracing::info!(server = %self.name, event.id = %event_id, error, "a server did not take an event");
                }
                Ok(())
            }
            Err(error) => {
                tracing::info!(error = &error as &dyn std::error::Error, server = %self.name, "a transaction waits");
                Err(error)
            }
        }
    }

    /// Deletes what arrived. Until that is done nothing new is sent, so that nothing is sent twice but for a crash.
    async fn forget(&self, transaction: &Transaction, stop: &CancellationToken) {
        let mut statements = Vec::new();
        if !transaction.outbox_nids.is_empty() {
            statements.push(outbox::delete(&self.name, &transaction.outbox_nids));
        }
        if !transaction.to_device_nids.is_empty() {
            statements.push(to_device::delete_outgoing(self.name.as_str(), &transaction.to_device_nids));
        }
        if statements.is_empty() {
            return;
        }
        while let Err(error) = self.parts.db.write(statements.clone()).await {
            tracing::warn!(error = &error as &dyn std::error::Error, server = %self.name, "cannot clear the outbox");
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    /// The oldest things that wait, as many as a transaction may hold.
    async fn next_transaction(&self) -> Result<Option<Transaction>, DbError> {
        let db = &self.parts.db;
        let queued = outbox::list(db, &self.name, MAX_PDUS).await?;
        let event_nids: Vec<i64> = queued
            .iter()
            .filter_map(|queued| match queued.item {
                Item::Event(event_nid) => Some(event_nid),
                Item::Edu(_) => None,
            })
            .collect();
        let stored = events::get_by_nids(db, &event_nids).await?;
        let pdus: Vec<Box<RawValue>> =
            event_nids.iter().filter_map(|event_nid| stored.get(event_nid)).map(|event| raw(&event.pdu)).collect();
        let mut edus: Vec<Box<RawValue>> = Vec::new();
        for queued in &queued {
            if let Item::Edu(edu) = &queued.item {
                edus.push(parse(edu)?);
            }
        }
        let outgoing = to_device::list_outgoing(db, self.name.as_str(), MAX_EDUS - edus.len()).await?;
        for message in &outgoing {
            edus.push(parse(&format!(r#"{{"edu_type":"m.direct_to_device","content":{}}}"#, message.content))?);
        }
        {
            let mut passing = self.shared.passing.lock();
            let room = (MAX_EDUS - edus.len()).min(passing.len());
            edus.extend(passing.drain(..room).map(|(_, edu)| edu));
        }
        if pdus.is_empty() && edus.is_empty() {
            return Ok(None);
        }
        Ok(Some(Transaction {
            txn_id: txn_id_of(&pdus, &edus),
            pdus,
            edus: edus.into_iter().map(Raw::from_json).collect(),
            outbox_nids: queued.iter().map(|queued| queued.outbox_nid).collect(),
            to_device_nids: outgoing.iter().map(|message| message.edu_nid).collect(),
        }))
    }
}

fn parse(edu: &str) -> Result<Box<RawValue>, DbError> {
    RawValue::from_string(edu.to_owned()).map_err(|error| DbError::Corrupt(format!("a queued EDU: {error}")))
}

/// The same content has the same id, also after a restart; other content has another one.
fn txn_id_of(pdus: &[Box<RawValue>], edus: &[Box<RawValue>]) -> OwnedTransactionId {
    let mut hash = Sha256::new();
    for item in pdus.iter().chain(edus) {
        hash.update(u64::try_from(item.get().len()).unwrap_or(u64::MAX).to_le_bytes());
        hash.update(item.get().as_bytes());
    }
    URL_SAFE_NO_PAD.encode(hash.finalize()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_is_named_by_what_it_holds() {
        let item = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
        let one = txn_id_of(&[item("1")], &[item("2")]);
        assert_eq!(one, txn_id_of(&[item("1")], &[item("2")]));
        assert_ne!(one, txn_id_of(&[item("12")], &[]));
        assert!(one.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')));
    }
}
