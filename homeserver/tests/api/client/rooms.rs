use serde_json::{Value, json};

use super::{
    receipts::message,
    sync::{join, sync},
    typing::public_room,
};
use crate::harness::{Engine, Server};

on_both_engines!(a_room_is_read_by_its_members, history_is_paged_both_ways);

async fn a_room_is_read_by_its_members(engine: Engine) {
    let server = Server::start(engine).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room_id = public_room(&server, &alice).await;
    let event_id = message(&server, &alice, &room_id, "1").await;
    let path = |rest: &str| format!("/_matrix/client/v3/rooms/{room_id}/{rest}");
    for rest in ["state", "state/m.room.create", "state/m.room.create/", "members", "joined_members", "messages?dir=b"]
    {
        server.get(&path(rest)).by(&bob).await.error(403, "M_FORBIDDEN");
    }
    for rest in [format!("event/{event_id}"), format!("context/{event_id}")] {
        server.get(&path(&rest)).by(&bob).await.error(404, "M_NOT_FOUND");
    }
    join(&server, &bob, &room_id).await;
    let event = server.get(&path(&format!("event/{event_id}"))).by(&bob).await.ok();
    assert_eq!((&event["event_id"], &event["room_id"]), (&json!(event_id), &json!(room_id)));
    let context = server.get(&path(&format!("context/{event_id}?limit=4"))).by(&bob).await.ok();
    assert_eq!(context["event"]["event_id"], event_id);
    assert_eq!(context["events_before"].as_array().unwrap().len(), 2);
    assert_eq!(context["events_after"].as_array().unwrap().len(), 1);
    let state = server.get(&path("state")).by(&bob).await.ok();
    assert!(state.as_array().unwrap().iter().any(|event| event["type"] == "m.room.power_levels"));
    let rules = server.get(&path("state/m.room.join_rules")).by(&bob).await.ok();
    assert_eq!(rules["join_rule"], "public");
    let rules = server.get(&path("state/m.room.join_rules/?format=event")).by(&bob).await.ok();
    assert_eq!(rules["type"], "m.room.join_rules");
    server.get(&path("state/m.room.join_rules/other")).by(&bob).await.error(404, "M_NOT_FOUND");
    let members = server.get(&path("members?membership=join")).by(&bob).await.ok();
    assert_eq!(members["chunk"].as_array().unwrap().len(), 2);
    let joined = server.get(&path("joined_members")).by(&bob).await.ok();
    assert!(joined["joined"][&alice.user_id].is_object() && joined["joined"][&bob.user_id].is_object());
    let rooms = server.get("/_matrix/client/v3/joined_rooms").by(&bob).await.ok();
    assert_eq!(rooms, json!({ "joined_rooms": [room_id] }));
    let at = format!("/_matrix/client/v1/rooms/{room_id}/timestamp_to_event?ts=1&dir=f");
    assert!(server.get(&at).by(&bob).await.ok()["event_id"].is_string());
    let related = format!("/_matrix/client/v1/rooms/{room_id}/relations/{event_id}");
    assert_eq!(server.get(&related).by(&bob).await.ok()["chunk"], json!([]));
    let threads = format!("/_matrix/client/v1/rooms/{room_id}/threads");
    assert_eq!(server.get(&threads).by(&bob).await.ok()["chunk"], json!([]));
}

async fn history_is_paged_both_ways(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let room_id = public_room(&server, &alice).await;
    let before = sync(&server, &alice, "").await["next_batch"].as_str().unwrap().to_owned();
    let mut sent = Vec::new();
    for number in 0..5 {
        sent.push(message(&server, &alice, &room_id, &number.to_string()).await);
    }
    let messages = async |query: String| {
        server.get(&format!("/_matrix/client/v3/rooms/{room_id}/messages?{query}")).by(&alice).await.ok()
    };
    let ids = |page: &Value| -> Vec<String> {
        let chunk = page["chunk"].as_array().unwrap();
        chunk.iter().map(|event| event["event_id"].as_str().unwrap().to_owned()).collect()
    };
    let forward = messages(format!("dir=f&from={before}&limit=3")).await;
    assert_eq!(ids(&forward), sent[..3]);
    assert_eq!(forward["start"], before);
    let rest = messages(format!("dir=f&from={}&limit=3", forward["end"].as_str().unwrap())).await;
    assert_eq!(ids(&rest), sent[3..]);
    assert!(rest.get("end").is_none());
    let backward = messages(format!("dir=b&to={before}&limit=100")).await;
    let mut reversed = sent.clone();
    reversed.reverse();
    assert_eq!(ids(&backward), reversed);
    let path = format!("/_matrix/client/v3/rooms/{room_id}/messages");
    server.get(&format!("{path}?dir=b&from=nonsense")).by(&alice).await.error(400, "M_INVALID_PARAM");
    server.get(&path).by(&alice).await.error(400, "M_INVALID_PARAM");
}
