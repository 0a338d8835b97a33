use std::time::Instant;

use ruma::signatures::KeyPair;
use serde_json::{Value, json};

use super::*;
use crate::rules::{
    canonical::{parse_object, to_text},
    testing::{ALICE, BOB, CREATOR, Room, key_pair, object, user},
};

fn received(version: RoomVersion, event: Value) -> Result<Pdu, PduError> {
    Pdu::from_json(version, object(event))
}

fn message(version: RoomVersion) -> Pdu {
    let mut room = Room::public(version);
    room.join(BOB);
    room.event(BOB, "m.room.message", None, json!({ "msgtype": "m.text", "body": "hello \"world\"\n" }))
}

/// A version 11 event with every required field.
fn plain() -> Value {
    json!({
        "type": "m.room.message", "sender": "@a:example.org", "room_id": "!r:example.org", "content": {},
        "depth": 3, "origin_server_ts": 1_000_000, "prev_events": ["$p"], "auth_events": ["$a"],
        "hashes": { "sha256": "x" }, "signatures": {},
    })
}

fn changed(field: &str, value: Value) -> Value {
    let mut event = plain();
    event[field] = value;
    event
}

#[test]
fn an_event_comes_back_the_same_from_federation_and_from_storage() {
    for version in RoomVersion::ALL {
        let made = message(version);
        let federated = Pdu::from_json_text(version, made.json()).expect("what we send is valid");
        let stored =
            Pdu::from_stored(made.event_id().to_owned(), version, made.json()).expect("what we store is valid");
        for other in [federated, stored] {
            assert_eq!(other.event_id(), made.event_id());
            assert_eq!(other.json(), made.json());
            assert_eq!(other.room_id(), made.room_id());
            assert_eq!(other.sender(), BOB);
            assert_eq!(other.event_type(), "m.room.message");
            assert_eq!(other.state_key(), None);
            assert_eq!(other.depth(), made.depth());
            assert_eq!(other.prev_events(), made.prev_events());
            assert_eq!(other.auth_events(), made.auth_events());
            assert_eq!(other.content_json(), r#"{"body":"hello \"world\"\n","msgtype":"m.text"}"#);
        }
    }
}

#[test]
fn event_ids_have_the_form_of_their_room_version() {
    for version in RoomVersion::ALL {
        let id = message(version).event_id().to_string();
        match version {
            RoomVersion::V1 | RoomVersion::V2 => assert!(id.ends_with(":two.example"), "{id}"),
            RoomVersion::V3 => assert_eq!(id.len(), 44, "{id}"),
            _ => assert!(id.len() == 44 && !id.contains(['+', '/']), "{id}"),
        }
    }
}

#[test]
fn the_room_id_of_version_12_is_the_create_event() {
    let room = Room::public(RoomVersion::V12);
    let create = room.at(&"m.room.create".into(), "").expect("a room has a create event");
    assert_eq!(create.room_id().strip_sigil(), &create.event_id().as_str()[1..]);
    assert!(!create.json().contains("room_id"));
    assert_eq!(ruma::state_res::Event::room_id(&create), None);
    let stored = Pdu::from_stored(create.event_id().to_owned(), RoomVersion::V12, create.json()).expect("stored");
    assert_eq!(stored.room_id(), create.room_id());
    let message = message(RoomVersion::V12);
    assert_eq!(message.implied_create_event_id().as_deref(), message.prev_events().first().map(|_| create.event_id()));
    assert!(!message.auth_events().iter().any(|id| id == create.event_id()));
}

#[test]
fn a_version_12_create_event_with_a_room_id_is_refused() {
    let mut event = changed("type", json!("m.room.create"));
    assert!(matches!(received(RoomVersion::V12, event.clone()), Err(PduError::CreateHasRoomId)));
    assert!(received(RoomVersion::V11, event.clone()).is_ok());
    event.as_object_mut().expect("an object").remove("room_id");
    assert!(received(RoomVersion::V12, event).is_ok());
}

#[test]
fn a_version_12_event_must_not_list_the_create_event() {
    let mut event = changed("room_id", json!("!hash"));
    event["auth_events"] = json!(["$other", "$hash"]);
    assert!(matches!(received(RoomVersion::V12, event.clone()), Err(PduError::CreateInAuthEvents)));
    assert!(received(RoomVersion::V11, event).is_ok());
}

#[test]
fn every_field_is_required_and_has_its_type() {
    for field in [
        "type",
        "sender",
        "room_id",
        "content",
        "depth",
        "origin_server_ts",
        "prev_events",
        "auth_events",
        "hashes",
        "signatures",
    ] {
        let mut event = plain();
        event.as_object_mut().expect("an object").remove(field);
        assert!(
            matches!(received(RoomVersion::V11, event), Err(PduError::Missing { field: missing }) if missing == field),
            "{field}"
        );
        assert!(
            matches!(received(RoomVersion::V11, changed(field, json!(true))), Err(PduError::WrongType { .. })),
            "{field}"
        );
    }
    assert!(matches!(received(RoomVersion::V11, changed("state_key", json!(1))), Err(PduError::WrongType { .. })));
    assert!(matches!(received(RoomVersion::V11, changed("depth", json!(-1))), Err(PduError::Negative { .. })));
    assert!(matches!(received(RoomVersion::V11, changed("sender", json!("bob"))), Err(PduError::Identifier { .. })));
    assert!(matches!(received(RoomVersion::V11, changed("room_id", json!("room"))), Err(PduError::Identifier { .. })));
    assert!(matches!(
        received(RoomVersion::V11, changed("prev_events", json!(["p"]))),
        Err(PduError::Identifier { .. })
    ));
    assert!(matches!(
        received(RoomVersion::V11, changed("prev_events", json!([["$p", {}]]))),
        Err(PduError::WrongType { .. })
    ));
    assert!(matches!(received(RoomVersion::V1, plain()), Err(PduError::Missing { field: "event_id" })));
}

#[test]
fn sizes_end_where_the_specification_says() {
    let key = |bytes: usize| changed("state_key", json!("k".repeat(bytes)));
    assert!(received(RoomVersion::V11, key(255)).is_ok());
    assert!(matches!(received(RoomVersion::V11, key(256)), Err(PduError::TooLong { bytes: 256, .. })));
    let kind = |bytes: usize| changed("type", json!("ä".repeat(bytes / 2)));
    assert!(received(RoomVersion::V11, kind(254)).is_ok());
    assert!(matches!(received(RoomVersion::V11, kind(256)), Err(PduError::TooLong { .. })));
    let prev = |count: usize| changed("prev_events", json!(vec!["$p"; count]));
    assert!(received(RoomVersion::V11, prev(20)).is_ok());
    assert!(matches!(received(RoomVersion::V11, prev(21)), Err(PduError::TooMany { count: 21, max: 20, .. })));
    let auth = |count: usize| changed("auth_events", json!(vec!["$p"; count]));
    assert!(received(RoomVersion::V11, auth(10)).is_ok());
    assert!(matches!(received(RoomVersion::V11, auth(11)), Err(PduError::TooMany { count: 11, max: 10, .. })));

    let empty = received(RoomVersion::V11, changed("content", json!({ "body": "" }))).expect("valid").json().len();
    let sized = |bytes: usize| changed("content", json!({ "body": "x".repeat(bytes - empty) }));
    // Signatures count for the whole, and hashes and signatures do not count for the content hash of 65,535 bytes.
    assert_eq!(received(RoomVersion::V11, sized(65_535)).expect("fits").json().len(), 65_535);
    assert!(received(RoomVersion::V11, sized(65_536)).is_ok());
    assert!(matches!(received(RoomVersion::V11, sized(65_537)), Err(PduError::TooLarge { bytes: 65_537 })));
}

#[test]
fn nul_is_refused_where_databases_cannot_hold_it_and_kept_in_content() {
    for field in ["type", "state_key", "sender", "room_id"] {
        assert!(received(RoomVersion::V11, changed(field, json!("!a\0b:c"))).is_err(), "{field}");
    }
    let pdu = received(RoomVersion::V11, changed("content", json!({ "body": "a\0b" }))).expect("allowed");
    assert!(!pdu.json().contains('\0'));
}

#[test]
fn unsigned_is_never_part_of_an_event() {
    let with = received(RoomVersion::V11, changed("unsigned", json!({ "age": 3 }))).expect("valid");
    let without = received(RoomVersion::V11, plain()).expect("valid");
    assert_eq!(with.json(), without.json());
    assert_eq!(with.event_id(), without.event_id());
    let odd = changed("unsigned", json!({ "age": 1.5 })).to_string();
    assert_eq!(Pdu::from_json_text(RoomVersion::V11, &odd).expect("valid").json(), without.json());
    let odd = changed("content", json!({ "a": 1.5 })).to_string();
    assert!(matches!(Pdu::from_json_text(RoomVersion::V11, &odd), Err(PduError::Json(_))));
}

#[test]
fn redacts_is_read_and_written_where_the_room_version_keeps_it() {
    for version in RoomVersion::ALL {
        let mut room = Room::public(version);
        let target = room.send(CREATOR, "m.room.message", None, json!({ "body": "x" }));
        let redaction = room.redaction(CREATOR, target.event_id());
        assert_eq!(redaction.redacts(), Some(target.event_id()));
        let in_content = redaction.content_json().contains("redacts");
        assert_eq!(in_content, version >= RoomVersion::V11);
        let stored = Pdu::from_stored(redaction.event_id().to_owned(), version, redaction.json()).expect("stored");
        assert_eq!(stored.redacts(), Some(target.event_id()));
        // Clients find it in both places, whatever the version.
        let seen: Value = serde_json::from_str(&redaction.to_client_event(ClientFormat::Sync, &Unsigned::default()))
            .expect("client events are JSON");
        assert_eq!(seen["redacts"], json!(target.event_id()));
        assert_eq!(seen["content"]["redacts"], json!(target.event_id()));
    }
}

#[test]
fn clients_see_the_event_with_what_the_server_adds() {
    let mut room = Room::public(RoomVersion::V12);
    room.join(ALICE);
    let first = room.send(CREATOR, "m.room.topic", Some(""), json!({ "topic": "one" }));
    let second = room.send(CREATOR, "m.room.topic", Some(""), json!({ "topic": "two" }));
    let redaction = room.redaction(CREATOR, second.event_id());
    let relations = RawValue::from_string(r#"{"m.thread":{"count":2}}"#.to_owned()).expect("JSON");
    let unsigned = Unsigned {
        age: Some(-5),
        transaction_id: Some("txn\"1".into()),
        membership: Some("join"),
        replaces: Some(&first),
        redacted_because: Some(&redaction),
        relations: Some(&relations),
        stripped_state: None,
    };
    let seen: Value =
        serde_json::from_str(second.to_raw_client_event(ClientFormat::Full, &unsigned).get()).expect("JSON");
    assert_eq!(
        seen,
        json!({
            "content": { "topic": "two" }, "event_id": second.event_id(), "room_id": second.room_id(), "sender": CREATOR,
            "origin_server_ts": second.origin_server_ts(), "state_key": "", "type": "m.room.topic",
            "unsigned": {
                "age": -5, "transaction_id": "txn\"1", "membership": "join", "m.relations": { "m.thread": { "count": 2 } },
                "prev_content": { "topic": "one" }, "prev_sender": CREATOR, "replaces_state": first.event_id(),
                "redacted_because": {
                    "content": { "redacts": second.event_id() }, "redacts": second.event_id(),
                    "event_id": redaction.event_id(), "room_id": second.room_id(), "sender": CREATOR,
                    "origin_server_ts": redaction.origin_server_ts(), "type": "m.room.redaction",
                },
            },
        })
    );
    let seen: Value =
        serde_json::from_str(&second.to_client_event(ClientFormat::Sync, &Unsigned::default())).expect("JSON");
    assert_eq!(seen.get("room_id"), None);
    assert_eq!(seen.get("unsigned"), None);
}

#[test]
fn strings_are_escaped_for_clients() {
    let room = Room::public(RoomVersion::V11);
    let odd = "quote\" back\\slash \u{1} snow\u{2603}";
    let event = room.event(CREATOR, odd, Some(odd), json!({}));
    let seen: Value =
        serde_json::from_str(&event.to_client_event(ClientFormat::Full, &Unsigned::default())).expect("JSON");
    assert_eq!(seen["type"], json!(odd));
    assert_eq!(seen["state_key"], json!(odd));
}

#[test]
fn an_event_too_large_is_not_made() {
    let room = Room::public(RoomVersion::V12);
    let template = |body: usize| EventTemplate {
        room_id: None,
        sender: user(CREATOR),
        event_type: "m.room.message",
        state_key: None,
        content: object(json!({ "body": "x".repeat(body) })),
        redacts: None,
        prev_events: &room.heads,
        auth_events: &[],
        reference_hashes: Default::default(),
        depth: u64::MAX,
        origin_server_ts: MilliSecondsSinceUnixEpoch(ruma::UInt::MAX),
    };
    let make = |body| {
        let template = EventTemplate { room_id: Some("!r:one.example".try_into().expect("an id")), ..template(body) };
        build(RoomVersion::V11, template, &key_pair(), user(CREATOR).server_name())
    };
    assert_eq!(make(1_000).expect("fits").depth(), MAX_DEPTH);
    assert!(make(66_000).is_err());
    assert!(make(65_300).is_err());
}

/// A small generator, so that the inputs are the same in every run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap_or(0) % bound.max(1)
    }
}

