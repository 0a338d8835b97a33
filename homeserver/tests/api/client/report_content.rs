use serde_json::json;

use super::directory::room;
use crate::harness::{Engine, Server};

on_both_engines!(what_is_there_can_be_reported);

async fn what_is_there_can_be_reported(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let room_id = room(&server, &alice, json!({})).await;
    let send = format!("/_matrix/client/v3/rooms/{room_id}/send/m.room.message/1");
    let sent = server.put(&send).by(&alice).json(json!({ "msgtype": "m.text", "body": "x" })).await.ok();
    let event_id = sent["event_id"].as_str().unwrap();
    let event = format!("/_matrix/client/v3/rooms/{room_id}/report/{event_id}");
    let why = json!({ "reason": "rude\u{0}", "score": -100 });
    server.post(&event).by(&alice).json(why.clone()).await.ok();
    server.post(&event).by(&alice).json(json!({})).await.ok();
    // Who is not in the room hears the same as for an event that is not there.
    server.post(&event).by(&bob).json(why.clone()).await.error(404, "M_NOT_FOUND");
    let nothing = format!("/_matrix/client/v3/rooms/{room_id}/report/$nothing");
    server.post(&nothing).by(&alice).json(why.clone()).await.error(404, "M_NOT_FOUND");
    server.post(&format!("/_matrix/client/v3/rooms/{room_id}/report")).by(&bob).json(why.clone()).await.ok();
    let nowhere = "/_matrix/client/v3/rooms/!nowhere:example.org/report";
    server.post(nowhere).by(&bob).json(why.clone()).await.error(404, "M_NOT_FOUND");
    server.post("/_matrix/client/v3/users/@nobody:example.org/report").by(&bob).json(why).await.ok();
}
