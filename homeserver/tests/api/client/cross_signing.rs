use ruma::{
    CanonicalJsonObject,
    serde::{Base64, base64::Standard},
    signatures::{Ed25519KeyPair, sign_json},
};
use serde_json::{Value, json};

use super::keys::device_keys;
use crate::harness::{Engine, PASSWORD, Server, User};

on_both_engines!(
    a_user_signs_another_user_and_only_the_signer_sees_it,
    new_keys_after_the_first_need_the_password,
    wrong_signatures_are_refused_one_by_one,
);

const KEYS: &str = "/_matrix/client/v3/keys/device_signing/upload";
const SIGNATURES: &str = "/_matrix/client/v3/keys/signatures/upload";
const QUERY: &str = "/_matrix/client/v3/keys/query";

/// A cross-signing key.
struct Key {
    pair: Ed25519KeyPair,
    public: String,
}

impl Key {
    fn new() -> Self {
        let document = Ed25519KeyPair::generate();
        let pair = Ed25519KeyPair::from_der(&document, "x".to_owned()).unwrap();
        let public = Base64::<Standard, _>::new(pair.public_key().to_vec()).encode();
        Self { pair: Ed25519KeyPair::from_der(&document, public.clone()).unwrap(), public }
    }

    fn json(&self, user: &User, usage: &str) -> Value {
        json!({
            "user_id": user.user_id, "usage": [usage], "keys": { format!("ed25519:{}", self.public): self.public },
        })
    }

    fn sign(&self, user: &User, object: Value) -> Value {
        let mut object: CanonicalJsonObject = serde_json::from_value(object).unwrap();
        sign_json(&user.user_id, &self.pair, &mut object).unwrap();
        serde_json::to_value(object).unwrap()
    }
}

/// Publishes keys of a user who has none yet; master and user-signing key.
async fn publish(server: &Server, user: &User) -> (Key, Key) {
    let (master, user_signing) = (Key::new(), Key::new());
    let body = json!({
        "master_key": master.json(user, "master"),
        "user_signing_key": master.sign(user, user_signing.json(user, "user_signing")),
    });
    server.post(KEYS).by(user).json(body).await.ok();
    (master, user_signing)
}

async fn new_keys_after_the_first_need_the_password(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let orphan = json!({ "self_signing_key": Key::new().json(&alice, "self_signing") });
    server.post(KEYS).by(&alice).json(orphan).await.error(400, "M_MISSING_PARAM");
    let (master, _) = publish(&server, &alice).await;
    let same = json!({ "master_key": master.json(&alice, "master") });
    server.post(KEYS).by(&alice).json(same).await.ok();
    let mut other = json!({ "master_key": Key::new().json(&alice, "master") });
    let session = server.post(KEYS).by(&alice).json(other.clone()).await.uia_session();
    other["auth"] = json!({
        "type": "m.login.password", "session": session, "user": alice.user_id, "password": PASSWORD,
    });
    server.post(KEYS).by(&alice).json(other.clone()).await.ok();
    let query = json!({ "device_keys": { &alice.user_id: [] } });
    let answer = server.post(QUERY).by(&alice).json(query).await.ok();
    assert_eq!(answer["master_keys"][&alice.user_id]["keys"], other["master_key"]["keys"]);
    assert_eq!(answer["user_signing_keys"], Value::Null, "the old master key vouched for it");
    let unsigned =
        json!({ "master_key": other["master_key"], "self_signing_key": Key::new().json(&alice, "self_signing") });
    let session = server.post(KEYS).by(&alice).json(unsigned.clone()).await.uia_session();
    let mut unsigned = unsigned;
    unsigned["auth"] = json!({
        "type": "m.login.password", "session": session, "user": alice.user_id, "password": PASSWORD,
    });
    server.post(KEYS).by(&alice).json(unsigned).await.error(400, "M_INVALID_SIGNATURE");
}

async fn a_user_signs_another_user_and_only_the_signer_sees_it(engine: Engine) {
    let server = Server::start(engine).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let (_, alices_user_signing) = publish(&server, &alice).await;
    let (bobs_master, _) = publish(&server, &bob).await;
    let signed = alices_user_signing.sign(&alice, bobs_master.json(&bob, "master"));
    let body = json!({ &bob.user_id: { &bobs_master.public: signed } });
    assert_eq!(server.post(SIGNATURES).by(&alice).json(body).await.ok(), json!({ "failures": {} }));
    let query = json!({ "device_keys": { &bob.user_id: [] } });
    let seen = server.post(QUERY).by(&alice).json(query.clone()).await.ok();
    assert!(seen["master_keys"][&bob.user_id]["signatures"][&alice.user_id].is_object(), "{seen}");
    let seen = server.post(QUERY).by(&bob).json(query).await.ok();
    assert!(seen["master_keys"][&bob.user_id]["signatures"].get(&alice.user_id).is_none(), "{seen}");
}

async fn wrong_signatures_are_refused_one_by_one(engine: Engine) {
    let server = Server::start(engine).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let (_, alices_user_signing) = publish(&server, &alice).await;
    let (bobs_master, bobs_user_signing) = publish(&server, &bob).await;
    server
        .post("/_matrix/client/v3/keys/upload")
        .by(&alice)
        .json(json!({ "device_keys": device_keys(&alice) }))
        .await
        .ok();
    let by_another = bobs_user_signing.sign(&alice, bobs_master.json(&bob, "master"));
    let body = json!({
        &bob.user_id: { &bobs_master.public: by_another, "unknown": {}, "\0": [] },
        &alice.user_id: { &alice.device_id: alices_user_signing.sign(&alice, device_keys(&alice)) },
    });
    let failures = server.post(SIGNATURES).by(&alice).json(body).await.ok()["failures"].clone();
    assert_eq!(failures[&bob.user_id][&bobs_master.public]["errcode"], "M_INVALID_SIGNATURE");
    assert_eq!(failures[&bob.user_id]["unknown"]["errcode"], "M_NOT_FOUND");
    assert_eq!(failures[&bob.user_id]["\0"]["errcode"], "M_BAD_JSON");
    assert_eq!(
        failures[&alice.user_id][&alice.device_id]["errcode"], "M_NOT_FOUND",
        "no self-signing key is published"
    );
}
