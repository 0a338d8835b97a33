use serde_json::{Value, json};

use super::*;
use crate::rules::{
    canonical::to_object,
    membership::MemberContent,
    power::RoomPower,
    resolve::resolve,
    server_acl::ServerAcl,
    testing::{ALICE, BOB, CAROL, CREATOR, Room, key_pair, object},
    visibility::HistoryVisibility,
};

fn from(lowest: RoomVersion) -> impl Iterator<Item = RoomVersion> {
    RoomVersion::ALL.into_iter().filter(move |version| *version >= lowest)
}

fn member(membership: &str) -> Value {
    json!({ "membership": membership })
}

fn changed(pdu: &Pdu, change: impl FnOnce(&mut CanonicalJsonObject)) -> Pdu {
    let mut object = pdu.to_object();
    change(&mut object);
    Pdu::from_json(pdu.room_version(), object).expect("well-formed")
}

/// A public room where Alice has level 50, Bob level 0, and both are in it.
fn moderated(version: RoomVersion) -> Room {
    let mut room = Room::public(version);
    room.join(ALICE);
    room.join(BOB);
    let mut users = json!({ ALICE: 50 });
    if version < RoomVersion::V12 {
        users[CREATOR] = json!(100);
    }
    room.send(CREATOR, "m.room.power_levels", Some(""), json!({ "users": users, "invite": 50 }));
    room
}

fn levels(version: RoomVersion, alice: i64, more: Value) -> Value {
    let mut users = json!({ ALICE: alice });
    if version < RoomVersion::V12 {
        users[CREATOR] = json!(100);
    }
    let mut content = json!({ "users": users, "invite": 50 });
    for (key, value) in more.as_object().into_iter().flatten() {
        content[key] = value.clone();
    }
    content
}

#[test]
fn a_create_event_stands_alone() {
    for version in RoomVersion::ALL {
        let room = Room::bare(version, json!({}));
        let create = room.at(&StateEventType::RoomCreate, "").expect("a room has a create event");
        let judge = |pdu: &Pdu| check_independent(pdu, |_| None);
        assert_eq!(judge(&create), Ok(()), "{version}");

        let second = changed(&create, |event| {
            let reference = if version.event_id_is_in_event() { json!(["$x:y", {}]) } else { json!("$x") };
            event.insert("prev_events".to_owned(), serde_json::from_value(json!([reference])).expect("a list"));
        });
        assert!(judge(&second).is_err(), "{version}: prev_events");

        let other_version = changed(&create, |event| {
            let content = object(json!({ "room_version": "org.example.odd", "creator": CREATOR }));
            event.insert("content".to_owned(), content.into());
        });
        assert!(judge(&other_version).is_err(), "{version}: another room version");

        if version < RoomVersion::V12 {
            let other_domain = changed(&create, |event| {
                event.insert("room_id".to_owned(), "!room:two.example".into());
            });
            assert!(judge(&other_domain).is_err(), "{version}: the domain of the room id");
        }

        let no_creator = changed(&create, |event| {
            event.insert("content".to_owned(), object(json!({ "room_version": version.as_str() })).into());
        });
        assert_eq!(judge(&no_creator).is_ok(), version >= RoomVersion::V11, "{version}: creator");

        for odd in [json!("@a:b"), json!([1]), json!(["nonsense"])] {
            let content =
                object(json!({ "room_version": version.as_str(), "creator": CREATOR, "additional_creators": odd }));
            let creators = changed(&create, |event| {
                event.insert("content".to_owned(), content.into());
            });
            assert_eq!(judge(&creators).is_ok(), version < RoomVersion::V12, "{version}: additional creators");
        }
    }
}

#[test]
fn a_room_begins_once() {
    for version in RoomVersion::ALL.into_iter().filter(|version| *version < RoomVersion::V12) {
        let room = moderated(version);
        let create = room.at(&StateEventType::RoomCreate, "").expect("a room has a create event");
        let second = changed(&create, |event| {
            event.insert("sender".to_owned(), ALICE.into());
            if version.event_id_is_in_event() {
                event.insert("event_id".to_owned(), "$second:one.example".into());
            }
        });
        assert_eq!(check_independent(&second, |_| None), Ok(()));
        assert!(check_against_state(&second, |kind, key| room.at(kind, key)).is_err(), "{version}");
        assert_eq!(check_against_state(&create, |kind, key| room.at(kind, key)), Ok(()));
        assert_eq!(check_against_state(&second, |_, _| None), Ok(()));
    }
}

