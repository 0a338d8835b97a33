use serde_json::json;

use crate::harness::{Engine, Server};

on_both_engines!(
    a_sync_delivers_messages_until_the_next_one_acknowledges_them,
    messages_of_any_shape_that_the_specification_has_are_taken,
    nonsense_is_refused,
);

const SEND: &str = "/_matrix/client/v3/sendToDevice";

async fn messages_of_any_shape_that_the_specification_has_are_taken(engine: Engine) {
    let server = Server::start(engine).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let body = json!({ "messages": {
        &bob.user_id: { "*": { "a": 1 }, &bob.device_id: { "b": 2 } },
        "@nobody:example.org": { "NONE": {} },
        "@carol:remote.invalid": { "*": {} },
    } });
    for _ in 0..2 {
        let answer = server.put(&format!("{SEND}/m.room.encrypted/1")).by(&alice).json(body.clone()).await.ok();
        assert_eq!(answer, json!({}));
    }
    server.put(&format!("{SEND}/m.dummy/1")).by(&alice).json(json!({ "messages": {} })).await.ok();
}

async fn a_sync_delivers_messages_until_the_next_one_acknowledges_them(engine: Engine) {
    let server = Server::start(engine).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let sync = async |since: &str| {
        let query = if since.is_empty() { String::new() } else { format!("&since={since}") };
        server.get(&format!("/_matrix/client/v3/sync?timeout=0{query}")).by(&bob).await.ok()
    };
    let start = sync("").await["next_batch"].as_str().unwrap().to_owned();
    // More than one answer carries.
    for number in 0..150 {
        let body = json!({ "messages": { &bob.user_id: { &bob.device_id: { "number": number } } } });
        server.put(&format!("{SEND}/m.test/{number}")).by(&alice).json(body).await.ok();
    }
    let (mut since, mut numbers) = (start.clone(), Vec::new());
    for _ in 0..4 {
        let answer = sync(&since).await;
        let repeated = sync(&since).await;
        assert_eq!(answer["to_device"], repeated["to_device"], "what may have been lost comes again");
        let events = answer["to_device"]["events"].as_array().cloned().unwrap_or_default();
        numbers.extend(events.iter().map(|event| event["content"]["number"].as_u64().unwrap()));
        answer["next_batch"].as_str().unwrap().clone_into(&mut since);
    }
    assert_eq!(numbers, (0..150).collect::<Vec<_>>());
    // A sync that finds nothing new writes nothing; the next one that does deletes what was acknowledged.
    let body = json!({ "messages": { &bob.user_id: { &bob.device_id: { "number": 150 } } } });
    server.put(&format!("{SEND}/m.test/150")).by(&alice).json(body).await.ok();
    sync(&since).await;
    // It answers before that is done.
    for _ in 0..100 {
        let late = sync(&start).await;
        let events = late["to_device"]["events"].as_array().unwrap();
        if events.len() == 1 && events[0]["content"]["number"] == 150 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("what was acknowledged is still there");
}

async fn nonsense_is_refused(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let path = format!("{SEND}/m.dummy/1");
    server.put(&path).by(&alice).body("{").await.error(400, "M_NOT_JSON");
    server.put(&path).by(&alice).json(json!({ "messages": [] })).await.error(400, "M_BAD_JSON");
    let large = json!({ "messages": { &alice.user_id: { "*": { "text": "x".repeat(70_000) } } } });
    server.put(&path).by(&alice).json(large).await.error(413, "M_TOO_LARGE");
    let nul = json!({ "messages": { &alice.user_id: { "\0": {} } } });
    server.put(&path).by(&alice).json(nul).await.error(400, "M_INVALID_PARAM");
    let empty = json!({ "messages": {} });
    server.put(&format!("{SEND}/m.dummy/%00")).by(&alice).json(empty.clone()).await.error(400, "M_INVALID_PARAM");
    server.put(&path).json(empty).await.error(401, "M_MISSING_TOKEN");
}
