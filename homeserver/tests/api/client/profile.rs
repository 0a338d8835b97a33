use serde_json::json;

use crate::harness::{Engine, Server};

on_both_engines!(a_profile_has_any_field, fields_have_limits, only_the_user_changes_a_profile);

const PROFILE: &str = "/_matrix/client/v3/profile/@alice:example.org";

async fn a_profile_has_any_field(engine: Engine) {
    let server = Server::start(engine).await;
    server.get(PROFILE).await.error(404, "M_NOT_FOUND");
    let alice = server.register("alice").await;
    assert_eq!(server.get(PROFILE).await.ok(), json!({}));
    for field in [
        json!({ "displayname": "Alice ☂" }),
        json!({ "avatar_url": "mxc://example.org/abc" }),
        json!({ "m.tz": "Europe/Berlin" }),
        json!({ "org.example.list": [1, { "deep": null }] }),
    ] {
        let key = field.as_object().unwrap().keys().next().unwrap().clone();
        let path = format!("{PROFILE}/{key}");
        server.get(&path).await.error(404, "M_NOT_FOUND");
        server.put(&path).by(&alice).json(field.clone()).await.ok();
        assert_eq!(server.get(&path).await.ok(), field);
    }
    assert_eq!(server.get(PROFILE).await.ok().as_object().unwrap().len(), 4);
    server.delete(&format!("{PROFILE}/m.tz")).by(&alice).await.ok();
    // The old ways to take a field away.
    server.put(&format!("{PROFILE}/displayname")).by(&alice).json(json!({ "displayname": "" })).await.ok();
    server.put(&format!("{PROFILE}/avatar_url")).by(&alice).json(json!({ "avatar_url": null })).await.ok();
    assert_eq!(server.get(PROFILE).await.ok(), json!({ "org.example.list": [1, { "deep": null }] }));
}

async fn only_the_user_changes_a_profile(engine: Engine) {
    let server = Server::start(engine).await;
    server.register("alice").await;
    let bob = server.register("bob").await;
    let path = format!("{PROFILE}/displayname");
    let name = json!({ "displayname": "Mallory" });
    server.put(&path).json(name.clone()).await.error(401, "M_MISSING_TOKEN");
    server.put(&path).by(&bob).json(name).await.error(403, "M_FORBIDDEN");
    server.delete(&path).by(&bob).await.error(403, "M_FORBIDDEN");
    server.get("/_matrix/client/v3/profile/alice").await.error(400, "M_INVALID_PARAM");
}

async fn fields_have_limits(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let put = |key: &str, body| server.put(&format!("{PROFILE}/{key}")).by(&alice).json(body);
    put("displayname", json!({ "displayname": 7 })).await.error(400, "M_INVALID_PARAM");
    put("displayname", json!({ "displayname": "x".repeat(2000) })).await.error(400, "M_INVALID_PARAM");
    put("displayname", json!({ "displayname": "\0" })).await.error(400, "M_INVALID_PARAM");
    put("avatar_url", json!({ "avatar_url": "https://example.org/a.png" })).await.error(400, "M_INVALID_PARAM");
    put("Upper", json!({ "Upper": 1 })).await.error(400, "M_INVALID_PARAM");
    put("m.tz", json!({ "other": 1 })).await.error(400, "M_MISSING_PARAM");
    let long = "x".repeat(300);
    put(&long, json!({ (long.as_str()): 1 })).await.error(400, "M_KEY_TOO_LARGE");
    put("org.example.a", json!({ "org.example.a": "x".repeat(40_000) })).await.ok();
    let more = json!({ "org.example.b": "x".repeat(40_000) });
    put("org.example.b", more).await.error(400, "M_PROFILE_TOO_LARGE");
    assert_eq!(server.get(PROFILE).await.ok().as_object().unwrap().len(), 1);
}