#[test]
fn only_the_creator_joins_an_empty_room() {
    for version in RoomVersion::ALL {
        let room = Room::bare(version, json!({}));
        assert!(room.allows(CREATOR, "m.room.member", Some(CREATOR), member("join")), "{version}");
        assert!(!room.allows(ALICE, "m.room.member", Some(ALICE), member("join")), "{version}");
        assert!(!room.allows(CREATOR, "m.room.topic", Some(""), json!({})), "{version}");
    }
}

#[test]
fn joins_follow_the_join_rule() {
    for version in RoomVersion::ALL {
        let mut public = Room::public(version);
        assert!(public.allows(BOB, "m.room.member", Some(BOB), member("join")), "{version}");
        assert!(!public.allows(ALICE, "m.room.member", Some(BOB), member("join")), "{version}: for another user");
        public.send(CREATOR, "m.room.member", Some(BOB), member("ban"));
        assert!(!public.allows(BOB, "m.room.member", Some(BOB), member("join")), "{version}: banned");

        for rule in ["invite", "private", "org.example.odd"] {
            let mut room = Room::with_join_rule(version, json!({ "join_rule": rule }));
            assert!(!room.allows(BOB, "m.room.member", Some(BOB), member("join")), "{version} {rule}");
            room.send(CREATOR, "m.room.member", Some(BOB), member("invite"));
            assert_eq!(
                room.allows(BOB, "m.room.member", Some(BOB), member("join")),
                rule == "invite",
                "{version} {rule}"
            );
        }
        assert!(!Room::bare(version, json!({})).allows(BOB, "m.room.member", Some(BOB), member("join")));
    }
}

#[test]
fn restricted_joins_need_a_member_who_can_invite_since_version_8() {
    let allowed_by = |user: &str| json!({ "membership": "join", "join_authorised_via_users_server": user });
    for (rule, since) in [("restricted", RoomVersion::V8), ("knock_restricted", RoomVersion::V10)] {
        for version in RoomVersion::ALL {
            let mut room = Room::with_join_rule(version, json!({ "join_rule": rule, "allow": [] }));
            room.send(CREATOR, "m.room.member", Some(ALICE), member("invite"));
            let known = version >= since;
            assert_eq!(
                room.allows(ALICE, "m.room.member", Some(ALICE), member("join")),
                known,
                "{version} {rule}: invited"
            );
            assert_eq!(room.allows(BOB, "m.room.member", Some(BOB), allowed_by(CREATOR)), known, "{version} {rule}");
            assert!(!room.allows(BOB, "m.room.member", Some(BOB), member("join")), "{version} {rule}: by no one");
            assert!(!room.allows(BOB, "m.room.member", Some(BOB), allowed_by(CAROL)), "{version} {rule}: no member");
            assert!(!room.allows(BOB, "m.room.member", Some(BOB), allowed_by(ALICE)), "{version} {rule}: only invited");
            if known {
                room.join(ALICE);
                assert!(!room.allows(BOB, "m.room.member", Some(BOB), allowed_by(ALICE)), "{version} {rule}: no power");
            }
        }
    }
}

#[test]
fn knocks_follow_the_join_rule_since_version_7() {
    for (rule, since) in [("knock", RoomVersion::V7), ("knock_restricted", RoomVersion::V10)] {
        for version in RoomVersion::ALL {
            let mut room = Room::with_join_rule(version, json!({ "join_rule": rule, "allow": [] }));
            let known = version >= since;
            assert_eq!(room.allows(BOB, "m.room.member", Some(BOB), member("knock")), known, "{version} {rule}");
            assert!(!room.allows(ALICE, "m.room.member", Some(BOB), member("knock")), "{version} {rule}: for another");
            if known {
                room.send(BOB, "m.room.member", Some(BOB), member("knock"));
                assert!(room.allows(BOB, "m.room.member", Some(BOB), member("leave")), "{version} {rule}: taken back");
                assert!(!room.allows(BOB, "m.room.member", Some(BOB), member("join")), "{version} {rule}: not yet");
                room.send(CREATOR, "m.room.member", Some(BOB), member("invite"));
                assert!(!room.allows(BOB, "m.room.member", Some(BOB), member("knock")), "{version} {rule}: invited");
                assert!(room.allows(BOB, "m.room.member", Some(BOB), member("join")), "{version} {rule}: invited");
            }
        }
    }
    for version in from(RoomVersion::V7) {
        assert!(!Room::public(version).allows(BOB, "m.room.member", Some(BOB), member("knock")), "{version}: public");
    }
}

