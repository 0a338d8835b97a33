use serde_json::{Value, json};

use crate::harness::{Engine, Server, User};

on_both_engines!(
    changes_between_tokens_need_tokens_of_this_server,
    device_keys_are_uploaded_and_queried,
    keys_of_a_deleted_device_are_gone,
    nonsense_is_refused,
    one_time_keys_are_claimed_once,
);

const UPLOAD: &str = "/_matrix/client/v3/keys/upload";
const QUERY: &str = "/_matrix/client/v3/keys/query";
const CLAIM: &str = "/_matrix/client/v3/keys/claim";

pub(super) fn device_keys(user: &User) -> Value {
    json!({
        "user_id": user.user_id,
        "device_id": user.device_id,
        "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
        "keys": {
            format!("curve25519:{}", user.device_id): "wjLpTLRqbqBzLs63aYaEv2Boi6cFEbbM/sSRQ2oAKk4",
            format!("ed25519:{}", user.device_id): "nE6W2fCblxDcOFmeEtCHNl8/l8bXcu7GKyAswA4r3mM",
        },
        "signatures": { &user.user_id: { format!("ed25519:{}", user.device_id): "m53Wkbh2HXkc3vFApZvCrfXcX3AI51GsDHustMhKwlv3TuOJMj4wistcOTM8q2+e/Ro7rWFUb9ZfnNbwptSUBA" } },
    })
}

async fn device_keys_are_uploaded_and_queried(engine: Engine) {
    let server = Server::start(engine).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let counts = server.post(UPLOAD).by(&alice).json(json!({ "device_keys": device_keys(&alice) })).await.ok();
    assert_eq!(counts, json!({ "one_time_key_counts": { "signed_curve25519": 0 } }));
    let query =
        json!({ "device_keys": { &alice.user_id: [], "@nobody:example.org": [], "@carol:remote.invalid": [] } });
    let answer = server.post(QUERY).by(&bob).json(query).await.ok();
    let mut expected = device_keys(&alice);
    if let Some(unsigned) = answer["device_keys"][&alice.user_id][&alice.device_id].get("unsigned") {
        expected["unsigned"] = unsigned.clone();
    }
    assert_eq!(answer["device_keys"][&alice.user_id], json!({ &alice.device_id: expected }));
    assert_eq!(answer["device_keys"]["@nobody:example.org"], json!({}));
    assert!(answer["failures"]["remote.invalid"].is_object(), "{answer}");
    let others = json!({ "device_keys": device_keys(&bob) });
    server.post(UPLOAD).by(&alice).json(others).await.error(400, "M_INVALID_PARAM");
}

async fn one_time_keys_are_claimed_once(engine: Engine) {
    let server = Server::start(engine).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let key = |name: &str| json!({ "key": name, "signatures": {} });
    let upload = json!({
        "one_time_keys": { "signed_curve25519:AAAA": key("one") },
        "fallback_keys": { "signed_curve25519:FFFF": { "key": "fallback", "fallback": true, "signatures": {} } },
    });
    let counts = server.post(UPLOAD).by(&alice).json(upload.clone()).await.ok();
    assert_eq!(counts["one_time_key_counts"]["signed_curve25519"], 1);
    assert_eq!(server.post(UPLOAD).by(&alice).json(upload).await.ok(), counts, "the same again is no error");
    let changed = json!({ "one_time_keys": { "signed_curve25519:AAAA": key("another") } });
    let error = server.post(UPLOAD).by(&alice).json(changed).await.error(400, "M_UNKNOWN");
    assert!(error["error"].as_str().unwrap().contains("already exists"), "clients look for these words");
    let claim = json!({ "one_time_keys": { &alice.user_id: { &alice.device_id: "signed_curve25519" } } });
    for name in ["signed_curve25519:AAAA", "signed_curve25519:FFFF", "signed_curve25519:FFFF"] {
        let answer = server.post(CLAIM).by(&bob).json(claim.clone()).await.ok();
        let keys = answer["one_time_keys"][&alice.user_id][&alice.device_id].as_object().unwrap();
        assert_eq!(keys.keys().collect::<Vec<_>>(), [name]);
    }
    let none = json!({ "one_time_keys": { &bob.user_id: { &bob.device_id: "signed_curve25519" } } });
    assert_eq!(server.post(CLAIM).by(&alice).json(none).await.ok()["one_time_keys"], json!({}));
}

async fn keys_of_a_deleted_device_are_gone(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let phone = server.log_in("alice").await;
    let keys = json!({
        "device_keys": device_keys(&phone),
        "one_time_keys": { "signed_curve25519:AAAA": { "key": "one", "signatures": {} } },
    });
    server.post(UPLOAD).by(&phone).json(keys).await.ok();
    server.post("/_matrix/client/v3/logout").by(&phone).await.ok();
    let query = json!({ "device_keys": { &alice.user_id: [] } });
    let answer = server.post(QUERY).by(&alice).json(query).await.ok();
    assert_eq!(answer["device_keys"][&alice.user_id], json!({}));
    let claim = json!({ "one_time_keys": { &alice.user_id: { &phone.device_id: "signed_curve25519" } } });
    assert_eq!(server.post(CLAIM).by(&alice).json(claim).await.ok()["one_time_keys"], json!({}));
}

async fn changes_between_tokens_need_tokens_of_this_server(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    server.post(UPLOAD).by(&alice).json(json!({ "device_keys": device_keys(&alice) })).await.ok();
    let changes = "/_matrix/client/v3/keys/changes";
    let answer = server.get(&format!("{changes}?from=l&to=l1.1000")).by(&alice).await.ok();
    assert_eq!(answer, json!({ "changed": [alice.user_id], "left": [] }));
    assert_eq!(server.get(&format!("{changes}?from=l&to=l")).by(&alice).await.ok()["changed"], json!([]));
    for query in ["from=l&to=s1_2", "from=&to=l", "from=l9999.1&to=l"] {
        server.get(&format!("{changes}?{query}")).by(&alice).await.error(400, "M_INVALID_PARAM");
    }
    server.get(changes).await.error(401, "M_MISSING_TOKEN");
}

async fn nonsense_is_refused(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    server.post(UPLOAD).by(&alice).body("{").await.error(400, "M_NOT_JSON");
    server.post(UPLOAD).by(&alice).json(json!({ "device_keys": 5 })).await.error(400, "M_BAD_JSON");
    let nul = json!({ "one_time_keys": { "signed_curve25519:\0": { "key": "one", "signatures": {} } } });
    let status = server.post(UPLOAD).by(&alice).json(nul).await.status.as_u16();
    assert_eq!(status, 400);
    let deep = format!("{}1{}", "[".repeat(5_000), "]".repeat(5_000));
    let body = format!(r#"{{"one_time_keys": {{"signed_curve25519:AAAA": {deep}}}}}"#);
    assert_eq!(server.post(UPLOAD).by(&alice).body(body).await.status.as_u16(), 400);
    let nobody = json!({ "one_time_keys": { "@nobody:example.org": { "\0": "signed_curve25519" } } });
    assert_eq!(server.post(CLAIM).by(&alice).json(nobody).await.ok()["one_time_keys"], json!({}));
}
