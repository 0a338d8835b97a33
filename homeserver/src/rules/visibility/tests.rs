use serde_json::json;

use super::*;
use crate::rules::{
    room_version::RoomVersion,
    testing::{ALICE, BOB, CREATOR, Room, user},
};

const ALL: [HistoryVisibility; 4] = [
    HistoryVisibility::WorldReadable,
    HistoryVisibility::Shared,
    HistoryVisibility::Invited,
    HistoryVisibility::Joined,
];

fn before(visibility: HistoryVisibility, membership: Membership) -> StateBefore {
    StateBefore { visibility, membership }
}

#[test]
fn messages_are_seen_by_the_five_rules() {
    let message = Room::public(RoomVersion::V12).event(CREATOR, "m.room.message", None, json!({}));
    let sees =
        |visibility, membership, since| user_may_see(&message, user(ALICE), before(visibility, membership), since);
    for since in [JoinedSince::Yes, JoinedSince::No] {
        for visibility in ALL {
            assert!(sees(visibility, Membership::Join, since));
            let invited = sees(visibility, Membership::Invite, since);
            let left = sees(visibility, Membership::Leave, since);
            let banned = sees(visibility, Membership::Ban, since);
            let expected = match visibility {
                HistoryVisibility::WorldReadable => [true, true, true],
                HistoryVisibility::Shared => [since == JoinedSince::Yes; 3],
                HistoryVisibility::Invited => [true, false, false],
                HistoryVisibility::Joined => [false, false, false],
            };
            assert_eq!([invited, left, banned], expected, "{visibility:?} {since:?}");
        }
    }
}

#[test]
fn a_change_of_visibility_is_seen_before_or_after() {
    let room = Room::public(RoomVersion::V12);
    let to =
        |name: &str| room.event(CREATOR, "m.room.history_visibility", Some(""), json!({ "history_visibility": name }));
    let sees = |event: &Pdu, visibility| {
        user_may_see(event, user(ALICE), before(visibility, Membership::Leave), JoinedSince::No)
    };
    assert!(sees(&to("world_readable"), HistoryVisibility::Joined));
    assert!(sees(&to("joined"), HistoryVisibility::WorldReadable));
    assert!(!sees(&to("joined"), HistoryVisibility::Invited));
}

#[test]
fn ones_own_membership_is_seen_before_or_after() {
    let room = Room::public(RoomVersion::V12);
    let member = |who: &str, membership: &str| {
        room.event(CREATOR, "m.room.member", Some(who), json!({ "membership": membership }))
    };
    let sees = |event: &Pdu, membership| {
        user_may_see(event, user(ALICE), before(HistoryVisibility::Joined, membership), JoinedSince::No)
    };
    assert!(sees(&member(ALICE, "join"), Membership::Leave));
    assert!(sees(&member(ALICE, "leave"), Membership::Join));
    assert!(!sees(&member(ALICE, "invite"), Membership::Leave));
    assert!(!sees(&member(BOB, "join"), Membership::Leave));
}

#[test]
fn a_server_sees_what_any_of_its_users_sees() {
    let room = Room::public(RoomVersion::V12);
    let message = room.event(CREATOR, "m.room.message", None, json!({}));
    let server = user(BOB).server_name();
    let sees = |visibility, memberships: &[Membership]| {
        server_may_see(&message, server, visibility, memberships.iter().copied())
    };
    assert!(sees(HistoryVisibility::WorldReadable, &[]));
    assert!(sees(HistoryVisibility::Shared, &[]));
    assert!(!sees(HistoryVisibility::Invited, &[]));
    assert!(sees(HistoryVisibility::Invited, &[Membership::Leave, Membership::Invite]));
    assert!(!sees(HistoryVisibility::Joined, &[Membership::Leave, Membership::Invite]));
    assert!(sees(HistoryVisibility::Joined, &[Membership::Leave, Membership::Join]));

    let join = room.event(BOB, "m.room.member", Some(BOB), json!({ "membership": "join" }));
    assert!(server_may_see(&join, server, HistoryVisibility::Joined, []));
    assert!(!server_may_see(&join, user(ALICE).server_name(), HistoryVisibility::Joined, []));
}

#[test]
fn what_is_not_understood_is_shared() {
    let room = Room::public(RoomVersion::V12);
    for content in [json!({}), json!({ "history_visibility": 3 }), json!({ "history_visibility": "org.example.x" })] {
        let event = room.event(CREATOR, "m.room.history_visibility", Some(""), content);
        assert_eq!(HistoryVisibility::after(Some(&event)), HistoryVisibility::Shared);
    }
    assert_eq!(HistoryVisibility::after(None), HistoryVisibility::Shared);
    for visibility in ALL {
        assert_eq!(HistoryVisibility::parse(visibility.as_str()), visibility);
    }
}
