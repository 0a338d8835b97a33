//! Messages from device to device: queued for local devices, and put into the outbox for other servers.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use ruma::{OwnedServerName, OwnedUserId, UserId, serde::Raw, to_device::DeviceIdOrAllDevices};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{E2ee, OwnDevice, is_storable};
use crate::{
    storage::{
        DbError,
        to_device::{self, Recipient},
    },
    stream::{Change, CommitError, Write},
};

/// Largest content of one message, in bytes.
const MAX_CONTENT: usize = 65_536;
/// How long a transaction is remembered.
const TRANSACTIONS_KEPT: Duration = Duration::from_secs(24 * 3600);

/// Contents by user and device.
pub type ToDeviceMessages<T> = BTreeMap<OwnedUserId, BTreeMap<DeviceIdOrAllDevices, Raw<T>>>;

/// Why messages were refused.
#[derive(Debug, thiserror::Error)]
pub enum SendToDeviceError {
    #[error("a message is too large")]
    TooLarge,
    #[error("the event type, the transaction id or a device id cannot be kept")]
    Name,
    #[error(transparent)]
    Commit(CommitError),
    #[error(transparent)]
    Db(#[from] DbError),
}

#[derive(Serialize)]
struct ToDeviceEvent<'a> {
    content: &'a RawValue,
    sender: &'a UserId,
    #[serde(rename = "type")]
    event_type: &'a str,
}

/// The content of an `m.direct_to_device` EDU.
#[derive(Serialize)]
struct DirectToDevice<'a> {
    sender: &'a UserId,
    #[serde(rename = "type")]
    event_type: &'a str,
    message_id: &'a str,
    messages: BTreeMap<&'a UserId, BTreeMap<String, &'a RawValue>>,
}

impl E2ee {
    /// Sends messages on behalf of a local device. The same transaction again sends nothing.
    ///
    /// # Errors
    /// See [`SendToDeviceError`].
    pub async fn send_to_device<T>(
        &self,
        sender: OwnDevice<'_>,
        event_type: &str,
        txn_id: &str,
        messages: &ToDeviceMessages<T>,
    ) -> Result<(), SendToDeviceError> {
        let now_ms = self.parts.clock.now_ms();
        let message_id = format!("{:032x}", rand::random::<u128>());
        let take = to_device::take_transaction(sender.user_nid, sender.device_id.as_str(), event_type, txn_id, now_ms);
        if !is_storable(txn_id) {
            return Err(SendToDeviceError::Name);
        }
        let mut write = self.queue_messages(sender.user_id, event_type, messages).await?;
        let mut remote: BTreeMap<OwnedServerName, BTreeMap<&UserId, BTreeMap<String, &RawValue>>> = BTreeMap::new();
        for (user_id, devices) in messages.iter().filter(|(user_id, _)| !self.is_local(user_id)) {
            let contents = devices.iter().map(|(device, content)| (device.to_string(), content.json())).collect();
            remote.entry(user_id.server_name().to_owned()).or_default().insert(user_id, contents);
        }
        for (destination, messages) in remote {
            // The federation's sender learns from the log that something waits for these users' server.
            for user_id in messages.keys() {
                write.changes.push(Change::User { user: self.parts.names.nid(user_id).await? });
            }
            let edu = DirectToDevice { sender: sender.user_id, event_type, message_id: &message_id, messages };
            write.statements.push(to_device::enqueue_remote(destination.as_str(), to_text(&edu)?));
        }
        let too_old = now_ms.saturating_sub(u64::try_from(TRANSACTIONS_KEPT.as_millis()).unwrap_or(u64::MAX));
        write.statements.push(to_device::delete_transactions_before(too_old));
        write.guard = Some(take.into());
        self.commit_once(write).await
    }

    /// Takes messages of another server's user. The same `message_id` again is passed over.
    ///
    /// The caller has checked that the sender belongs to the server that sent it.
    ///
    /// # Errors
    /// See [`SendToDeviceError`].
    pub async fn receive_to_device<T>(
        &self,
        sender: &UserId,
        event_type: &str,
        message_id: &str,
        messages: &ToDeviceMessages<T>,
    ) -> Result<(), SendToDeviceError> {
        if !is_storable(message_id) {
            return Err(SendToDeviceError::Name);
        }
        let sender_nid = self.parts.names.nid(sender).await?;
        let mut write = self.queue_messages(sender, event_type, messages).await?;
        if write.statements.is_empty() {
            return Ok(());
        }
        let now_ms = self.parts.clock.now_ms();
        write.guard = Some(to_device::take_transaction(sender_nid, "", event_type, message_id, now_ms).into());
        self.commit_once(write).await
    }

    /// What puts messages into the queues of local devices.
    async fn queue_messages<T>(
        &self,
        sender: &UserId,
        event_type: &str,
        messages: &ToDeviceMessages<T>,
    ) -> Result<Write, SendToDeviceError> {
        if !is_storable(event_type) {
            return Err(SendToDeviceError::Name);
        }
        let mut write = Write::default();
        let mut woken = BTreeSet::new();
        for (user_id, devices) in messages {
            if devices.values().any(|content| content.json().get().len() > MAX_CONTENT) {
                return Err(SendToDeviceError::TooLarge);
            }
            if !self.is_local(user_id) {
                continue;
            }
            // Nobody has the number of a user who was never seen, so nothing is lost.
            let Some(user_nid) = self.parts.names.find(user_id).await? else { continue };
            for (device, content) in devices {
                let json: Arc<str> = to_text(&ToDeviceEvent { content: content.json(), sender, event_type })?.into();
                let recipient = match device {
                    DeviceIdOrAllDevices::AllDevices => Recipient::AllDevices,
                    DeviceIdOrAllDevices::DeviceId(device_id) if is_storable(device_id.as_str()) => {
                        Recipient::Device(device_id.as_str())
                    }
                    DeviceIdOrAllDevices::DeviceId(_) => return Err(SendToDeviceError::Name),
                };
                write.statements.push(to_device::enqueue(user_nid, recipient, json));
                woken.insert(user_nid);
            }
        }
        write.changes = woken.into_iter().map(|user| Change::User { user }).collect();
        Ok(write)
    }

    async fn commit_once(&self, write: Write) -> Result<(), SendToDeviceError> {
        match self.parts.lane.commit(write).await {
            // The guard says that the transaction was taken before.
            Ok(_) | Err(CommitError::Conflict) => Ok(()),
            Err(error) => Err(SendToDeviceError::Commit(error)),
        }
    }
}

fn to_text<T: Serialize>(value: &T) -> Result<String, DbError> {
    serde_json::to_string(value).map_err(|error| DbError::Corrupt(format!("a to-device message: {error}")))
}
