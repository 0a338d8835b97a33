use serde_json::json;

use super::{receipts::message, typing::public_room};
use crate::harness::{Engine, Server};

on_both_engines!(all_markers_are_set_at_once_and_none_moves_back);

async fn all_markers_are_set_at_once_and_none_moves_back(engine: Engine) {
    let server = Server::start(engine).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room_id = public_room(&server, &alice).await;
    let first = message(&server, &alice, &room_id, "1").await;
    let second = message(&server, &alice, &room_id, "2").await;
    let path = format!("/_matrix/client/v3/rooms/{room_id}/read_markers");
    let body = json!({ "m.fully_read": second, "m.read": second, "m.read.private": first });
    assert_eq!(server.post(&path).by(&alice).json(body).await.ok(), json!({}));
    server.post(&path).by(&alice).json(json!({ "m.fully_read": first })).await.ok();
    let marker = format!("/_matrix/client/v3/user/{}/rooms/{room_id}/account_data/m.fully_read", alice.user_id);
    assert_eq!(server.get(&marker).by(&alice).await.ok(), json!({ "event_id": second }));
    server.post(&path).by(&alice).json(json!({})).await.ok();
    server.post(&path).by(&alice).json(json!({ "m.read": 5 })).await.error(400, "M_BAD_JSON");
    server.post(&path).by(&bob).json(json!({ "m.read": first })).await.error(403, "M_FORBIDDEN");
}
