//! Takes in what passes: typing, receipts, presence, to-device messages and changes of devices.
//!
//! Specification: server-server API, "EDUs". A server speaks for its own users only.

use std::time::Duration;

use ruma::{
    OwnedRoomId, ServerName, UserId,
    api::federation::transactions::edu::{
        DeviceListUpdateContent, DirectDeviceContent, Edu, PresenceContent, ReceiptContent, ReceiptMap,
        SigningKeyUpdateContent, TypingContent,
    },
    serde::Raw,
};

use super::{Federation, TransactionError};
use crate::{
    e2ee::{RemoteDeviceUpdate, SendToDeviceError, SigningKeys},
    ephemeral::{PresenceError, ReceiptError, TypingError},
};

impl Federation {
    /// Takes in one EDU. What cannot be understood, or speaks for users of other servers, is left out.
    ///
    /// # Errors
    /// Those of the database: the other server has to send it again.
    pub(super) async fn receive_edu(&self, origin: &ServerName, edu: &Raw<Edu>) -> Result<(), TransactionError> {
        let Ok(edu) = edu.deserialize() else {
            tracing::debug!(%origin, "an EDU cannot be understood");
            return Ok(());
        };
        match edu {
            Edu::Typing(content) => self.receive_typing(origin, content).await,
            Edu::Receipt(content) => self.receive_receipts(origin, content).await,
            Edu::Presence(content) => self.receive_presence(origin, content).await,
            Edu::DirectToDevice(content) => self.receive_to_device(origin, content).await,
            Edu::DeviceListUpdate(content) => self.receive_device_list_update(origin, content).await,
            Edu::SigningKeyUpdate(content) => self.receive_signing_key_update(origin, content).await,
            _ => Ok(()),
        }
    }

    async fn receive_typing(&self, origin: &ServerName, content: TypingContent) -> Result<(), TransactionError> {
        if !speaks_for(origin, &content.user_id) || !self.is_admitted(&content.room_id, origin).await? {
            return Ok(());
        }
        match self.parts.ephemeral.receive_typing(&content.user_id, &content.room_id, content.typing).await {
            Ok(()) | Err(TypingError::NotJoined) => Ok(()),
            Err(TypingError::Commit(error)) => Err(error.into()),
            Err(TypingError::Db(error)) => Err(error.into()),
        }
    }

    async fn receive_receipts(&self, origin: &ServerName, content: ReceiptContent) -> Result<(), TransactionError> {
        for (room_id, receipts) in content.receipts {
            if self.is_admitted(&room_id, origin).await? {
                self.receive_receipts_of_room(origin, room_id, receipts).await?;
            }
        }
        Ok(())
    }

    async fn receive_receipts_of_room(
        &self,
        origin: &ServerName,
        room_id: OwnedRoomId,
        receipts: ReceiptMap,
    ) -> Result<(), TransactionError> {
        for (user_id, receipt) in receipts.read {
            if !speaks_for(origin, &user_id) {
                continue;
            }
            let ts = receipt.data.ts.map_or_else(|| self.now_ms(), |ts| ts.get().into());
            let thread_id = receipt.data.thread.as_str();
            let ephemeral = &self.parts.ephemeral;
            match ephemeral.receive_receipt(&user_id, &room_id, &receipt.event_ids, thread_id, ts).await {
                Err(ReceiptError::Commit(error)) => return Err(error.into()),
                Err(ReceiptError::Db(error)) => return Err(error.into()),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    async fn receive_presence(&self, origin: &ServerName, content: PresenceContent) -> Result<(), TransactionError> {
        for update in content.push.into_iter().filter(|update| speaks_for(origin, &update.user_id)) {
            let ago = Duration::from_millis(update.last_active_ago.into());
            let status_msg = update.status_msg.as_deref();
            let ephemeral = &self.parts.ephemeral;
            match ephemeral.receive_presence(&update.user_id, &update.presence, status_msg, ago).await {
                Err(PresenceError::Commit(error)) => return Err(error.into()),
                Err(PresenceError::Db(error)) => return Err(error.into()),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    async fn receive_to_device(
        &self,
        origin: &ServerName,
        content: DirectDeviceContent,
    ) -> Result<(), TransactionError> {
        if !speaks_for(origin, &content.sender) {
            return Ok(());
        }
        let event_type = content.ev_type.to_string();
        let message_id = content.message_id.as_str();
        let e2ee = &self.parts.e2ee;
        match e2ee.receive_to_device(&content.sender, &event_type, message_id, &content.messages).await {
            Err(SendToDeviceError::Commit(error)) => Err(error.into()),
            Err(SendToDeviceError::Db(error)) => Err(error.into()),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    async fn receive_device_list_update(
        &self,
        origin: &ServerName,
        content: DeviceListUpdateContent,
    ) -> Result<(), TransactionError> {
        if !speaks_for(origin, &content.user_id) {
            return Ok(());
        }
        let update = RemoteDeviceUpdate {
            user_id: content.user_id,
            device_id: content.device_id,
            device_display_name: content.device_display_name,
            stream_id: content.stream_id.into(),
            prev_id: content.prev_id.into_iter().map(Into::into).collect(),
            deleted: content.deleted.unwrap_or(false),
            keys: content.keys,
        };
        Ok(self.parts.e2ee.receive_device_list_update(&update).await?)
    }

    async fn receive_signing_key_update(
        &self,
        origin: &ServerName,
        content: SigningKeyUpdateContent,
    ) -> Result<(), TransactionError> {
        if !speaks_for(origin, &content.user_id) {
            return Ok(());
        }
        let keys = SigningKeys {
            master_key: content.master_key,
            self_signing_key: content.self_signing_key,
            user_signing_key: None,
        };
        Ok(self.parts.e2ee.receive_signing_keys(&content.user_id, &keys).await?)
    }
}

fn speaks_for(origin: &ServerName, user_id: &UserId) -> bool {
    user_id.server_name() == origin
}
