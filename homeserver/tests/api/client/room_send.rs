use serde_json::{Value, json};

use crate::harness::{Call, Engine, Server, User};

on_both_engines!(
    a_redaction_takes_power_or_the_own_event,
    a_transaction_makes_one_event_and_always_the_same_answer,
    an_alias_is_set_that_leads_to_the_room,
    bad_events_are_refused_and_not_stored,
    state_is_put_with_and_without_a_key,
    state_takes_power,
);

fn redact(server: &Server, user: &User, room_id: &str, event_id: &str, txn_id: &str) -> Call {
    let path = format!("/_matrix/client/v3/rooms/{room_id}/redact/{event_id}/{txn_id}");
    server.put(&path).by(user).json(json!({ "reason": "wrong room" }))
}

fn event_id(body: &Value) -> &str {
    body["event_id"].as_str().unwrap()
}

async fn a_transaction_makes_one_event_and_always_the_same_answer(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let phone = server.log_in("bob").await;
    let room_id = server.public_room(&alice, &[&bob]).await;
    let send = |user: &User, txn_id: &str| {
        server.send(user, &room_id, "m.room.message", txn_id, json!({ "msgtype": "m.text", "body": "once" }))
    };
    let first = send(&bob, "1").await.ok();
    assert_eq!(send(&bob, "1").await.ok(), first);
    assert_ne!(send(&bob, "2").await.ok(), first);
    assert_ne!(send(&phone, "1").await.ok(), first, "a transaction belongs to its device");
    let redaction = redact(&server, &bob, &room_id, event_id(&first), "1").await.ok();
    assert_ne!(redaction, first, "and to its endpoint");
    server.membership(&bob, &room_id, "leave", json!({})).await.ok();
    assert_eq!(send(&bob, "1").await.ok(), first);
    assert_eq!(redact(&server, &bob, &room_id, event_id(&first), "1").await.ok(), redaction);
    send(&bob, "3").await.error(403, "M_FORBIDDEN");
    send(&bob, &"x".repeat(300)).await.error(400, "M_INVALID_PARAM");
    send(&bob, "%00").await.error(400, "M_INVALID_PARAM");
    // Another room is another endpoint.
    let other = server.public_room(&bob, &[]).await;
    let elsewhere = server.send(&bob, &other, "m.room.message", "1", json!({ "body": "there" })).await.ok();
    assert_ne!(elsewhere, first);
    server.send(&bob, "!nowhere:example.org", "m.room.message", "1", json!({})).await.error(404, "M_NOT_FOUND");
}

async fn state_is_put_with_and_without_a_key(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let room_id = server.public_room(&alice, &[]).await;
    let base = format!("/_matrix/client/v3/rooms/{room_id}/state/m.room.topic");
    let put = |path: &str, topic: &str| server.put(path).by(&alice).json(json!({ "topic": topic }));
    let first = put(&base, "one").await.ok();
    let slash = format!("{base}/");
    assert_eq!(put(&slash, "one").await.ok(), first, "the same state is the same event");
    assert_ne!(put(&slash, "two").await.ok(), first);
    for path in [&base, &slash] {
        assert_eq!(server.get(path).by(&alice).await.ok(), json!({ "topic": "two" }));
    }
    put(&format!("{base}/key%2Fwith%20signs"), "keyed").await.ok();
    let keyed = server.get(&format!("{base}/key%2Fwith%20signs")).by(&alice).await.ok();
    assert_eq!(keyed, json!({ "topic": "keyed" }));
    assert_eq!(server.get(&base).by(&alice).await.ok(), json!({ "topic": "two" }));
    server.get(&format!("{base}/nothing")).by(&alice).await.error(404, "M_NOT_FOUND");
    put(&format!("{base}/@bob:example.org"), "whose").await.error(403, "M_FORBIDDEN");
}

async fn state_takes_power(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let outsider = server.register("carol").await;
    let room_id = server.public_room(&alice, &[&bob]).await;
    let name = json!({ "name": "Bob's" });
    for user in [&bob, &outsider] {
        server.put_state(user, &room_id, "m.room.name", "", name.clone()).await.error(403, "M_FORBIDDEN");
    }
    let create = server.put_state(&alice, &room_id, "m.room.create", "", json!({ "room_version": "11" }));
    create.await.error(403, "M_FORBIDDEN");
    let mut levels = server.state(&alice, &room_id, "m.room.power_levels", "").await.ok();
    levels["users"][&bob.user_id] = json!(50);
    server.put_state(&bob, &room_id, "m.room.power_levels", "", levels.clone()).await.error(403, "M_FORBIDDEN");
    server.put_state(&alice, &room_id, "m.room.power_levels", "", levels.clone()).await.ok();
    server.put_state(&bob, &room_id, "m.room.name", "", name).await.ok();
    levels["users"][&bob.user_id] = json!(100);
    server.put_state(&bob, &room_id, "m.room.power_levels", "", levels.clone()).await.error(403, "M_FORBIDDEN");
    levels["users"] = json!("nonsense");
    server.put_state(&alice, &room_id, "m.room.power_levels", "", levels).await.error(403, "M_FORBIDDEN");
    server.send(&outsider, &room_id, "m.room.message", "t", json!({ "body": "?" })).await.error(403, "M_FORBIDDEN");
}

