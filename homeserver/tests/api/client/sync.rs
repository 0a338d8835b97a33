use serde_json::{Value, json};

use super::{receipts::message, typing::public_room};
use crate::harness::{Engine, Server, User};

on_both_engines!(
    a_sync_goes_on_where_the_last_one_ended,
    filters_are_given_inline_or_by_id,
    what_is_no_token_or_filter_is_refused,
    to_device_messages_and_typing_come_with_a_sync,
);

/// A sync; `query` begins with `&` unless it is empty.
pub(super) async fn sync(server: &Server, user: &User, query: &str) -> Value {
    server.get(&format!("/_matrix/client/v3/sync?timeout=0{query}")).by(user).await.ok()
}

pub(super) async fn join(server: &Server, user: &User, room_id: &str) {
    server.post(&format!("/_matrix/client/v3/join/{room_id}")).by(user).json(json!({})).await.ok();
}

fn since(answer: &Value) -> String {
    format!("&since={}", answer["next_batch"].as_str().unwrap())
}

fn event_ids(events: &Value) -> Vec<&str> {
    events.as_array().into_iter().flatten().map(|event| event["event_id"].as_str().unwrap()).collect()
}

async fn a_sync_goes_on_where_the_last_one_ended(engine: Engine) {
    let server = Server::start(engine).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room_id = public_room(&server, &alice).await;
    join(&server, &bob, &room_id).await;
    let first = sync(&server, &bob, "").await;
    let room = &first["rooms"]["join"][&room_id];
    assert!(room["timeline"]["events"].as_array().is_some_and(|events| !events.is_empty()), "{first}");
    assert_eq!(room["summary"]["m.joined_member_count"], 2);
    let event_id = message(&server, &alice, &room_id, "1").await;
    let second = sync(&server, &bob, &since(&first)).await;
    let room = &second["rooms"]["join"][&room_id];
    assert_eq!(event_ids(&room["timeline"]["events"]), [&*event_id]);
    assert_eq!(room["timeline"]["limited"], false);
    assert_eq!(room["unread_notifications"]["notification_count"], 1);
    assert!(room["timeline"]["events"][0]["unsigned"].get("transaction_id").is_none());
    let third = sync(&server, &bob, &since(&second)).await;
    assert_eq!(third.get("rooms"), None, "{third}");
    assert_eq!(third["device_one_time_keys_count"], json!({ "signed_curve25519": 0 }));

    // The device that sent it recognises it; another device of the same user does not.
    let own = sync(&server, &alice, &since(&first)).await;
    let event = &own["rooms"]["join"][&room_id]["timeline"]["events"][0];
    assert_eq!(event["unsigned"]["transaction_id"], "1");
    let other = server.log_in("alice").await;
    let own = sync(&server, &other, &since(&first)).await;
    let event = &own["rooms"]["join"][&room_id]["timeline"]["events"][0];
    assert!(event["unsigned"].get("transaction_id").is_none());

    // A shard that has just started goes on with the tokens of the one before.
    let server = server.restart().await;
    let event_id = message(&server, &alice, &room_id, "2").await;
    let fourth = sync(&server, &bob, &since(&third)).await;
    assert_eq!(event_ids(&fourth["rooms"]["join"][&room_id]["timeline"]["events"]), [&*event_id]);
    let whole = sync(&server, &bob, &format!("{}&full_state=true", since(&fourth))).await;
    let state = &whole["rooms"]["join"][&room_id]["state"]["events"];
    assert!(state.as_array().unwrap().iter().any(|event| event["type"] == "m.room.create"));
    let after = sync(&server, &bob, "&use_state_after=true").await;
    let room = &after["rooms"]["join"][&room_id];
    assert!(room.get("state").is_none() && room["state_after"]["events"].is_array());
}

async fn filters_are_given_inline_or_by_id(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let room_id = public_room(&server, &alice).await;
    message(&server, &alice, &room_id, "1").await;
    let filter = json!({ "room": { "timeline": { "types": ["m.room.message"] }, "state": { "types": [] } } });
    let path = format!("/_matrix/client/v3/user/{}/filter", alice.user_id);
    let filter_id = server.post(&path).by(&alice).json(filter.clone()).await.ok();
    let inline = url::form_urlencoded::byte_serialize(filter.to_string().as_bytes()).collect::<String>();
    for filter in [inline.as_str(), filter_id["filter_id"].as_str().unwrap()] {
        let answer = sync(&server, &alice, &format!("&filter={filter}")).await;
        let room = &answer["rooms"]["join"][&room_id];
        assert_eq!(room["timeline"]["events"].as_array().unwrap().len(), 1);
        assert_eq!(room["state"]["events"], json!([]));
    }
}

async fn what_is_no_token_or_filter_is_refused(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let path = "/_matrix/client/v3/sync";
    server.get(path).await.error(401, "M_MISSING_TOKEN");
    for since in ["s72594_4483_1934", "l1", "l1.99999999999999999999", "%00"] {
        server.get(&format!("{path}?since={since}")).by(&alice).await.error(400, "M_INVALID_PARAM");
    }
    server.get(&format!("{path}?filter=unknown")).by(&alice).await.error(404, "M_NOT_FOUND");
    server.get(&format!("{path}?filter=%7B%22room%22:5%7D")).by(&alice).await.error(400, "M_INVALID_PARAM");
    // A token from the future is one of another shard that is ahead; it waits for nothing here.
    server.get(&format!("{path}?since=l1.999999")).by(&alice).await.ok();
}

async fn to_device_messages_and_typing_come_with_a_sync(engine: Engine) {
    let server = Server::start(engine).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room_id = public_room(&server, &alice).await;
    join(&server, &bob, &room_id).await;
    let first = sync(&server, &bob, "").await;
    let body = json!({ "messages": { &bob.user_id: { &bob.device_id: { "hello": "world" } } } });
    server.put("/_matrix/client/v3/sendToDevice/m.test/1").by(&alice).json(body).await.ok();
    let typing = format!("/_matrix/client/v3/rooms/{room_id}/typing/{}", alice.user_id);
    server.put(&typing).by(&alice).json(json!({ "typing": true, "timeout": 30_000 })).await.ok();
    let second = sync(&server, &bob, &since(&first)).await;
    assert_eq!(second["to_device"]["events"][0]["content"], json!({ "hello": "world" }));
    assert_eq!(second["to_device"]["events"][0]["sender"], alice.user_id);
    let ephemeral = &second["rooms"]["join"][&room_id]["ephemeral"]["events"][0];
    assert_eq!(ephemeral, &json!({ "content": { "user_ids": [alice.user_id] }, "type": "m.typing" }));
    let third = sync(&server, &bob, &since(&second)).await;
    assert!(third.get("to_device").is_none() && third.get("rooms").is_none(), "{third}");
}
