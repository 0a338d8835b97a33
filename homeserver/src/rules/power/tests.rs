use ruma::int;
use serde_json::json;

use super::*;
use crate::rules::{
    room_version::RoomVersion,
    testing::{ALICE, BOB, CREATOR, Room, user},
};

fn power(room: &Room) -> RoomPower {
    let create = room.at(&StateEventType::RoomCreate, "").expect("a room has a create event");
    RoomPower::new(&create, room.at(&StateEventType::RoomPowerLevels, "").as_ref())
}

fn with_levels(version: RoomVersion, content: serde_json::Value) -> RoomPower {
    let mut room = Room::public(version);
    room.add(room.event(CREATOR, "m.room.power_levels", Some(""), content));
    power(&room)
}

#[test]
fn a_room_without_levels_gives_its_creator_all_and_others_nothing() {
    for version in RoomVersion::ALL {
        let power = power(&Room::bare(version, json!({})));
        let expected =
            if version >= RoomVersion::V12 { UserPowerLevel::Infinite } else { UserPowerLevel::Int(int!(100)) };
        assert_eq!(power.user_level(user(CREATOR)), expected, "{version}");
        assert_eq!(power.user_level(user(BOB)), UserPowerLevel::Int(int!(0)));
        assert!(power.can_send(user(BOB), "m.room.message"));
        assert!(!power.can_send_state(user(BOB), &StateEventType::RoomTopic));
        assert!(power.can_invite(user(BOB)));
        assert!(power.can_kick(user(CREATOR), user(BOB)));
        assert!(!power.can_kick(user(BOB), user(CREATOR)));
    }
}

#[test]
fn creators_of_version_12_stand_above_every_number() {
    let mut room = Room::bare(RoomVersion::V12, json!({ "additional_creators": [ALICE] }));
    room.add(room.event(
        CREATOR,
        "m.room.power_levels",
        Some(""),
        json!({ "users": { BOB: 9_007_199_254_740_991_i64 } }),
    ));
    let power = power(&room);
    for creator in [CREATOR, ALICE] {
        assert_eq!(power.user_level(user(creator)), UserPowerLevel::Infinite);
        assert!(power.can_ban(user(creator), user(BOB)));
        assert!(!power.can_ban(user(BOB), user(creator)));
    }
    assert_eq!(power.creators().len(), 2);
    // Creators cannot remove each other.
    assert!(!power.can_kick(user(CREATOR), user(ALICE)));
}

#[test]
fn levels_are_read_with_their_defaults() {
    let power = with_levels(
        RoomVersion::V11,
        json!({ "users": { ALICE: 60 }, "events": { "m.room.topic": 70, "m.reaction": 10 }, "events_default": 5,
                "users_default": 7, "redact": 80, "notifications": { "room": 61, "other": 3 } }),
    );
    assert_eq!(power.event_level("m.room.topic", true), int!(70));
    assert_eq!(power.event_level("m.room.name", true), int!(50));
    assert_eq!(power.event_level("m.reaction", false), int!(10));
    assert_eq!(power.event_level("m.room.message", false), int!(5));
    assert!(power.can_send(user(BOB), "m.room.message"));
    assert!(!power.can_send(user(BOB), "m.reaction"));
    assert!(power.can_ban(user(ALICE), user(BOB)) && power.can_unban(user(ALICE), user(BOB)));
    assert!(!power.can_redact_others(user(ALICE)));
    assert!(!power.can_notify_room(user(ALICE)));
}

#[test]
fn nonsense_counts_as_absent_and_strings_count_until_version_9() {
    let odd =
        json!({ "users": { ALICE: "60" }, "ban": "55", "kick": [], "events": 3, "notifications": { "room": "x" } });
    let old = with_levels(RoomVersion::V9, odd.clone());
    assert_eq!(old.user_level(user(ALICE)), UserPowerLevel::Int(int!(60)));
    assert_eq!(old.levels().ban, int!(55));
    assert_eq!(old.levels().kick, int!(50));
    let new = with_levels(RoomVersion::V10, odd);
    assert_eq!(new.user_level(user(ALICE)), UserPowerLevel::Int(int!(0)));
    assert_eq!(new.levels().ban, int!(50));
    assert_eq!(new.levels().notifications.room, int!(50));
}
