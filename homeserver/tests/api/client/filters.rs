use serde_json::{Value, json};

use crate::harness::{Engine, Server};

on_both_engines!(a_filter_is_kept_once_and_is_its_users_own, events_come_in_the_shape_that_a_filter_asks_for);

async fn a_filter_is_kept_once_and_is_its_users_own(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let path = "/_matrix/client/v3/user/@alice:example.org/filter";
    let filter = json!({ "room": { "timeline": { "limit": 5, "types": ["m.room.message"] } } });
    let first = server.post(path).by(&alice).json(filter.clone()).await.ok();
    let again = server.post(path).by(&alice).json(filter.clone()).await.ok();
    assert_eq!(first, again);
    let id = first["filter_id"].as_str().unwrap();
    assert!(!id.starts_with('{'));
    assert_eq!(server.get(&format!("{path}/{id}")).by(&alice).await.ok(), filter);
    server.get(&format!("{path}/unknown")).by(&alice).await.error(404, "M_NOT_FOUND");
    server.get(&format!("{path}/{id}")).by(&bob).await.error(403, "M_FORBIDDEN");
    server.post(path).by(&bob).json(filter).await.error(403, "M_FORBIDDEN");
    let wrong = json!({ "room": { "timeline": { "limit": "many" } } });
    server.post(path).by(&alice).json(wrong).await.error(400, "M_BAD_JSON");
}

async fn events_come_in_the_shape_that_a_filter_asks_for(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let room_id = super::typing::public_room(&server, &alice).await;
    let sync = async |filter: Value, since: Option<&str>| {
        let filter: String = url::form_urlencoded::byte_serialize(filter.to_string().as_bytes()).collect();
        let since = since.map_or_else(String::new, |since| format!("&since={since}"));
        server.get(&format!("/_matrix/client/v3/sync?filter={filter}{since}")).by(&alice).await.ok()
    };
    let first = sync(json!({}), None).await;
    let since = first["next_batch"].as_str().unwrap();
    let path = format!("/_matrix/client/v3/rooms/{room_id}/send/m.room.message/1");
    let message = json!({ "body": "hello", "msgtype": "m.text" });
    server.put(&path).by(&alice).json(message.clone()).await.ok();
    for since in [None, Some(since)] {
        let newest = |sync: &Value| {
            let room = &sync["rooms"]["join"][&room_id];
            room["timeline"]["events"].as_array().unwrap().last().unwrap().clone()
        };
        let fields = json!({ "event_fields": ["type", "content.body", "content.none", "none"] });
        let event = newest(&sync(fields, since).await);
        assert_eq!(event, json!({ "type": "m.room.message", "content": { "body": "hello" } }));
        let event = newest(&sync(json!({ "event_format": "federation" }), since).await);
        for field in ["auth_events", "prev_events", "hashes", "signatures", "depth", "unsigned"] {
            assert!(!event[field].is_null(), "{field} is missing: {event}");
        }
        assert_eq!((&event["room_id"], &event["content"]), (&json!(room_id), &message));
        let both = json!({ "event_format": "federation", "event_fields": ["depth"] });
        let event = newest(&sync(both, since).await);
        assert_eq!(event.as_object().unwrap().keys().collect::<Vec<_>>(), ["depth"]);
    }
}
