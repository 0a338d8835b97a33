use serde_json::json;

use crate::harness::{Engine, Server};

on_both_engines!(tags_are_set_listed_and_taken_away);

async fn tags_are_set_listed_and_taken_away(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let tags = "/_matrix/client/v3/user/@alice:example.org/rooms/!room:example.org/tags";
    assert_eq!(server.get(tags).by(&alice).await.ok(), json!({ "tags": {} }));
    server.put(&format!("{tags}/m.favourite")).by(&alice).json(json!({ "order": 0.25 })).await.ok();
    server.put(&format!("{tags}/u.work")).by(&alice).json(json!({})).await.ok();
    let both = json!({ "tags": { "m.favourite": { "order": 0.25 }, "u.work": {} } });
    assert_eq!(server.get(tags).by(&alice).await.ok(), both);
    // Clients learn of tags as account data of the room.
    let data = "/_matrix/client/v3/user/@alice:example.org/rooms/!room:example.org/account_data/m.tag";
    assert_eq!(server.get(data).by(&alice).await.ok(), both);
    server.delete(&format!("{tags}/m.favourite")).by(&alice).await.ok();
    assert_eq!(server.get(tags).by(&alice).await.ok(), json!({ "tags": { "u.work": {} } }));
    server.get(tags).by(&bob).await.error(403, "M_FORBIDDEN");
    let first = json!({ "order": "first" });
    server.put(&format!("{tags}/u.x")).by(&alice).json(first).await.error(400, "M_BAD_JSON");
    // Edits at one time do not lose each other.
    let names: Vec<String> = (0..6).map(|number| format!("{tags}/u.{number}")).collect();
    let edits = names.iter().map(|path| {
        let call = server.put(path).by(&alice).json(json!({}));
        async move { call.await.ok() }
    });
    futures_util::future::join_all(edits).await;
    assert_eq!(server.get(tags).by(&alice).await.ok()["tags"].as_object().unwrap().len(), 7);
}
