use ruma::{canonical_json::redact as redact_object, serde::Base64};
use serde_json::json;

use super::*;
use crate::rules::{
    canonical::{parse_object, to_text},
    testing::{ALICE, BOB, CREATOR, Room, key_pair, object, public_keys, user},
};

/// The key of the specification's appendix "Cryptographic Test Vectors".
fn vector_key() -> Ed25519KeyPair {
    let seed: Base64 = Base64::parse("YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1").expect("base64");
    key_pair_from_seed(seed.as_bytes().try_into().expect("32 bytes"), "1").expect("a key")
}

fn domain() -> &'static ServerName {
    "domain".try_into().expect("a server name")
}

#[test]
fn json_is_signed_as_in_the_specifications_vectors() {
    let signed = |json: &str| {
        let mut object = parse_object(json.as_bytes()).expect("canonical");
        sign_object(&mut object, &vector_key(), domain()).expect("signable");
        to_text(&object)
    };
    assert_eq!(
        signed("{}"),
        r#"{"signatures":{"domain":{"ed25519:1":"K8280/U9SSy9IVtjBuVeLr+HpOB4BQFWbg+UZaADMtTdGYI7Geitb76LTrr5QV/7Xg4ahLwYGYZzuHGZKM5ZAQ"}}}"#
    );
    assert_eq!(
        signed(r#"{"one": 1, "two": "Two"}"#),
        r#"{"one":1,"signatures":{"domain":{"ed25519:1":"KqmLSbO39/Bzb0QIYE82zqLwsA+PDzYIpIRA2sRQ4sL53+sN6/fpNSoqE7BP7vBZhG6kYdD13EIMJpvhJI+6Bw"}},"two":"Two"}"#
    );
}

#[test]
fn events_are_hashed_and_signed_as_in_the_specifications_vectors() {
    let signed = |event: serde_json::Value| {
        let mut object = object(event);
        ruma::signatures::add_content_hash_to_event(&mut object).expect("hashable");
        countersign(RoomVersion::V1, &mut object, &vector_key(), domain()).expect("signable");
        serde_json::to_value(&object).expect("JSON")
    };
    let minimal = signed(json!({
        "room_id": "!x:domain", "sender": "@a:domain", "origin": "domain", "origin_server_ts": 1_000_000,
        "signatures": {}, "hashes": {}, "type": "X", "content": {}, "prev_events": [], "auth_events": [], "depth": 3,
        "unsigned": { "age_ts": 1_000_000 },
    }));
    assert_eq!(minimal["hashes"]["sha256"], "5jM4wQpv6lnBo7CLIghJuHdW+s2CMBJPUOGOC89ncos");
    assert_eq!(
        minimal["signatures"]["domain"]["ed25519:1"],
        "KxwGjPSDEtvnFgU00fwFz+l6d2pJM6XBIaMEn81SXPTRl16AqLAYqfIReFGZlHi5KLjAWbOoMszkwsQma+lYAg"
    );
    let redactable = signed(json!({
        "content": { "body": "Here is the message content" }, "event_id": "$0:domain", "origin": "domain",
        "origin_server_ts": 1_000_000, "type": "m.room.message", "room_id": "!r:domain", "sender": "@u:domain",
        "signatures": {}, "unsigned": { "age_ts": 1_000_000 },
    }));
    assert_eq!(redactable["hashes"]["sha256"], "onLKD1bGljeBWQhWZ1kaP9SorVmRQNdN5aM2JYU2n/g");
    assert_eq!(
        redactable["signatures"]["domain"]["ed25519:1"],
        "Wm+VzmOUOz08Ds+0NTWb1d4CZrVsJSikkeRxh6aCcUwu6pNC78FunoD7KNWzqFn241eYHYMGCA5McEiVPdhzBA"
    );
}

#[test]
fn what_this_server_makes_is_verified_in_every_room_version() {
    for version in RoomVersion::ALL {
        let mut room = Room::public(version);
        room.join(BOB);
        let message = room.event(BOB, "m.room.message", None, json!({ "body": "x" }));
        let required = required_signatures(&message).expect("well-formed");
        assert_eq!(required.len(), 1);
        assert_eq!(required[0].server_name, "two.example");
        assert_eq!(required[0].key_ids, ["ed25519:test"]);
        assert_eq!(required[0].valid_at.is_some(), version >= RoomVersion::V5);
        for event in room.events.values().chain([&message]) {
            let keys = public_keys(&["one.example", "two.example"]);
            assert!(matches!(verify(event, &keys), Ok(Verified::Valid(_))), "{version} {event:?}");
        }
        assert!(verify(&message, &public_keys(&["one.example"])).is_err());
    }
}

#[test]
fn changed_content_leaves_only_the_redacted_event() {
    for version in RoomVersion::ALL {
        let message = Room::public(version).event(CREATOR, "m.room.message", None, json!({ "body": "true" }));
        let forged = message.json().replace("\"true\"", "\"false\"");
        let forged = Pdu::from_json_text(version, &forged).expect("well-formed");
        let keys = public_keys(&["one.example"]);
        match verify(&forged, &keys) {
            Ok(Verified::Redacted(pdu)) => {
                assert_eq!(pdu.content_json(), "{}");
                assert_eq!(pdu.event_id(), message.event_id());
            }
            other => panic!("{version}: {other:?}"),
        }
        // So does an event that was redacted on its way.
        let redacted = redact_object(message.to_object(), &version.rules().redaction, None).expect("an event");
        let redacted = Pdu::from_json(version, redacted).expect("well-formed");
        assert!(matches!(verify(&redacted, &keys), Ok(Verified::Redacted(_))));
    }
}

#[test]
fn a_changed_event_or_a_wrong_key_is_refused() {
    let message = Room::public(RoomVersion::V12).event(CREATOR, "m.room.message", None, json!({ "body": "x" }));
    let keys = public_keys(&["one.example"]);
    for (from, to) in [("@creator:", "@alice:"), ("m.room.message", "m.room.massage"), ("\"depth\":", "\"depth\":1")] {
        let forged = Pdu::from_json_text(RoomVersion::V12, &message.json().replace(from, to)).expect("well-formed");
        assert!(verify(&forged, &keys).is_err(), "{from}");
    }
    let mut wrong = keys.clone();
    let other = key_pair_from_seed(&[8; 32], "test").expect("a key").public_key().to_vec();
    wrong.insert("one.example".to_owned(), PublicKeySet::from([("ed25519:test".to_owned(), Base64::new(other))]));
    assert!(verify(&message, &wrong).is_err());
    let unsigned = {
        let mut object = message.to_object();
        object.insert("signatures".to_owned(), CanonicalJsonValue::Object(Default::default()));
        Pdu::from_json(RoomVersion::V12, object).expect("well-formed")
    };
    assert!(required_signatures(&unsigned).expect("well-formed")[0].key_ids.is_empty());
    assert!(verify(&unsigned, &keys).is_err());
}

#[test]
fn a_restricted_join_needs_the_signature_of_the_server_that_allowed_it() {
    let content = json!({ "membership": "join", "join_authorised_via_users_server": ALICE });
    for version in RoomVersion::ALL {
        let join = Room::public(version).event(BOB, "m.room.member", Some(BOB), content.clone());
        let servers: Vec<_> = required_signatures(&join)
            .expect("well-formed")
            .into_iter()
            .map(|required| required.server_name.to_string())
            .collect();
        if version < RoomVersion::V8 {
            assert_eq!(servers, ["two.example"]);
            continue;
        }
        assert_eq!(servers, ["one.example", "two.example"]);
        let keys = public_keys(&["one.example", "two.example"]);
        assert!(verify(&join, &keys).is_err(), "{version}");
        let mut object = join.to_object();
        countersign(version, &mut object, &key_pair(), user(ALICE).server_name()).expect("an event");
        let join = Pdu::from_json(version, object).expect("well-formed");
        assert!(matches!(verify(&join, &keys), Ok(Verified::Valid(_))), "{version}");
    }
}