#[test]
fn no_bytes_make_the_parser_panic() {
    let mut chance = Chance(1);
    for version in RoomVersion::ALL {
        let original = message(version).json().to_owned().into_bytes();
        for _ in 0..400 {
            let mut bytes = original.clone();
            for _ in 0..=chance.below(4) {
                let at = chance.below(bytes.len());
                match chance.below(4) {
                    0 => bytes[at] = u8::try_from(chance.below(256)).unwrap_or(0),
                    1 => bytes.truncate(at),
                    2 => bytes.insert(at, b"{}[]\",:\\0-.eE\0\xff"[chance.below(15)]),
                    _ => {
                        let until = (at + chance.below(20)).min(bytes.len());
                        bytes.drain(at..until);
                    }
                }
                if bytes.is_empty() {
                    break;
                }
            }
            if let Ok(text) = std::str::from_utf8(&bytes)
                && let Ok(pdu) = Pdu::from_json_text(version, text)
            {
                look_at_everything(&pdu);
            }
        }
    }
}

#[test]
fn no_json_value_in_any_field_makes_the_parser_panic() {
    let odd = [
        json!(null),
        json!(true),
        json!(-1),
        json!(9_007_199_254_740_991_i64),
        json!(""),
        json!("$"),
        json!("!"),
        json!("@"),
        json!("@:"),
        json!("$:"),
        json!("é\u{0}"),
        json!([]),
        json!([[]]),
        json!([["$a"]]),
        json!([["$a", {}]]),
        json!(["$a"]),
        json!({}),
        json!({ "redacts": 1 }),
        json!({ "redacts": "$x" }),
        json!({ "membership": [] }),
        json!("x".repeat(300)),
    ];
    let fields = [
        "type",
        "sender",
        "room_id",
        "content",
        "depth",
        "origin_server_ts",
        "prev_events",
        "auth_events",
        "hashes",
        "signatures",
        "state_key",
        "redacts",
        "event_id",
        "unsigned",
        "origin",
    ];
    for version in RoomVersion::ALL {
        for kind in ["m.room.message", "m.room.create", "m.room.redaction", "m.room.member"] {
            for field in fields {
                for value in &odd {
                    let mut event = changed("type", json!(kind));
                    if version.event_id_is_in_event() {
                        event["event_id"] = json!("$e:example.org");
                        event["prev_events"] = json!([["$p:example.org", {}]]);
                        event["auth_events"] = json!([]);
                    }
                    event[field] = value.clone();
                    if let Ok(pdu) = received(version, event) {
                        look_at_everything(&pdu);
                    }
                }
            }
        }
    }
}

