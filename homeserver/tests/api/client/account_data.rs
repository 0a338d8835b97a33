use serde_json::json;

use crate::harness::{Engine, Server};

on_both_engines!(account_data_comes_back_as_it_was_put, what_has_an_endpoint_of_its_own_is_refused);

const USER: &str = "/_matrix/client/v3/user/@alice:example.org";

async fn account_data_comes_back_as_it_was_put(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let global = format!("{USER}/account_data/org.example.custom");
    let of_room = format!("{USER}/rooms/!room:example.org/account_data/org.example.custom");
    for path in [&global, &of_room] {
        server.get(path).by(&alice).await.error(404, "M_NOT_FOUND");
        for content in [json!({ "key": "värde", "nul": "\0", "list": [1, {}] }), json!({}), json!({ "other": 1.5 })] {
            assert_eq!(server.put(path).by(&alice).json(content.clone()).await.ok(), json!({}));
            assert_eq!(server.get(path).by(&alice).await.ok(), content);
        }
        server.put(path).by(&bob).json(json!({})).await.error(403, "M_FORBIDDEN");
        server.get(path).by(&bob).await.error(403, "M_FORBIDDEN");
        server.put(path).by(&alice).json(json!([])).await.error(400, "M_BAD_JSON");
        server.put(path).by(&alice).body("{").await.error(400, "M_NOT_JSON");
    }
    server.put(&of_room).by(&alice).json(json!({ "of": "room" })).await.ok();
    assert_eq!(server.get(&global).by(&alice).await.ok(), json!({ "other": 1.5 }));
    let long = format!("{USER}/account_data/{}", "x".repeat(300));
    server.put(&long).by(&alice).json(json!({})).await.error(400, "M_INVALID_PARAM");
    let no_room = format!("{USER}/rooms/room/account_data/x");
    server.put(&no_room).by(&alice).json(json!({})).await.error(400, "M_INVALID_PARAM");
}

async fn what_has_an_endpoint_of_its_own_is_refused(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    for path in [
        format!("{USER}/account_data/m.push_rules"),
        format!("{USER}/account_data/m.fully_read"),
        format!("{USER}/rooms/!room:example.org/account_data/m.fully_read"),
    ] {
        server.put(&path).by(&alice).json(json!({})).await.error(405, "M_BAD_JSON");
    }
    let rules = server.get(&format!("{USER}/account_data/m.push_rules")).by(&alice).await.ok();
    assert!(rules["global"]["override"].is_array());
}
