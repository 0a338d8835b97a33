use serde_json::json;

use crate::harness::{Engine, Server};

on_both_engines!(a_filter_is_kept_once_and_is_its_users_own);

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
