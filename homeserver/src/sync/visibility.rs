//! Decides which events of a room's history a user sees, from how the room's setting and the user's membership changed.
//!
//! The room's local order stands for "before": it is the order in which this server took the events in.

use ruma::UserId;

use crate::{
    rules::{
        membership::Membership,
        visibility::{HistoryVisibility, JoinedSince, StateBefore, user_may_see},
    },
    storage::{event_cache::CachedEvent, timeline::Placed},
};

/// How the two things that decide changed over time in one room. Outliers stand before everything: they are what was
/// the case when this server came into the room.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    settings: Vec<(i64, HistoryVisibility)>,
    memberships: Vec<(i64, Membership)>,
}

impl History {
    /// Takes in the events of one room that [`crate::storage::timeline::visibility_history`] answers.
    pub(super) fn of<'a>(events: impl IntoIterator<Item = &'a Placed>) -> Self {
        let mut settings = Vec::new();
        let mut memberships = Vec::new();
        for Placed { event, .. } in events {
            // Of several outliers the deepest is the newest.
            let at = (event.position.unwrap_or(i64::MIN), event.pdu.depth());
            match Membership::of(&event.pdu) {
                Some(membership) => memberships.push((at, membership)),
                None if event.pdu.event_type() == "m.room.history_visibility" => {
                    settings.push((at, HistoryVisibility::after(Some(&event.pdu))));
                }
                None => {}
            }
        }
        settings.sort_by_key(|(at, _)| *at);
        memberships.sort_by_key(|(at, _)| *at);
        Self {
            settings: settings.into_iter().map(|((position, _), setting)| (position, setting)).collect(),
            memberships: memberships.into_iter().map(|((position, _), membership)| (position, membership)).collect(),
        }
    }

    /// Whether the user may see an event of this room.
    pub(super) fn allows(&self, event: &CachedEvent, user_id: &UserId) -> bool {
        // An outlier is part of a state; who sees the state sees it.
        let Some(position) = event.position else { return true };
        let joined_since =
            if self.memberships.iter().any(|(at, membership)| *at > position && *membership == Membership::Join)
                || self.membership_before(position) == Membership::Join
            {
                JoinedSince::Yes
            } else {
                JoinedSince::No
            };
        let before =
            StateBefore { visibility: before(&self.settings, position), membership: self.membership_before(position) };
        user_may_see(&event.pdu, user_id, before, joined_since)
    }

    /// The user's membership just before a position.
    pub(super) fn membership_before(&self, position: i64) -> Membership {
        before(&self.memberships, position)
    }

    /// The user's membership right after a position, as an event at it sees it.
    pub(super) fn membership_at(&self, position: i64) -> Membership {
        before(&self.memberships, position.saturating_add(1))
    }

    /// Whether the user ever was in the room.
    pub(super) fn ever_joined(&self) -> bool {
        self.memberships.iter().any(|(_, membership)| *membership == Membership::Join)
    }

    /// Whether the room is open to everybody now.
    pub(super) fn is_world_readable(&self) -> bool {
        self.settings.last().is_some_and(|(_, setting)| *setting == HistoryVisibility::WorldReadable)
    }
}

fn before<T: Copy + Default>(list: &[(i64, T)], position: i64) -> T {
    let index = list.partition_point(|(at, _)| *at < position);
    index.checked_sub(1).and_then(|index| list.get(index)).map(|(_, value)| *value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_the_case_is_what_changed_last_before() {
        let history = History {
            settings: vec![(i64::MIN, HistoryVisibility::Shared), (5, HistoryVisibility::Joined)],
            memberships: vec![
                (3, Membership::Invite),
                (4, Membership::Join),
                (8, Membership::Join),
                (9, Membership::Leave),
            ],
        };
        assert_eq!(before(&history.settings, -100), HistoryVisibility::Shared);
        assert_eq!(before(&history.settings, 5), HistoryVisibility::Shared);
        assert_eq!(before(&history.settings, 6), HistoryVisibility::Joined);
        assert_eq!(history.membership_before(3), Membership::Leave);
        assert_eq!(history.membership_at(3), Membership::Invite);
        assert!(history.ever_joined() && !History::default().ever_joined());
    }
}
