//! What the specification asks beyond the authorization rules when a client sets state or redacts.

use ruma::{CanonicalJsonValue, OwnedEventId, RoomId};
use serde::Deserialize;

use super::{AppendError, Draft, Rooms};
use crate::{
    params,
    rules::{auth::AuthError, power::RoomPower},
};

impl Rooms {
    /// Sets a state event for a local user.
    ///
    /// # Errors
    /// As [`Self::append`]; [`AppendError::BadAlias`] for an `m.room.canonical_alias` whose aliases do not lead to the
    /// room.
    pub async fn set_state(&self, room_id: &RoomId, draft: Draft<'_>) -> Result<OwnedEventId, AppendError> {
        if draft.event_type == "m.room.canonical_alias" && draft.state_key == Some("") {
            self.check_aliases(room_id, &draft).await?;
        }
        self.append(room_id, draft).await
    }

    /// A user redacts own events, or any with the power to. The authorization rules leave this to the sender's server.
    ///
    /// # Errors
    /// [`AppendError::UnknownEvent`] for an event that is not in the room.
    pub(super) async fn check_redaction(&self, room_id: &RoomId, draft: &Draft<'_>) -> Result<(), AppendError> {
        let target = match draft.redacts {
            Some(event_id) => self.find_event(event_id).await?,
            None => None,
        };
        let target = target.filter(|event| event.pdu.room_id() == room_id).ok_or(AppendError::UnknownEvent)?;
        if target.pdu.sender() == draft.sender {
            return Ok(());
        }
        let create = self.state_event(room_id, "m.room.create", "").await?.ok_or(AppendError::UnknownRoom)?;
        let levels = self.state_event(room_id, "m.room.power_levels", "").await?;
        if RoomPower::new(&create, levels.as_ref()).can_redact_others(draft.sender) {
            return Ok(());
        }
        Err(AuthError { reason: "redacting the events of others needs more power".to_owned() }.into())
    }

    /// Each alias that is new in the event must be one of ours that leads to the room. The specification, client-server
    /// API, "m.room.canonical_alias".
    async fn check_aliases(&self, room_id: &RoomId, draft: &Draft<'_>) -> Result<(), AppendError> {
        #[derive(Default, Deserialize)]
        struct Content {
            alias: Option<String>,
            #[serde(default)]
            alt_aliases: Vec<String>,
        }
        let text = |value: &CanonicalJsonValue| value.as_str().map(ToOwned::to_owned);
        let named = draft.content.get("alias").and_then(text).into_iter();
        let alternatives = draft.content.get("alt_aliases").and_then(CanonicalJsonValue::as_array).unwrap_or(&[]);
        let old: Content = self.state_content(room_id, "m.room.canonical_alias", "").await?.unwrap_or_default();
        for alias in named.chain(alternatives.iter().filter_map(text)) {
            if old.alias.as_ref() == Some(&alias) || old.alt_aliases.contains(&alias) {
                continue;
            }
            let sql = "SELECT 1 FROM room_aliases WHERE alias = $1 AND room_id = $2";
            let db = &self.shared.parts.db;
            if alias.contains('\0') || db.query_opt(sql, params![alias.as_str(), room_id.as_str()]).await?.is_none() {
                return Err(AppendError::BadAlias(alias));
            }
        }
        Ok(())
    }
}