async fn a_redaction_takes_power_or_the_own_event(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    for version in ["1", "2", "10", "11", "12"] {
        let body = json!({ "preset": "public_chat", "room_version": version });
        let room_id = server.create_room(&alice, body).await;
        server.membership(&bob, &room_id, "join", json!({})).await.ok();
        let hers = server.say(&alice, &room_id, "hers").await;
        let his = server.say(&bob, &room_id, "his").await;
        redact(&server, &bob, &room_id, &hers, "1").await.error(403, "M_FORBIDDEN");
        // Sent as an event it is the same.
        let sent = server.send(&bob, &room_id, "m.room.redaction", "2", json!({ "redacts": hers }));
        sent.await.error(403, "M_FORBIDDEN");
        let own = redact(&server, &bob, &room_id, &his, "3").await.ok();
        let event = server.event(&alice, &room_id, &his).await.ok();
        assert_eq!(event["content"], json!({}), "version {version}");
        assert_eq!(event["unsigned"]["redacted_because"]["event_id"], own["event_id"], "version {version}: {event}");
        let third = server.say(&bob, &room_id, "third").await;
        redact(&server, &alice, &room_id, &third, "4").await.ok();
        assert_eq!(server.event(&bob, &room_id, &third).await.ok()["content"], json!({}));
        assert_eq!(server.event(&bob, &room_id, &hers).await.ok()["content"]["body"], "hers");
        redact(&server, &alice, &room_id, "$nothing:example.org", "5").await.error(404, "M_NOT_FOUND");
        let elsewhere = server.public_room(&alice, &[]).await;
        redact(&server, &alice, &elsewhere, &hers, "6").await.error(404, "M_NOT_FOUND");
    }
}

async fn bad_events_are_refused_and_not_stored(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let room_id = server.public_room(&alice, &[]).await;
    let before = server.say(&alice, &room_id, "before").await;
    let path = format!("/_matrix/client/v3/rooms/{room_id}/send/m.room.message/bad");
    let send = |body: Vec<u8>| server.put(&path).by(&alice).header("content-type", "application/json").body(body);
    send(b"{\"body\":".to_vec()).await.error(400, "M_NOT_JSON");
    send(b"{\"body\":\"\xff\"}".to_vec()).await.error(400, "M_NOT_JSON");
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(5_000), "]".repeat(5_000));
    for body in ["[]", "1", "\"text\"", "{\"f\":1.5}", "{\"big\":9007199254740992}", &deep] {
        let reply = send(body.as_bytes().to_vec()).await;
        assert_eq!(reply.status, 400, "{}", reply.body);
        assert!(matches!(reply.body["errcode"].as_str(), Some("M_BAD_JSON" | "M_NOT_JSON")), "{}", reply.body);
    }
    let large = json!({ "body": "x".repeat(65_536) }).to_string();
    send(large.into_bytes()).await.error(413, "M_TOO_LARGE");
    let long_type = server.send(&alice, &room_id, &"x".repeat(256), "t", json!({}));
    long_type.await.error(413, "M_TOO_LARGE");
    let long_key = server.put_state(&alice, &room_id, "org.example", &"x".repeat(256), json!({}));
    long_key.await.error(413, "M_TOO_LARGE");
    // The transaction of a refused event is still free, and nothing came in between.
    let fits = json!({ "body": "x".repeat(60_000) }).to_string();
    let after = send(fits.into_bytes()).await.ok();
    let context = format!("/_matrix/client/v3/rooms/{room_id}/context/{}?limit=2", event_id(&after));
    let context = server.get(&context).by(&alice).await.ok();
    assert_eq!(context["events_before"][0]["event_id"], before);
}

async fn an_alias_is_set_that_leads_to_the_room(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let room_id = server.create_room(&alice, json!({ "room_alias_name": "hall" })).await;
    let put = |content: Value| server.put_state(&alice, &room_id, "m.room.canonical_alias", "", content);
    put(json!({ "alias": "#nowhere:example.org" })).await.error(400, "M_BAD_ALIAS");
    put(json!({ "alt_aliases": ["#nowhere:example.org"] })).await.error(400, "M_BAD_ALIAS");
    server.create_room(&alice, json!({ "room_alias_name": "yard" })).await;
    put(json!({ "alias": "#yard:example.org" })).await.error(400, "M_BAD_ALIAS");
    put(json!({ "alias": "#hall:example.org", "alt_aliases": ["#hall:example.org"] })).await.ok();
    put(json!({})).await.ok();
}
