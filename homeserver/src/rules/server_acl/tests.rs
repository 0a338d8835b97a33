use serde_json::json;

use super::*;
use crate::rules::{
    room_version::RoomVersion,
    testing::{CREATOR, Room},
};

fn allows(content: Value, server: &str) -> bool {
    let event = Room::public(RoomVersion::V12).event(CREATOR, "m.room.server_acl", Some(""), content);
    ServerAcl::new(Some(&event)).allows(server.try_into().expect("a server name"))
}

#[test]
fn a_room_without_a_list_lets_everyone_in_and_an_empty_list_no_one() {
    assert!(ServerAcl::new(None).allows("example.org".try_into().expect("a server name")));
    assert!(!allows(json!({}), "example.org"));
    assert!(!allows(json!({ "allow": "nonsense" }), "example.org"));
}

#[test]
fn deny_is_stronger_than_allow_and_ports_do_not_count() {
    let acl = json!({ "allow": ["*"], "deny": ["*.evil.example", "evil.example", 3], "allow_ip_literals": false });
    assert!(allows(acl.clone(), "good.example"));
    assert!(allows(acl.clone(), "notevil.example:8448"));
    assert!(!allows(acl.clone(), "evil.example:8448"));
    assert!(!allows(acl.clone(), "EVIL.example"));
    assert!(!allows(acl.clone(), "sub.evil.example"));
    assert!(!allows(acl.clone(), "1.2.3.4"));
    assert!(!allows(acl, "[2001:db8::1]:8448"));
    assert!(allows(json!({ "allow": ["1.2.3.?"] }), "1.2.3.4:80"));
}
