use serde_json::json;

use super::*;
use crate::rules::{
    room_version::RoomVersion,
    testing::{ALICE, BOB, CAROL, CREATOR, Room, user},
};

#[test]
fn member_content_survives_nonsense() {
    let room = Room::public(RoomVersion::V12);
    let event = room.event(
        ALICE,
        "m.room.member",
        Some(ALICE),
        json!({ "membership": "join", "displayname": 3, "avatar_url": "mxc://a/b", "is_direct": "yes", "reason": null }),
    );
    let content = MemberContent::of(&event);
    assert_eq!(content.membership, Some(Membership::Join));
    assert_eq!(content.displayname, None);
    assert_eq!(content.avatar_url.as_deref(), Some("mxc://a/b"));
    assert!(!content.is_direct);
    assert_eq!(target_of(&event).map(UserId::as_str), Some(ALICE));
    let event = room.event(ALICE, "m.room.member", Some(ALICE), json!({ "membership": ["join"] }));
    assert_eq!(Membership::of(&event), None);
    assert_eq!(Membership::after(None), Membership::Leave);
}

#[test]
fn only_member_events_have_a_membership() {
    let room = Room::public(RoomVersion::V12);
    let event = room.event(CREATOR, "m.room.message", None, json!({ "membership": "join" }));
    assert_eq!(Membership::of(&event), None);
    assert_eq!(target_of(&event), None);
}

#[test]
fn actions_are_refused_by_the_fact_that_stands_against_them() {
    use MemberAction as A;
    use Membership as M;
    use TransitionError as E;

    assert_eq!(check_action(M::Ban, A::Join), Err(E::Banned));
    assert_eq!(check_action(M::Join, A::Join), Ok(()));
    assert_eq!(check_action(M::Join, A::Invite), Err(E::AlreadyJoined));
    assert_eq!(check_action(M::Invite, A::Invite), Ok(()));
    assert_eq!(check_action(M::Invite, A::Knock), Err(E::AlreadyInvited));
    assert_eq!(check_action(M::Leave, A::Leave), Err(E::NotInRoom));
    assert_eq!(check_action(M::Knock, A::Kick), Ok(()));
    assert_eq!(check_action(M::Leave, A::Unban), Err(E::NotBanned));
    assert_eq!(check_action(M::Ban, A::Unban), Ok(()));
    assert_eq!(check_action(M::Join, A::Forget), Err(E::StillInRoom));
    for name in ["join", "invite", "leave", "ban", "knock"] {
        assert_eq!(Membership::parse(name).map(Membership::as_str), Some(name));
    }
}

#[test]
fn only_invites_of_our_users_by_their_own_server_are_signed() {
    let room = Room::public(RoomVersion::V12);
    let check = |sender: &str, target: &str, membership: &str| {
        let event = room.event(sender, "m.room.member", Some(target), json!({ "membership": membership }));
        check_received_invite(&event, user(CREATOR).server_name(), user(BOB).server_name())
    };
    assert_eq!(check(CREATOR, BOB, "invite"), Ok(()));
    assert_eq!(check(CREATOR, BOB, "ban"), Err(InviteError::NotAnInvite));
    assert_eq!(check(CAROL, BOB, "invite"), Err(InviteError::ForeignSender));
    assert_eq!(check(CREATOR, CAROL, "invite"), Err(InviteError::ForeignTarget));
    let message = room.event(CREATOR, "m.room.message", Some(BOB), json!({ "membership": "invite" }));
    assert_eq!(
        check_received_invite(&message, user(CREATOR).server_name(), user(BOB).server_name()),
        Err(InviteError::NotAnInvite)
    );
}
