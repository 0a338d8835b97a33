//! Decides which events of a room's history a user or another server may see.
//!
//! Specification: client-server API, "Room history visibility".

use ruma::{ServerName, UserId, events::TimelineEventType};
use serde::Deserialize;

use super::{
    membership::{Membership, target_of},
    pdu::Pdu,
};

#[cfg(test)]
mod tests;

/// Who may see events sent while this is the room's setting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HistoryVisibility {
    /// Everyone.
    WorldReadable,
    /// Everyone who ever joins later. The setting of a room that has none.
    #[default]
    Shared,
    /// Members from their invite on.
    Invited,
    /// Members from their join on.
    Joined,
}

impl HistoryVisibility {
    /// The setting of that name; what is not understood counts as `shared`.
    pub fn parse(name: &str) -> Self {
        match name {
            "world_readable" => Self::WorldReadable,
            "invited" => Self::Invited,
            "joined" => Self::Joined,
            _ => Self::Shared,
        }
    }

    /// The name as it stands in events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WorldReadable => "world_readable",
            Self::Shared => "shared",
            Self::Invited => "invited",
            Self::Joined => "joined",
        }
    }

    /// The setting that an optional `m.room.history_visibility` event gives.
    pub fn after(pdu: Option<&Pdu>) -> Self {
        #[derive(Deserialize)]
        struct Content {
            history_visibility: String,
        }

        let content = pdu.and_then(|pdu| pdu.content_as::<Content>().ok());
        content.map(|content| Self::parse(&content.history_visibility)).unwrap_or_default()
    }
}

/// What was the case in the room just before an event.
#[derive(Clone, Copy, Debug)]
pub struct StateBefore {
    /// The room's history visibility.
    pub visibility: HistoryVisibility,
    /// The reader's membership.
    pub membership: Membership,
}

/// Whether the reader joined the room at any time after an event, be they in it now or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinedSince {
    /// They did.
    Yes,
    /// They did not.
    No,
}

/// Whether a user may see an event.
///
/// A change of the history visibility is seen under the old or the new setting, and one's own membership event under
/// the old or the new membership, whichever is more generous.
pub fn user_may_see(event: &Pdu, user_id: &UserId, before: StateBefore, joined_since: JoinedSince) -> bool {
    let visibility_after = visibility_change(event).unwrap_or(before.visibility);
    let membership_after = match target_of(event) {
        Some(target) if target == user_id => Membership::of(event).unwrap_or(before.membership),
        _ => before.membership,
    };
    [before.visibility, visibility_after].into_iter().any(|visibility| {
        [before.membership, membership_after].into_iter().any(|membership| allows(visibility, membership, joined_since))
    })
}

/// Whether another server, which is in the room, may see an event.
///
/// `visibility` and `memberships`, those of all users of that server, are as they were just before the event. An event
/// that a server may not see is sent to it redacted where the graph needs it.
pub fn server_may_see(
    event: &Pdu,
    server_name: &ServerName,
    visibility: HistoryVisibility,
    memberships: impl IntoIterator<Item = Membership>,
) -> bool {
    let visibility_after = visibility_change(event).unwrap_or(visibility);
    let of_event = target_of(event).filter(|target| target.server_name() == server_name).and(Membership::of(event));
    // A server with `shared` history is in the room now, so some user of it joined.
    let seen_by_joining = |visibility| allows(visibility, Membership::Leave, JoinedSince::Yes);
    if seen_by_joining(visibility) || seen_by_joining(visibility_after) {
        return true;
    }
    memberships.into_iter().chain(of_event).any(|membership| {
        allows(visibility, membership, JoinedSince::No) || allows(visibility_after, membership, JoinedSince::No)
    })
}

/// The new setting, if the event is one.
fn visibility_change(event: &Pdu) -> Option<HistoryVisibility> {
    let is_change = *event.kind() == TimelineEventType::RoomHistoryVisibility && event.state_key() == Some("");
    is_change.then(|| HistoryVisibility::after(Some(event)))
}

/// The five rules of the specification, in its order.
fn allows(visibility: HistoryVisibility, membership: Membership, joined_since: JoinedSince) -> bool {
    // 1. World-readable.
    visibility == HistoryVisibility::WorldReadable
        // 2. The user was in the room.
        || membership == Membership::Join
        // 3. Shared, and the user joined later.
        || (visibility == HistoryVisibility::Shared && joined_since == JoinedSince::Yes)
        // 4. Visible from the invite on, and the user was invited.
        || (visibility == HistoryVisibility::Invited && membership == Membership::Invite)
    // 5. Otherwise, deny.
}
