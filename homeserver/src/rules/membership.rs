//! Decides what a membership is, and whether a user may ask for another one.
//!
//! The authorization rules have the last word. What is decided here tells a client in one sentence why not, before an
//! event is made.

use std::fmt;

use ruma::{OwnedUserId, ServerName, UserId, events::TimelineEventType};

use super::pdu::Pdu;

#[cfg(test)]
mod tests;

/// A user's membership of a room. A user without an `m.room.member` event counts as having left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Membership {
    /// In the room.
    Join,
    /// Invited to the room.
    Invite,
    /// Not in the room, or never was.
    #[default]
    Leave,
    /// Banned from the room.
    Ban,
    /// Asked to be let in.
    Knock,
}

impl Membership {
    /// The membership of that name.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "join" => Some(Self::Join),
            "invite" => Some(Self::Invite),
            "leave" => Some(Self::Leave),
            "ban" => Some(Self::Ban),
            "knock" => Some(Self::Knock),
            _ => None,
        }
    }

    /// The name as it stands in events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Invite => "invite",
            Self::Leave => "leave",
            Self::Ban => "ban",
            Self::Knock => "knock",
        }
    }

    /// The membership that an `m.room.member` event gives; `None` for other events and unknown memberships.
    pub fn of(pdu: &Pdu) -> Option<Self> {
        (*pdu.kind() == TimelineEventType::RoomMember).then(|| MemberContent::of(pdu).membership).flatten()
    }

    /// The membership after an optional `m.room.member` event: [`Membership::Leave`] when there is none.
    pub fn after(pdu: Option<&Pdu>) -> Self {
        pdu.and_then(Self::of).unwrap_or_default()
    }
}

impl fmt::Display for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The user whose membership an `m.room.member` event is about.
pub fn target_of(pdu: &Pdu) -> Option<&UserId> {
    if *pdu.kind() != TimelineEventType::RoomMember {
        return None;
    }
    pdu.state_key()?.try_into().ok()
}

/// The content of an `m.room.member` event, as far as it makes sense. Other servers may send anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberContent {
    /// The membership, if it is a known one.
    pub membership: Option<Membership>,
    /// The display name.
    pub displayname: Option<String>,
    /// The avatar, as it stands there.
    pub avatar_url: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// Whether an invite is to a direct chat.
    pub is_direct: bool,
    /// The user whose server allowed a restricted join.
    pub join_authorised_via_users_server: Option<OwnedUserId>,
}

impl MemberContent {
    /// Reads the content of an `m.room.member` event. Fields of the wrong type count as absent.
    pub fn of(pdu: &Pdu) -> Self {
        let fields: serde_json::Map<String, serde_json::Value> = pdu.content_as().unwrap_or_default();
        let text = |name: &str| fields.get(name).and_then(|value| value.as_str());
        Self {
            membership: text("membership").and_then(Membership::parse),
            displayname: text("displayname").map(ToOwned::to_owned),
            avatar_url: text("avatar_url").map(ToOwned::to_owned),
            reason: text("reason").map(ToOwned::to_owned),
            is_direct: fields.get("is_direct").and_then(serde_json::Value::as_bool).unwrap_or(false),
            join_authorised_via_users_server: text("join_authorised_via_users_server")
                .and_then(|user_id| UserId::parse(user_id).ok()),
        }
    }
}

/// What a user asks to do to a membership, their own or another user's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberAction {
    /// Join.
    Join,
    /// Invite another user.
    Invite,
    /// Leave, reject an invite, or take back a knock.
    Leave,
    /// Remove another user.
    Kick,
    /// Ban another user.
    Ban,
    /// Lift a ban.
    Unban,
    /// Ask to be let in.
    Knock,
    /// Forget a room one is no longer in.
    Forget,
}

/// Why a membership does not allow an action, whatever the power of the one who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransitionError {
    /// The user is banned.
    #[error("the user is banned from the room")]
    Banned,
    /// The user is already in the room.
    #[error("the user is already in the room")]
    AlreadyJoined,
    /// The user has an invite already.
    #[error("the user is already invited to the room")]
    AlreadyInvited,
    /// The user is neither in the room nor about to be.
    #[error("the user is not in the room")]
    NotInRoom,
    /// The user is not banned.
    #[error("the user is not banned from the room")]
    NotBanned,
    /// The user is in the room and cannot forget it.
    #[error("the user is still in the room")]
    StillInRoom,
}

/// Whether a user of that membership can be the object of that action.
///
/// # Errors
///
/// The fact that stands against it.
pub fn check_action(current: Membership, action: MemberAction) -> Result<(), TransitionError> {
    use Membership as M;
    use TransitionError as E;

    match (action, current) {
        (MemberAction::Join | MemberAction::Invite | MemberAction::Knock, M::Ban) => Err(E::Banned),
        (MemberAction::Invite | MemberAction::Knock, M::Join) => Err(E::AlreadyJoined),
        (MemberAction::Knock, M::Invite) => Err(E::AlreadyInvited),
        (MemberAction::Join | MemberAction::Invite | MemberAction::Knock, _) => Ok(()),
        (MemberAction::Leave | MemberAction::Kick, M::Join | M::Invite | M::Knock) => Ok(()),
        (MemberAction::Leave | MemberAction::Kick, M::Leave | M::Ban) => Err(E::NotInRoom),
        (MemberAction::Ban, _) | (MemberAction::Unban, M::Ban) => Ok(()),
        (MemberAction::Unban, _) => Err(E::NotBanned),
        (MemberAction::Forget, M::Leave | M::Ban) => Ok(()),
        (MemberAction::Forget, _) => Err(E::StillInRoom),
    }
}

/// Why what another server sent as an invite must not be signed: `M_INVALID_PARAM`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InviteError {
    /// It is no `m.room.member` event that invites.
    #[error("the event is not an invite")]
    NotAnInvite,
    /// Its sender is of another server than the one that sent it.
    #[error("the invite's sender is not a user of the server that sent it")]
    ForeignSender,
    /// It invites a user of another server.
    #[error("the invited user is not of this server")]
    ForeignTarget,
}

/// Whether an event that another server asks this one to sign is an invite of a user of this server, and nothing else.
///
/// Signatures are checked apart. Specification: server-server API, `PUT /_matrix/federation/v2/invite`.
///
/// # Errors
///
/// What the event is instead.
pub fn check_received_invite(event: &Pdu, origin: &ServerName, this_server: &ServerName) -> Result<(), InviteError> {
    if Membership::of(event) != Some(Membership::Invite) {
        return Err(InviteError::NotAnInvite);
    }
    if event.sender().server_name() != origin {
        return Err(InviteError::ForeignSender);
    }
    match target_of(event) {
        Some(target) if target.server_name() == this_server => Ok(()),
        _ => Err(InviteError::ForeignTarget),
    }
}