#[test]
fn invites_kicks_and_bans_need_power_over_their_target() {
    for version in RoomVersion::ALL {
        let mut room = moderated(version);
        let may = |room: &Room, sender: &str, target: &str, to: &str| {
            room.allows(sender, "m.room.member", Some(target), member(to))
        };
        assert!(may(&room, ALICE, CAROL, "invite"));
        assert!(!may(&room, BOB, CAROL, "invite"), "{version}: below the invite level");
        assert!(!may(&room, ALICE, BOB, "invite"), "{version}: joined already");
        assert!(!may(&room, CAROL, "@dan:two.example", "invite"), "{version}: not in the room");
        assert!(may(&room, ALICE, BOB, "leave") && may(&room, ALICE, BOB, "ban"));
        assert!(!may(&room, BOB, ALICE, "leave") && !may(&room, BOB, ALICE, "ban"), "{version}: no power");
        assert!(!may(&room, ALICE, CREATOR, "leave") && !may(&room, ALICE, CREATOR, "ban"), "{version}: above");
        assert!(may(&room, BOB, BOB, "leave"));
        assert!(!may(&room, CAROL, CAROL, "leave"), "{version}: never there");
        assert!(!may(&room, ALICE, BOB, "odd"), "{version}: unknown membership");
        assert!(!room.allows(ALICE, "m.room.member", Some("nonsense"), member("ban")), "{version}: no user id");

        room.send(ALICE, "m.room.member", Some(BOB), member("ban"));
        assert!(!may(&room, ALICE, BOB, "invite"), "{version}: banned");
        assert!(!may(&room, BOB, BOB, "leave"), "{version}: banned users do not leave");
        assert!(may(&room, ALICE, BOB, "leave"), "{version}: unban");
        room.send(CREATOR, "m.room.power_levels", Some(""), levels(version, 50, json!({ "ban": 60 })));
        assert!(!may(&room, ALICE, BOB, "leave"), "{version}: unban needs the ban level");
    }
}

#[test]
fn events_need_their_level_and_a_member() {
    for version in RoomVersion::ALL {
        let room = moderated(version);
        assert!(room.allows(BOB, "m.room.message", None, json!({})));
        assert!(!room.allows(CAROL, "m.room.message", None, json!({})), "{version}: not in the room");
        assert!(!room.allows(BOB, "m.room.topic", Some(""), json!({})), "{version}: state needs 50");
        assert!(room.allows(ALICE, "m.room.topic", Some(""), json!({})));
        assert!(room.allows(ALICE, "org.example.own", Some(ALICE), json!({})));
        assert!(!room.allows(ALICE, "org.example.own", Some(BOB), json!({})), "{version}: another user's key");
        assert!(!room.allows(ALICE, "org.example.own", Some("@x"), json!({})), "{version}: begins with @");
        assert!(!room.allows(BOB, "m.room.third_party_invite", Some("t"), json!({})), "{version}: invite level");
        assert!(room.allows(ALICE, "m.room.third_party_invite", Some("t"), json!({})));
    }
}

#[test]
fn power_cannot_be_raised_above_ones_own() {
    for version in RoomVersion::ALL {
        let room = moderated(version);
        let may = |sender: &str, content: Value| room.allows(sender, "m.room.power_levels", Some(""), content);
        assert!(may(CREATOR, levels(version, 100, json!({}))), "{version}");
        assert!(may(ALICE, levels(version, 10, json!({}))), "{version}: one may step down");
        assert!(!may(ALICE, levels(version, 51, json!({}))), "{version}: above oneself");
        assert!(may(ALICE, levels(version, 50, json!({ "events": { "m.room.topic": 50 } }))), "{version}");
        assert!(!may(ALICE, levels(version, 50, json!({ "events": { "m.room.topic": 51 } }))), "{version}");
        assert!(!may(ALICE, levels(version, 50, json!({ "ban": 60 }))), "{version}");
        assert!(!may(ALICE, json!({ "users": { ALICE: 50, BOB: 51 }, "invite": 50 })), "{version}: another user above");
        let notifications = levels(version, 50, json!({ "notifications": { "room": 99 } }));
        assert_eq!(may(ALICE, notifications), version < RoomVersion::V6, "{version}: notifications count since 6");
        let text = levels(version, 50, json!({ "kick": "40" }));
        assert_eq!(may(ALICE, text), version < RoomVersion::V10, "{version}: integers since 10");
        assert!(!may(ALICE, levels(version, 50, json!({ "users": { "nonsense": 1 } }))), "{version}: user ids");
        assert!(!may(ALICE, levels(version, 50, json!({ "users": [] }))), "{version}: an object");
    }
}

