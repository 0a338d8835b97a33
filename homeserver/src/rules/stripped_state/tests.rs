use serde_json::{Value, json};

use super::*;
use crate::rules::{
    room_version::RoomVersion,
    testing::{CREATOR, Room},
};

fn raw(value: &Value) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).expect("JSON")
}

#[test]
fn stripped_events_have_four_fields() {
    let room = Room::public(RoomVersion::V12);
    let name = room.event(CREATOR, "m.room.name", Some(""), json!({ "name": "A \"room\"" }));
    let stripped = strip(&name).expect("a state event");
    let seen: Value = serde_json::from_str(stripped.get()).expect("JSON");
    assert_eq!(
        seen,
        json!({ "content": { "name": "A \"room\"" }, "sender": CREATOR, "state_key": "", "type": "m.room.name" })
    );
    assert!(strip(&room.event(CREATOR, "m.room.message", None, json!({}))).is_none());

    // A whole event from another server ends as the same four fields.
    let pruned = prune(&raw(&serde_json::from_str(name.json()).expect("JSON"))).expect("has the fields");
    assert_eq!(pruned.get(), stripped.get());
    assert_eq!(list([&*pruned, &*stripped]).get(), format!("[{0},{0}]", stripped.get()));
}

#[test]
fn what_is_no_stripped_state_is_left_out() {
    for bad in [
        json!(null),
        json!([]),
        json!({ "type": "m.room.name", "sender": CREATOR, "content": {} }),
        json!({ "type": "m.room.name", "sender": CREATOR, "content": "text", "state_key": "" }),
        json!({ "type": 3, "sender": CREATOR, "content": {}, "state_key": "" }),
    ] {
        assert!(prune(&raw(&bad)).is_none(), "{bad}");
    }
}

#[test]
fn an_invite_brings_the_create_event_of_its_room() {
    for version in RoomVersion::ALL {
        let room = Room::public(version);
        let raw_events: Vec<_> =
            room.events.values().map(|event| RawValue::from_string(event.json().to_owned()).expect("JSON")).collect();
        let create = room.at(&"m.room.create".into(), "").expect("a room has a create event");
        let read =
            |entries: &[Box<RawValue>]| whole_events(version, create.room_id(), entries.iter().map(|entry| &**entry));
        assert_eq!(read(&raw_events).expect("all of the room").len(), room.events.len());
        assert!(matches!(read(&[]), Err(InviteStateError::NoCreate)));
        assert!(matches!(read(&[raw(&json!({ "type": "m.room.create" }))]), Err(InviteStateError::Malformed(_))));
        let other = whole_events(version, "!other:one.example".try_into().expect("an id"), [&*raw_events[0]]);
        assert!(matches!(other, Err(InviteStateError::AnotherRoom)));
    }
}
