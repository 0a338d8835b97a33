//! Gives rooms aliases and takes them away. The specification, client-server API, "Room aliases".

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedRoomAliasId, RoomAliasId, RoomId, UserId, events::StateEventType,
};

use super::{Draft, Rooms};
use crate::{
    rules::{power::RoomPower, visibility::HistoryVisibility},
    storage::{DbError, directory},
};

/// Why an alias was not made.
#[derive(Debug, thiserror::Error)]
pub enum CreateAliasError {
    #[error("the alias belongs to another server")]
    NotOurs,
    #[error("this server does not know the room")]
    UnknownRoom,
    #[error("only who is in the room can give it an alias")]
    NotInRoom,
    #[error("the alias is taken")]
    Taken,
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Why an alias was not deleted.
#[derive(Debug, thiserror::Error)]
pub enum DeleteAliasError {
    #[error("there is no such alias")]
    NotFound,
    #[error("the alias belongs to somebody else, and you may not change the room's aliases")]
    Forbidden,
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Why the aliases of a room are not shown.
#[derive(Debug, thiserror::Error)]
pub enum ListAliasesError {
    #[error("this server does not know the room")]
    UnknownRoom,
    #[error("only who is in the room may see its aliases")]
    NotInRoom,
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Whether somebody acts as themselves or for the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authority {
    User,
    /// An administrator may change what belongs to anybody.
    Admin,
}

impl Rooms {
    /// Makes an alias of this server for a room that `creator` is in.
    ///
    /// # Errors
    /// See [`CreateAliasError`].
    pub async fn create_alias(
        &self,
        creator: &UserId,
        alias: &RoomAliasId,
        room_id: &RoomId,
    ) -> Result<(), CreateAliasError> {
        if alias.server_name() != self.server_name() {
            return Err(CreateAliasError::NotOurs);
        }
        if self.find(room_id).await?.is_none_or(|room| !room.is_resident) {
            return Err(CreateAliasError::UnknownRoom);
        }
        if !self.is_joined(room_id, creator).await? {
            return Err(CreateAliasError::NotInRoom);
        }
        let db = &self.shared.parts.db;
        if !directory::insert_alias(db, alias.as_str(), room_id.as_str(), creator.as_str()).await? {
            return Err(CreateAliasError::Taken);
        }
        Ok(())
    }

    /// Deletes an alias, and takes it out of the room's `m.room.canonical_alias` if the user may change that.
    ///
    /// # Errors
    /// See [`DeleteAliasError`].
    pub async fn delete_alias(
        &self,
        user_id: &UserId,
        authority: Authority,
        alias: &RoomAliasId,
    ) -> Result<(), DeleteAliasError> {
        let db = &self.shared.parts.db;
        let row = directory::find_alias(db, alias.as_str()).await?.ok_or(DeleteAliasError::NotFound)?;
        let room_id = <&RoomId>::try_from(row.room_id.as_str()).map_err(|_| DeleteAliasError::NotFound)?;
        let may_change = self.may_change_directory(room_id, user_id).await?;
        if row.creator != user_id.as_str() && authority == Authority::User && !may_change {
            return Err(DeleteAliasError::Forbidden);
        }
        if !directory::delete_alias(db, alias.as_str(), room_id.as_str()).await? {
            return Err(DeleteAliasError::NotFound);
        }
        if may_change {
            self.forget_canonical_alias(user_id, room_id, alias).await;
        }
        Ok(())
    }

    /// The aliases that this server gave to a room, for who is in it; for anybody when its history is for anybody.
    ///
    /// # Errors
    /// See [`ListAliasesError`].
    pub async fn list_aliases(
        &self,
        user_id: &UserId,
        room_id: &RoomId,
    ) -> Result<Vec<OwnedRoomAliasId>, ListAliasesError> {
        if self.find(room_id).await?.is_none() {
            return Err(ListAliasesError::UnknownRoom);
        }
        if !self.is_joined(room_id, user_id).await? && !self.is_world_readable(room_id).await? {
            return Err(ListAliasesError::NotInRoom);
        }
        let aliases = directory::list_aliases(&self.shared.parts.db, room_id.as_str()).await?;
        Ok(aliases.into_iter().filter_map(|alias| alias.try_into().ok()).collect())
    }

    pub(super) async fn is_joined(&self, room_id: &RoomId, user_id: &UserId) -> Result<bool, DbError> {
        Ok(self.membership(room_id, user_id).await?.as_deref() == Some("join"))
    }

    pub(super) async fn is_world_readable(&self, room_id: &RoomId) -> Result<bool, DbError> {
        #[derive(serde::Deserialize)]
        struct Content {
            history_visibility: String,
        }
        let content: Option<Content> = self.state_content(room_id, "m.room.history_visibility", "").await?;
        let visibility = content.map(|content| HistoryVisibility::parse(&content.history_visibility));
        Ok(visibility == Some(HistoryVisibility::WorldReadable))
    }

    /// Whether the user is in the room and has the power to set its `m.room.canonical_alias`, which is also what changes
    /// the directory.
    pub(super) async fn may_change_directory(&self, room_id: &RoomId, user_id: &UserId) -> Result<bool, DbError> {
        if !self.is_joined(room_id, user_id).await? {
            return Ok(false);
        }
        let Some(create) = self.state_event(room_id, "m.room.create", "").await? else { return Ok(false) };
        let levels = self.state_event(room_id, "m.room.power_levels", "").await?;
        let power = RoomPower::new(&create, levels.as_ref());
        Ok(power.can_send_state(user_id, &StateEventType::RoomCanonicalAlias))
    }

    /// The alias is gone whatever comes of this, and a room that still names it is no harm.
    async fn forget_canonical_alias(&self, user_id: &UserId, room_id: &RoomId, alias: &RoomAliasId) {
        let content = match self.state_content(room_id, "m.room.canonical_alias", "").await {
            Ok(content) => content.and_then(|content| without_alias(content, alias.as_str())),
            Err(error) => {
                tracing::warn!(%error, room.id = %room_id, "cannot read which alias the room shows");
                return;
            }
        };
        let Some(content) = content else { return };
        let draft = Draft::state(user_id, "m.room.canonical_alias", "", content);
        if let Err(error) = self.append(room_id, draft).await {
            tracing::warn!(%error, room.id = %room_id, "a deleted alias is still shown by its room");
        }
    }
}

/// The content of `m.room.canonical_alias` without `alias`; `None` when it does not name it.
fn without_alias(mut content: CanonicalJsonObject, alias: &str) -> Option<CanonicalJsonObject> {
    let is_it = |value: &CanonicalJsonValue| value.as_str() == Some(alias);
    let mut is_changed = false;
    if content.get("alias").is_some_and(is_it) {
        content.remove("alias");
        is_changed = true;
    }
    if let Some(CanonicalJsonValue::Array(alternatives)) = content.get_mut("alt_aliases") {
        let before = alternatives.len();
        alternatives.retain(|value| !is_it(value));
        is_changed |= alternatives.len() != before;
    }
    is_changed.then_some(content)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::object, *};

    #[test]
    fn a_deleted_alias_goes_and_everything_else_stays() {
        let without = |content| without_alias(object(content), "#a:example.org");
        assert_eq!(
            without(
                json!({ "alias": "#a:example.org", "alt_aliases": ["#b:example.org", "#a:example.org", 1], "x": 2 })
            ),
            Some(object(json!({ "alt_aliases": ["#b:example.org", 1], "x": 2 })))
        );
        assert_eq!(without(json!({ "alias": "#b:example.org", "alt_aliases": "nonsense" })), None);
    }
}