#[test]
fn an_equal_cannot_be_demoted_but_oneself_can() {
    for version in RoomVersion::ALL {
        let mut room = moderated(version);
        let both = |alice: i64, bob: i64| {
            levels(version, alice, json!({ "users_default": 0 })).as_object().map(|content| {
                let mut content = content.clone();
                content["users"][BOB] = json!(bob);
                Value::Object(content)
            })
        };
        room.send(CREATOR, "m.room.power_levels", Some(""), both(50, 50).expect("an object"));
        assert!(!room.allows(ALICE, "m.room.power_levels", Some(""), both(50, 10).expect("an object")), "{version}");
        assert!(room.allows(ALICE, "m.room.power_levels", Some(""), both(10, 50).expect("an object")), "{version}");
    }
}

#[test]
fn creators_of_version_12_are_above_all_levels_and_in_none() {
    let mut room = Room::bare(RoomVersion::V12, json!({ "additional_creators": [ALICE] }));
    room.send(CREATOR, "m.room.member", Some(CREATOR), member("join"));
    room.send(CREATOR, "m.room.join_rules", Some(""), json!({ "join_rule": "public" }));
    room.join(ALICE);
    room.join(BOB);
    for creator in [CREATOR, ALICE] {
        let listed = json!({ "users": { creator: 100 } });
        assert!(!room.allows(CREATOR, "m.room.power_levels", Some(""), listed), "creators must not be listed");
    }
    let high = json!({ "users": { BOB: 9_007_199_254_740_991_i64 }, "state_default": 9_007_199_254_740_991_i64 });
    room.send(ALICE, "m.room.power_levels", Some(""), high);
    assert!(room.allows(ALICE, "m.room.topic", Some(""), json!({})), "above every number");
    assert!(room.allows(ALICE, "m.room.member", Some(BOB), member("ban")));
    assert!(!room.allows(BOB, "m.room.member", Some(ALICE), member("ban")));
    assert!(!room.allows(CREATOR, "m.room.member", Some(ALICE), member("leave")), "creators are equals");

    let mut old = Room::bare(RoomVersion::V11, json!({ "additional_creators": [ALICE] }));
    old.send(CREATOR, "m.room.member", Some(CREATOR), member("join"));
    old.send(CREATOR, "m.room.join_rules", Some(""), json!({ "join_rule": "public" }));
    old.join(ALICE);
    assert!(!old.allows(ALICE, "m.room.topic", Some(""), json!({})), "unknown before version 12");
}

#[test]
fn special_cases_of_old_versions_end_when_they_should() {
    for version in RoomVersion::ALL {
        let mut room = moderated(version);
        let aliases = |key: &str| room.allows(BOB, "m.room.aliases", Some(key), json!({ "aliases": [] }));
        assert_eq!(aliases("two.example"), version < RoomVersion::V6, "{version}: aliases of one's own server");
        assert!(!aliases("one.example"), "{version}: aliases of another server");

        room.join(CAROL);
        let message = room.send(BOB, "m.room.message", None, json!({}));
        let redaction = |sender: &str| room.check(&room.redaction(sender, message.event_id())).is_ok();
        assert!(redaction(ALICE) && redaction(BOB), "{version}: the level, or the same server");
        assert_eq!(redaction(CAROL), version > RoomVersion::V2, "{version}: decided later since 3");
    }
}

#[test]
fn a_room_closed_to_federation_lets_no_one_else_in() {
    for version in RoomVersion::ALL {
        let mut room = Room::bare(version, json!({ "m.federate": false }));
        room.send(CREATOR, "m.room.member", Some(CREATOR), member("join"));
        room.send(CREATOR, "m.room.join_rules", Some(""), json!({ "join_rule": "public" }));
        assert!(room.allows(ALICE, "m.room.member", Some(ALICE), member("join")), "{version}");
        assert!(!room.allows(BOB, "m.room.member", Some(BOB), member("join")), "{version}");
    }
}

