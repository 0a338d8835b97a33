//! Fetches what was said in a room before we came, from the servers that were there.

use ruma::{OwnedServerName, RoomId, ServerName, UInt, api::federation::backfill::get_backfill};
use serde_json::value::RawValue;

use super::{Federation, ReceivePduError};
use crate::{
    remote::Patience,
    rules::{pdu::Pdu, room_version::RoomVersion},
    storage::servers,
};

/// Servers that are asked before we give up.
const SERVERS: usize = 3;
/// Events that are asked for at most, and at least: fetching a few costs as much as fetching many.
const MOST: usize = 100;
const LEAST: usize = 50;

impl Federation {
    /// Fetches events from before the oldest one that we have. Whether some came.
    ///
    /// # Errors
    /// Ours only; that no server answered is no error.
    pub async fn fetch_history(&self, room_id: &RoomId, limit: usize) -> Result<bool, ReceivePduError> {
        let room = self.parts.rooms.find(room_id).await?.ok_or(ReceivePduError::UnknownRoom)?;
        // One at a time: the second finds what the first brought.
        let _turn = self.room_turns.take(room_id.to_owned()).await;
        if self.parts.rooms.gaps(room_id).await?.is_empty() {
            return Ok(false);
        }
        for server in self.servers_to_ask(room.room_nid).await? {
            match self.fetch_history_from(&server, room_id, room.room_version, limit.clamp(LEAST, MOST)).await {
                Ok(0) => {}
                Ok(_) => return Ok(true),
                Err(error) if error.is_ours() => return Err(error),
                Err(error) => {
                    tracing::debug!(error = &error as &dyn std::error::Error, %server, "no history from there");
                }
            }
        }
        Ok(false)
    }

    async fn servers_to_ask(&self, room_nid: i64) -> Result<Vec<OwnedServerName>, ReceivePduError> {
        let mut servers = servers::list_joined(&self.parts.db, room_nid).await?;
        servers.retain(|server| server != self.server_name());
        let mut alive = Vec::new();
        for server in servers {
            if alive.len() < SERVERS && !self.parts.client.destinations().is_backing_off(&server).await {
                alive.push(server);
            }
        }
        Ok(alive)
    }

    async fn fetch_history_from(
        &self,
        server: &ServerName,
        room_id: &RoomId,
        version: RoomVersion,
        limit: usize,
    ) -> Result<usize, ReceivePduError> {
        let gaps = self.parts.rooms.gaps(room_id).await?;
        let limit = UInt::new_saturating(u64::try_from(limit).unwrap_or(u64::MAX));
        let request = get_backfill::v1::Request::new(room_id.to_owned(), gaps, limit);
        let answer = self.parts.client.send(server, request, Patience::Brief).await?;
        let raws: Vec<&RawValue> = answer.pdus.iter().take(MOST).map(AsRef::as_ref).collect();
        let mut pdus = self.verify_all(room_id, version, &raws).await?;
        pdus.sort_by_key(Pdu::depth);
        let Some(first) = pdus.first() else { return Ok(0) };
        let state = self.fetch_state_before(server, first).await?;
        Ok(self.parts.rooms.backfill(room_id, &pdus, &state).await?)
    }
}
