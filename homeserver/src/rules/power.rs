//! Decides what a user's power in a room allows.

use std::collections::HashSet;

use ruma::{
    Int, OwnedUserId, UserId,
    events::{
        StateEventType, TimelineEventType,
        room::power_levels::{RoomPowerLevels, RoomPowerLevelsEventContent, UserPowerLevel},
    },
    power_levels::NotificationPowerLevels,
    room_version_rules::AuthorizationRules,
    state_res::events::{RoomCreateEvent, RoomPowerLevelsEvent, RoomPowerLevelsIntField},
};

use super::pdu::Pdu;

#[cfg(test)]
mod tests;

/// The effective power levels of a room, with the creators of a version 12 room above everyone.
#[derive(Clone, Debug)]
pub struct RoomPower {
    levels: RoomPowerLevels,
    creators: HashSet<OwnedUserId>,
}

impl RoomPower {
    /// Reads the room's power from its create event and its `m.room.power_levels` event, if it has one.
    ///
    /// A field that other servers filled with nonsense counts as absent; the authorization rules refuse it anyway.
    pub fn new(create: &Pdu, power_levels: Option<&Pdu>) -> Self {
        let rules = &create.room_version().rules().authorization;
        let creators = RoomCreateEvent::new(create)
            .creators(rules)
            .unwrap_or_else(|_| HashSet::from([create.sender().to_owned()]));
        let content = power_levels.map(|event| content_of(event, rules));
        let levels = RoomPowerLevels::new(content.into(), rules, creators.iter().cloned().collect::<Vec<_>>());
        Self { levels, creators }
    }

    /// The levels, with ruma's own questions such as `user_can_kick_user`.
    pub fn levels(&self) -> &RoomPowerLevels {
        &self.levels
    }

    /// The room's creators: in version 12 they have infinite power, before that level 100 while no levels are set.
    pub fn creators(&self) -> &HashSet<OwnedUserId> {
        &self.creators
    }

    /// A user's level.
    pub fn user_level(&self, user_id: &UserId) -> UserPowerLevel {
        self.levels.for_user(user_id)
    }

    /// The level needed to send an event of that type.
    pub fn event_level(&self, event_type: &str, is_state: bool) -> Int {
        let default = if is_state { self.levels.state_default } else { self.levels.events_default };
        self.levels.events.get(&TimelineEventType::from(event_type)).copied().unwrap_or(default)
    }

    /// Whether the user's level allows to send a message-like event of that type.
    pub fn can_send(&self, user_id: &UserId, event_type: &str) -> bool {
        self.user_level(user_id) >= self.event_level(event_type, false)
    }

    /// Whether the user's level allows to send a state event of that type.
    pub fn can_send_state(&self, user_id: &UserId, event_type: &StateEventType) -> bool {
        self.user_level(user_id) >= self.levels.for_state(event_type.clone())
    }

    /// Whether the user's level allows to invite.
    pub fn can_invite(&self, user_id: &UserId) -> bool {
        self.levels.user_can_invite(user_id)
    }

    /// Whether the user's level allows to kick that other user.
    pub fn can_kick(&self, user_id: &UserId, target: &UserId) -> bool {
        self.levels.user_can_kick_user(user_id, target)
    }

    /// Whether the user's level allows to ban that other user.
    pub fn can_ban(&self, user_id: &UserId, target: &UserId) -> bool {
        self.levels.user_can_ban_user(user_id, target)
    }

    /// Whether the user's level allows to unban that other user.
    pub fn can_unban(&self, user_id: &UserId, target: &UserId) -> bool {
        self.levels.user_can_unban_user(user_id, target)
    }

    /// Whether the user's level allows to redact events of users of other servers.
    pub fn can_redact_others(&self, user_id: &UserId) -> bool {
        self.levels.user_can_redact_event_of_other(user_id)
    }

    /// Whether the user may notify the whole room, the `room` entry of `notifications`.
    pub fn can_notify_room(&self, user_id: &UserId) -> bool {
        self.levels.user_can_trigger_room_notification(user_id)
    }
}

fn content_of(event: &Pdu, rules: &AuthorizationRules) -> RoomPowerLevelsEventContent {
    let event = RoomPowerLevelsEvent::new(event);
    let level = |field: RoomPowerLevelsIntField| {
        event.get_as_int_or_default(field, rules).unwrap_or_else(|_| field.default_value())
    };
    let mut content = RoomPowerLevelsEventContent::new(rules);
    content.ban = level(RoomPowerLevelsIntField::Ban);
    content.events_default = level(RoomPowerLevelsIntField::EventsDefault);
    content.invite = level(RoomPowerLevelsIntField::Invite);
    content.kick = level(RoomPowerLevelsIntField::Kick);
    content.redact = level(RoomPowerLevelsIntField::Redact);
    content.state_default = level(RoomPowerLevelsIntField::StateDefault);
    content.users_default = level(RoomPowerLevelsIntField::UsersDefault);
    content.events = event.events(rules).ok().flatten().unwrap_or_default();
    content.users = event.users(rules).ok().flatten().cloned().unwrap_or_default();
    content.notifications = NotificationPowerLevels::new();
    if let Some(room) = event.notifications(rules).ok().flatten().and_then(|levels| levels.get("room").copied()) {
        content.notifications.room = room;
    }
    content
}