#[test]
fn auth_events_must_be_the_selected_ones() {
    for version in RoomVersion::ALL {
        let room = moderated(version);
        let message = room.event(BOB, "m.room.message", None, json!({}));
        let with_auth = |ids: Vec<&EventId>| {
            let list: Vec<Value> = ids
                .into_iter()
                .map(|id| if version.event_id_is_in_event() { json!([id, {}]) } else { json!(id) })
                .collect();
            changed(&message, |event| {
                event.insert("auth_events".to_owned(), serde_json::from_value(json!(list)).expect("a list"));
            })
        };
        let own: Vec<&EventId> = message.auth_events().iter().map(|id| &**id).collect();
        let fetch = |id: &EventId| room.events.get(id).cloned();
        assert_eq!(check_independent(&message, fetch), Ok(()));

        let twice: Vec<_> = own.iter().chain(own.first()).copied().collect();
        assert!(check_independent(&with_auth(twice), fetch).is_err(), "{version}: twice");
        let topic_like = room.at(&StateEventType::RoomJoinRules, "").expect("set");
        let foreign: Vec<_> = own.iter().copied().chain([topic_like.event_id()]).collect();
        assert!(check_independent(&with_auth(foreign), fetch).is_err(), "{version}: not selected");
        assert!(
            check_independent(&with_auth(vec!["$no:where".try_into().expect("an id")]), fetch).is_err(),
            "{version}"
        );
        assert_eq!(
            check_independent(&with_auth(vec![]), fetch).is_ok(),
            version >= RoomVersion::V12,
            "{version}: create"
        );
        let rejected = |id: &EventId| fetch(id).map(|event| event.with_rejected(true));
        assert!(check_independent(&message, rejected).is_err(), "{version}: rejected");
        if let Some(create) = message.implied_create_event_id() {
            let no_create = |id: &EventId| fetch(id).filter(|event| event.event_id() != create);
            assert!(check_independent(&message, no_create).is_err(), "{version}: no create event");
        }
        assert!(check_against_auth_events(&message, |_| None).is_err(), "{version}: nothing known");
    }
}

#[test]
fn the_selection_of_auth_events_names_what_the_rules_look_at() {
    let select = |version, kind: &str, key: Option<&str>, content: Value| {
        let content = to_object(&content).expect("canonical");
        auth_types_for_event(version, kind, BOB.try_into().expect("a user id"), key, &content).expect("well-formed")
    };
    let has = |list: &[(StateEventType, String)], kind: &str, key: &str| list.contains(&(kind.into(), key.to_owned()));
    for version in RoomVersion::ALL {
        let message = select(version, "m.room.message", None, json!({}));
        assert!(has(&message, "m.room.power_levels", "") && has(&message, "m.room.member", BOB));
        assert_eq!(has(&message, "m.room.create", ""), version < RoomVersion::V12, "{version}");
        assert!(select(version, "m.room.create", Some(""), json!({})).is_empty());
        let invite = json!({ "membership": "invite", "third_party_invite": { "signed": { "token": "t" } } });
        let invite = select(version, "m.room.member", Some(ALICE), invite);
        assert!(has(&invite, "m.room.member", ALICE) && has(&invite, "m.room.join_rules", ""));
        assert!(has(&invite, "m.room.third_party_invite", "t"));
        let join = json!({ "membership": "join", "join_authorised_via_users_server": ALICE });
        let join = select(version, "m.room.member", Some(BOB), join);
        assert_eq!(has(&join, "m.room.member", ALICE), version >= RoomVersion::V8, "{version}");
        let leave = select(version, "m.room.member", Some(BOB), member("leave"));
        assert!(!has(&leave, "m.room.join_rules", ""));
        let content = to_object(&json!({})).expect("canonical");
        let sender = BOB.try_into().expect("a user id");
        assert!(auth_types_for_event(version, "m.room.member", sender, Some(BOB), &content).is_err());
    }
}