fn look_at_everything(pdu: &Pdu) {
    let stored =
        Pdu::from_stored(pdu.event_id().to_owned(), pdu.room_version(), pdu.json()).expect("valid events are stored");
    assert_eq!(stored.json(), pdu.json());
    assert_eq!(stored.redacts(), pdu.redacts());
    assert_eq!(stored.content_json(), pdu.content_json());
    assert_eq!(to_text(&parse_object(pdu.json().as_bytes()).expect("canonical")), pdu.json());
    let client = pdu.to_client_event(ClientFormat::Full, &Unsigned::default());
    serde_json::from_str::<Value>(&client).expect("client events are JSON");
    let redacted = crate::rules::redaction::redact(pdu).expect("valid events can be redacted");
    assert_eq!(redacted.event_id(), pdu.event_id());
    let _ = crate::rules::auth::auth_types_of(pdu);
    let _ = crate::rules::signatures::required_signatures(pdu);
}

/// Prints what the hot paths cost. Asserts nothing, since machines differ.
#[test]
fn the_cost_of_an_event_is_printed() {
    const ROUNDS: u32 = 300;
    let mut room = Room::public(RoomVersion::V12);
    room.join(ALICE);
    let key_pair = key_pair();
    let content = object(json!({ "msgtype": "m.text", "body": "the quick brown fox jumps over the lazy dog" }));
    let auth_events: Vec<_> = room.event(ALICE, "m.room.message", None, json!({})).auth_events().to_vec();
    let first = room.event(ALICE, "m.room.message", None, json!({}));
    let timed = |name: &str, work: &mut dyn FnMut()| {
        let start = Instant::now();
        for _ in 0..ROUNDS {
            work();
        }
        println!("{name}: {:.1} µs", start.elapsed().as_secs_f64() * 1e6 / f64::from(ROUNDS));
    };
    let make = || {
        let template = EventTemplate {
            room_id: Some(first.room_id()),
            sender: user(ALICE),
            event_type: "m.room.message",
            state_key: None,
            content: content.clone(),
            redacts: None,
            prev_events: &room.heads,
            auth_events: &auth_events,
            reference_hashes: Default::default(),
            depth: 9,
            origin_server_ts: first.origin_server_ts(),
        };
        build(RoomVersion::V12, template, &key_pair, user(ALICE).server_name()).expect("valid")
    };
    let pdu = make();
    println!("an event has {} bytes", pdu.json().len());
    timed("build", &mut || drop(make()));
    timed("of that the Ed25519 signature", &mut || drop(KeyPair::sign(&key_pair, pdu.json().as_bytes())));
    timed("from_stored", &mut || {
        drop(Pdu::from_stored(pdu.event_id().to_owned(), RoomVersion::V12, pdu.json()).expect("valid"));
    });
    timed("from_json_text", &mut || drop(Pdu::from_json_text(RoomVersion::V12, pdu.json()).expect("valid")));
    timed("check", &mut || room.check(&pdu).expect("allowed"));
    let mut out = String::new();
    timed("write_client_event", &mut || {
        out.clear();
        pdu.write_client_event(&mut out, ClientFormat::Sync, &Unsigned { age: Some(3), ..Unsigned::default() });
    });
}

