use serde_json::{Value, json};

use super::*;
use crate::rules::testing::{ALICE, BOB, CAROL, CREATOR, Room};
use ruma::events::StateEventType;

fn content_after(version: RoomVersion, event_type: &str, content: Value) -> Value {
    let event = Room::public(version).event(CREATOR, event_type, Some(""), content);
    let redacted = redact(&event).expect("a valid event");
    serde_json::from_str(redacted.content_json()).expect("content is JSON")
}

#[test]
fn redacting_twice_is_redacting_once_and_the_id_stays() {
    for version in RoomVersion::ALL {
        let mut room = Room::public(version);
        let mut all: Vec<_> = room.events.values().cloned().collect();
        all.push(room.send(CREATOR, "m.room.message", None, json!({ "body": "secret", "nested": { "a": [1] } })));
        for event in all {
            let once = redact(&event).expect("a valid event");
            let twice = redact(&once).expect("a valid event");
            assert_eq!(once.json(), twice.json());
            assert_eq!(once.event_id(), event.event_id());
            // The id follows from the redacted form, which is why a redaction does not change it.
            let read = Pdu::from_json_text(version, once.json()).expect("a redacted event is an event");
            assert_eq!(read.event_id(), event.event_id());
            assert!(!once.json().contains("secret"));
        }
    }
}

#[test]
fn what_is_kept_depends_on_the_room_version() {
    let levels = json!({ "ban": 1, "invite": 2, "notifications": {}, "users": {} });
    assert_eq!(
        content_after(RoomVersion::V10, "m.room.power_levels", levels.clone()),
        json!({ "ban": 1, "users": {} })
    );
    assert_eq!(
        content_after(RoomVersion::V11, "m.room.power_levels", levels),
        json!({ "ban": 1, "invite": 2, "users": {} })
    );
    let rules = json!({ "join_rule": "restricted", "allow": [], "x": 1 });
    assert_eq!(
        content_after(RoomVersion::V7, "m.room.join_rules", rules.clone()),
        json!({ "join_rule": "restricted" })
    );
    assert_eq!(
        content_after(RoomVersion::V8, "m.room.join_rules", rules),
        json!({ "join_rule": "restricted", "allow": [] })
    );
    let aliases = json!({ "aliases": ["#a:b"] });
    assert_eq!(content_after(RoomVersion::V5, "m.room.aliases", aliases.clone()), aliases);
    assert_eq!(content_after(RoomVersion::V6, "m.room.aliases", aliases), json!({}));
    let create = json!({ "creator": CREATOR, "room_version": "x", "m.federate": false });
    assert_eq!(content_after(RoomVersion::V10, "m.room.create", create.clone()), json!({ "creator": CREATOR }));
    assert_eq!(content_after(RoomVersion::V11, "m.room.create", create.clone()), create);
    let member = json!({ "membership": "join", "join_authorised_via_users_server": ALICE, "displayname": "A",
                         "third_party_invite": { "signed": { "a": 1 }, "display_name": "x" } });
    assert_eq!(content_after(RoomVersion::V8, "m.room.member", member.clone()), json!({ "membership": "join" }));
    assert_eq!(
        content_after(RoomVersion::V9, "m.room.member", member.clone()),
        json!({ "membership": "join", "join_authorised_via_users_server": ALICE })
    );
    assert_eq!(
        content_after(RoomVersion::V11, "m.room.member", member),
        json!({ "membership": "join", "join_authorised_via_users_server": ALICE,
                "third_party_invite": { "signed": { "a": 1 } } })
    );
}

#[test]
fn a_redaction_applies_by_power_or_by_the_same_server() {
    for version in RoomVersion::ALL {
        let mut room = Room::public(version);
        for member in [ALICE, BOB, CAROL] {
            room.join(member);
        }
        let message = room.send(BOB, "m.room.message", None, json!({ "body": "x" }));
        let create = room.at(&StateEventType::RoomCreate, "").expect("a room has a create event");
        let power = RoomPower::new(&create, room.at(&StateEventType::RoomPowerLevels, "").as_ref());
        let may = |sender: &str| {
            let redaction = room.redaction(sender, message.event_id());
            // In versions 1 and 2 the authorization rules decide, later anyone may send one.
            room.check(&redaction).is_ok() && may_apply_redaction(&redaction, &message, &power)
        };
        assert!(may(CREATOR), "{version}: the redact level");
        assert!(may(BOB), "{version}: the same server");
        assert!(!may(CAROL), "{version}: another server without the level");

        let redaction = room.redaction(CREATOR, message.event_id());
        assert!(!may_apply_redaction(&redaction.clone().with_rejected(true), &message, &power));
        assert!(!may_apply_redaction(&redaction, &create, &power), "another target");
    }
}