#[test]
fn an_invite_by_third_party_id_needs_the_signature_that_the_room_asked_for() {
    let identity_server: &ruma::ServerName = "identity.example".try_into().expect("a server name");
    let signed = |mxid: &str, token: &str, sign: bool| {
        let mut signed = object(json!({ "mxid": mxid, "token": token, "signatures": {} }));
        if sign {
            crate::rules::signatures::sign_object(&mut signed, &key_pair(), identity_server).expect("an object");
        }
        json!({ "membership": "invite", "third_party_invite": { "display_name": "b", "signed": signed } })
    };
    let public_key =
        ruma::serde::Base64::<ruma::serde::base64::Standard>::new(key_pair().public_key().to_vec()).encode();
    for version in RoomVersion::ALL {
        let mut room = Room::with_join_rule(version, json!({ "join_rule": "invite" }));
        let offer = json!({ "display_name": "b", "key_validity_url": "https://x", "public_key": public_key });
        room.send(CREATOR, "m.room.third_party_invite", Some("token"), offer);
        let invite = |sender: &str, content: Value| room.allows(sender, "m.room.member", Some(BOB), content);
        assert!(invite(CREATOR, signed(BOB, "token", true)), "{version}");
        assert!(!invite(CREATOR, signed(BOB, "token", false)), "{version}: unsigned");
        assert!(!invite(CREATOR, signed(CAROL, "token", true)), "{version}: for another user");
        assert!(!invite(CREATOR, signed(BOB, "other", true)), "{version}: another token");
        assert!(!invite(ALICE, signed(BOB, "token", true)), "{version}: another sender than the offer's");
        assert!(
            !invite(CREATOR, json!({ "membership": "invite", "third_party_invite": {} })),
            "{version}: nothing signed"
        );
    }
}

/// Whatever other servers write into the events that rules look at, the rules answer.
#[test]
fn no_content_makes_the_rules_panic() {
    let odd = [
        json!(null),
        json!(-1),
        json!(9_007_199_254_740_991_i64),
        json!(""),
        json!("@x"),
        json!("join"),
        json!("9".repeat(40)),
        json!([]),
        json!([null, "x", BOB]),
        json!({}),
        json!({ BOB: "x", "": 1 }),
        json!({ BOB: 9_007_199_254_740_991_i64 }),
        json!({ "signed": { "mxid": BOB, "token": "t", "signatures": { "a": { "ed25519:1": "!" }, "b": 3 } } }),
    ];
    let fields = [
        ("m.room.create", "", &["creator", "additional_creators", "m.federate", "room_version"][..]),
        ("m.room.member", BOB, &["membership", "join_authorised_via_users_server", "third_party_invite"][..]),
        ("m.room.power_levels", "", &["users", "events", "ban", "notifications", "users_default"][..]),
        ("m.room.join_rules", "", &["join_rule", "allow"][..]),
        ("m.room.third_party_invite", "t", &["public_key", "public_keys"][..]),
        ("m.room.history_visibility", "", &["history_visibility"][..]),
        ("m.room.server_acl", "", &["allow", "deny", "allow_ip_literals"][..]),
    ];
    for version in [RoomVersion::V1, RoomVersion::V6, RoomVersion::V9, RoomVersion::V10, RoomVersion::V12] {
        let room = moderated(version);
        let invite =
            json!({ "membership": "invite", "third_party_invite": { "signed": { "mxid": CAROL, "token": "t" } } });
        let onlookers: Vec<Pdu> = [
            room.event(ALICE, "m.room.member", Some(CAROL), member("invite")),
            room.event(ALICE, "m.room.member", Some(CAROL), invite),
            room.event(ALICE, "m.room.member", Some(BOB), member("ban")),
            room.event(BOB, "m.room.member", Some(BOB), member("join")),
            room.event(BOB, "m.room.member", Some(BOB), member("leave")),
            room.event(BOB, "m.room.message", None, json!({ "body": "x" })),
            room.event(ALICE, "m.room.power_levels", Some(""), levels(version, 50, json!({}))),
        ]
        .into();
        for (kind, key, names) in fields {
            for name in names {
                for value in &odd {
                    let mut content = json!({ "membership": "join", "join_rule": "public", "public_key": "x" });
                    content[*name] = value.clone();
                    let mut after = room.clone();
                    let event = after.event(BOB, kind, Some(key), content);
                    let _ = after.check(&event);
                    after.add(event.clone());
                    for onlooker in &onlookers {
                        let _ = after.check(onlooker);
                    }
                    let create = after.at(&StateEventType::RoomCreate, "").expect("still there");
                    let power = RoomPower::new(&create, after.at(&StateEventType::RoomPowerLevels, "").as_ref());
                    let _ = power.can_ban(create.sender(), event.sender());
                    let _ = ServerAcl::new(Some(&event)).allows(event.sender().server_name());
                    let _ = HistoryVisibility::after(Some(&event));
                    let _ = MemberContent::of(&event);
                    let states = [room.state.clone(), after.state.clone()];
                    let _ = resolve(version, &states, &after.events);
                }
            }
        }
    }
}
