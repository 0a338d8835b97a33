use serde_json::json;

use super::typing::public_room;
use crate::harness::{Engine, Server, User};

on_both_engines!(receipts_are_for_members_and_for_events_of_the_room);

/// Sends a message and returns the event's id.
pub(super) async fn message(server: &Server, user: &User, room_id: &str, txn_id: &str) -> String {
    let path = format!("/_matrix/client/v3/rooms/{room_id}/send/m.room.message/{txn_id}");
    let answer = server.put(&path).by(user).json(json!({ "msgtype": "m.text", "body": "hello" })).await.ok();
    answer["event_id"].as_str().unwrap().to_owned()
}

async fn receipts_are_for_members_and_for_events_of_the_room(engine: Engine) {
    let server = Server::start(engine).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room_id = public_room(&server, &alice).await;
    server.clock.advance(std::time::Duration::from_millis(1));
    let other = public_room(&server, &alice).await;
    let event_id = message(&server, &alice, &room_id, "1").await;
    let path = |kind: &str, event_id: &str| format!("/_matrix/client/v3/rooms/{room_id}/receipt/{kind}/{event_id}");
    for kind in ["m.read", "m.read.private", "m.fully_read"] {
        assert_eq!(server.post(&path(kind, &event_id)).by(&alice).json(json!({})).await.ok(), json!({}));
    }
    let marker = format!("/_matrix/client/v3/user/{}/rooms/{room_id}/account_data/m.fully_read", alice.user_id);
    assert_eq!(server.get(&marker).by(&alice).await.ok(), json!({ "event_id": event_id }));
    let read = path("m.read", &event_id);
    server.post(&read).by(&alice).json(json!({ "thread_id": "main" })).await.ok();
    for bad in ["", "thread", "$another"] {
        server.post(&read).by(&alice).json(json!({ "thread_id": bad })).await.error(400, "M_INVALID_PARAM");
    }
    let threaded_marker = path("m.fully_read", &event_id);
    server.post(&threaded_marker).by(&alice).json(json!({ "thread_id": "main" })).await.error(400, "M_INVALID_PARAM");
    server.post(&path("m.seen", &event_id)).by(&alice).json(json!({})).await.error(400, "M_INVALID_PARAM");
    server.post(&path("m.read", "$unknown")).by(&alice).json(json!({})).await.error(404, "M_NOT_FOUND");
    let elsewhere = message(&server, &alice, &other, "2").await;
    server.post(&path("m.read", &elsewhere)).by(&alice).json(json!({})).await.error(404, "M_NOT_FOUND");
    server.post(&read).by(&bob).json(json!({})).await.error(403, "M_FORBIDDEN");
}
