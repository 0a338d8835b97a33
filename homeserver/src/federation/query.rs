//! Asks other servers about their users, aliases and directories.

use std::collections::BTreeMap;

use ruma::{
    OwnedRoomId, OwnedServerName, RoomAliasId, ServerName, UInt, UserId,
    api::federation::{
        directory::get_public_rooms_filtered,
        query::{get_profile_information, get_room_information},
    },
    directory::Filter,
};
use serde_json::Value;

use super::{Federation, QueryError};
use crate::{remote::Patience, rooms::DirectoryPage};

impl Federation {
    /// The profile of a user of another server, or one field of it.
    ///
    /// # Errors
    /// [`QueryError::NotFound`] when the server says so.
    pub async fn profile(&self, user_id: &UserId, field: Option<&str>) -> Result<BTreeMap<String, Value>, QueryError> {
        let mut request = get_profile_information::v1::Request::new(user_id.to_owned());
        request.field = field.map(Into::into);
        let answer = self.parts.client.send(user_id.server_name(), request, Patience::Brief).await?;
        Ok(answer.iter().map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    /// The room that an alias of another server names, and servers that are in it.
    ///
    /// # Errors
    /// [`QueryError::NotFound`] when the server says so.
    pub async fn resolve_alias(&self, alias: &RoomAliasId) -> Result<(OwnedRoomId, Vec<OwnedServerName>), QueryError> {
        let request = get_room_information::v1::Request::new(alias.to_owned());
        let answer = self.parts.client.send(alias.server_name(), request, Patience::Insistent).await?;
        Ok((answer.room_id, answer.servers))
    }

    /// A page of another server's published rooms.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub async fn public_rooms(
        &self,
        server: &ServerName,
        filter: Filter,
        limit: Option<UInt>,
        since: Option<String>,
    ) -> Result<DirectoryPage, QueryError> {
        let mut request = get_public_rooms_filtered::v1::Request::new();
        request.filter = filter;
        request.limit = limit;
        request.since = since;
        let answer = self.parts.client.send(server, request, Patience::Insistent).await?;
        Ok(DirectoryPage {
            chunk: answer.chunk,
            next_batch: answer.next_batch,
            prev_batch: answer.prev_batch,
            total_room_count_estimate: answer.total_room_count_estimate,
        })
    }
}
