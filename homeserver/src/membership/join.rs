//! Joins and knocks.

use ruma::{CanonicalJsonObject, OwnedServerName, OwnedUserId, RoomId, UserId};
use serde::Deserialize;

use super::{Membership, MembershipError, with_reason};
use crate::{
    rooms::Current,
    rules::{membership::Membership as State, power::RoomPower},
};

/// The content of `m.room.join_rules`, as far as joins need it.
#[derive(Debug, Default, Deserialize)]
struct JoinRules {
    #[serde(default)]
    join_rule: String,
    #[serde(default)]
    allow: Vec<AllowRule>,
}

#[derive(Debug, Deserialize)]
struct AllowRule {
    #[serde(rename = "type")]
    kind: String,
    room_id: Option<String>,
}

impl Membership {
    /// Joins a room; through one of `servers` when this server takes no part in it.
    ///
    /// # Errors
    /// [`MembershipError::UnknownRoom`], [`MembershipError::ConditionsNotMet`], and those of appending.
    pub async fn join(
        &self,
        user_id: &UserId,
        room_id: &RoomId,
        servers: &[OwnedServerName],
        reason: Option<&str>,
    ) -> Result<(), MembershipError> {
        let current = self.shared.rooms.find(room_id).await?;
        let content = with_reason(self.profile(user_id).await?.membership("join"), reason);
        match current {
            Some(current) if current.is_resident => self.join_here(user_id, room_id, &current, content).await,
            _ => self.join_afar(user_id, room_id, servers, content).await,
        }
    }

    /// Knocks on a room.
    ///
    /// # Errors
    /// [`MembershipError::NoKnocks`], and those of appending.
    pub async fn knock(
        &self,
        user_id: &UserId,
        room_id: &RoomId,
        servers: &[OwnedServerName],
        reason: Option<&str>,
    ) -> Result<(), MembershipError> {
        let content = with_reason(self.profile(user_id).await?.membership("knock"), reason);
        let Some(current) = self.shared.rooms.find(room_id).await? else {
            return self.knock_afar(user_id, room_id, servers, content).await;
        };
        if !current.is_resident {
            return self.knock_afar(user_id, room_id, servers, content).await;
        }
        let takes_knocks = current.room_version.rules().authorization.knocking;
        let rules = self.join_rules(room_id).await?;
        if !takes_knocks || !matches!(rules.join_rule.as_str(), "knock" | "knock_restricted") {
            return Err(MembershipError::NoKnocks);
        }
        self.append(user_id, room_id, user_id, content).await?;
        Ok(())
    }

    pub(super) async fn join_here(
        &self,
        user_id: &UserId,
        room_id: &RoomId,
        current: &Current,
        mut content: CanonicalJsonObject,
    ) -> Result<(), MembershipError> {
        match self.state_of(room_id, user_id).await? {
            State::Join => return Ok(()),
            State::Ban => return Err(MembershipError::Banned),
            // An invite is enough for any join rule.
            State::Invite => {}
            _ => {
                if let Some(authoriser) = self.authoriser(user_id, room_id, current).await? {
                    content.insert("join_authorised_via_users_server".to_owned(), authoriser.as_str().into());
                }
            }
        }
        self.append(user_id, room_id, user_id, content).await?;
        Ok(())
    }

    /// For a restricted room, the user of this server in whose name the join is allowed; `None` for other rooms. The
    /// specification, client-server API, "Restricted rooms".
    async fn authoriser(
        &self,
        user_id: &UserId,
        room_id: &RoomId,
        current: &Current,
    ) -> Result<Option<OwnedUserId>, MembershipError> {
        let rules = self.join_rules(room_id).await?;
        let knows_restricted = current.room_version.rules().authorization.restricted_join_rule;
        if !knows_restricted || !matches!(rules.join_rule.as_str(), "restricted" | "knock_restricted") {
            return Ok(None);
        }
        if !self.meets_a_condition(user_id, &rules).await? {
            return Err(MembershipError::ConditionsNotMet);
        }
        let create = self.shared.rooms.state_event(room_id, "m.room.create", "").await?;
        let levels = self.shared.rooms.state_event(room_id, "m.room.power_levels", "").await?;
        let Some(create) = create else { return Err(MembershipError::UnknownRoom) };
        let power = RoomPower::new(&create, levels.as_ref());
        let members: Vec<OwnedUserId> = current
            .state
            .of_type("m.room.member")
            .filter_map(|(user_id, _)| <&UserId>::try_from(user_id).ok())
            .filter(|user_id| self.shared.rooms.is_local(user_id) && power.can_invite(user_id))
            .map(ToOwned::to_owned)
            .collect();
        for member in members {
            if self.state_of(room_id, &member).await? == State::Join {
                return Ok(Some(member));
            }
        }
        Err(MembershipError::CannotAuthorise)
    }

    async fn meets_a_condition(&self, user_id: &UserId, rules: &JoinRules) -> Result<bool, MembershipError> {
        let rooms = rules.allow.iter().filter(|rule| rule.kind == "m.room_membership");
        for room_id in rooms.filter_map(|rule| rule.room_id.as_deref()) {
            let Ok(room_id) = <&RoomId>::try_from(room_id) else { continue };
            // Who is in a room that this server is not in any more, nobody here knows.
            let is_known = self.shared.rooms.find(room_id).await?.is_some_and(|room| room.is_resident);
            if is_known && self.state_of(room_id, user_id).await? == State::Join {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn join_rules(&self, room_id: &RoomId) -> Result<JoinRules, MembershipError> {
        Ok(self.shared.rooms.state_content(room_id, "m.room.join_rules", "").await?.unwrap_or_default())
    }
}