#[test]
fn a_draft_of_another_server_becomes_an_event_of_this_one() {
    for version in RoomVersion::ALL {
        let room = Room::public(version);
        let heads = &room.heads;
        let template = EventTemplate {
            room_id: Some("!room:one.example".try_into().expect("an id")),
            sender: user(BOB),
            event_type: "m.room.member",
            state_key: Some(BOB),
            content: object(json!({ "membership": "join" })),
            redacts: None,
            prev_events: heads,
            auth_events: heads,
            reference_hashes: heads.iter().map(|id| (id.clone(), room.events[id].reference_hash())).collect(),
            depth: 7,
            origin_server_ts: MilliSecondsSinceUnixEpoch(ruma::uint!(5)),
        };
        let mut draft = draft(version, template.clone());
        let made = build(version, template, &key_pair(), user(BOB).server_name()).expect("valid");
        draft.insert("event_id".to_owned(), "$theirs:one.example".into());
        draft.insert("signatures".to_owned(), object(json!({ "one.example": { "ed25519:x": "y" } })).into());
        draft.insert("unsigned".to_owned(), object(json!({ "age": 1 })).into());
        let finished = finish(version, draft, &key_pair(), user(BOB).server_name()).expect("valid");
        assert_eq!(finished.json(), made.json(), "{version}");
        assert!(finish(version, CanonicalJsonObject::new(), &key_pair(), user(BOB).server_name()).is_err());
    }
}
