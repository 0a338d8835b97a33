//! What every server may ask, and what is refused to those who do not say who they are. Two servers that share rooms are
//! tested in `src/federation/tests.rs`.

use gatehouse_shared::contract::Verdict;
use ruma::{
    CanonicalJsonObject,
    serde::Base64,
    signatures::{PublicKeyMap, PublicKeySet, verify_json},
};
use serde_json::{Value, json};

use crate::{
    harness::{BEGINNING, Engine, SERVER_NAME, Server},
    peer::Peer,
};

on_both_engines!(
    keys_are_published_and_signed_by_themselves,
    an_openid_token_names_its_user_to_other_servers,
    who_does_not_sign_learns_nothing,
    whose_signature_was_right_is_told_to_the_edge,
);

async fn keys_are_published_and_signed_by_themselves(engine: Engine) {
    let server = Server::start(engine).await;
    for path in ["/_matrix/key/v2/server", "/_matrix/key/v2/server/ed25519:any"] {
        verify(&server.get(path).await.ok());
    }
    let notarised = server.get(&format!("/_matrix/key/v2/query/{SERVER_NAME}")).await.ok();
    verify(&notarised["server_keys"][0]);
    let asked = json!({ "server_keys": { SERVER_NAME: {} } });
    let notarised = server.post("/_matrix/key/v2/query").json(asked).await.ok();
    verify(&notarised["server_keys"][0]);
    let unknown = server.get("/_matrix/key/v2/query/nowhere.invalid?minimum_valid_until_ts=1").await.ok();
    assert_eq!(unknown, json!({ "server_keys": [] }));
    assert_eq!(server.get("/_matrix/federation/v1/version").await.ok()["server"]["name"], "Gatehouse");
}

fn verify(document: &Value) {
    assert_eq!(document["server_name"], SERVER_NAME);
    assert!(document["valid_until_ts"].as_u64().unwrap() > BEGINNING);
    let (key_id, key) = document["verify_keys"].as_object().unwrap().iter().next().unwrap();
    let key = Base64::parse(key["key"].as_str().unwrap()).unwrap();
    let keys = PublicKeyMap::from([(SERVER_NAME.to_owned(), PublicKeySet::from([(key_id.clone(), key)]))]);
    let object: CanonicalJsonObject = serde_json::from_value(document.clone()).unwrap();
    verify_json(&keys, &object).unwrap();
}

async fn an_openid_token_names_its_user_to_other_servers(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let path = format!("/_matrix/client/v3/user/{}/openid/request_token", alice.user_id);
    let token = server.post(&path).by(&alice).json(json!({})).await.ok();
    let token = token["access_token"].as_str().unwrap();
    let userinfo = |token: &str| server.get(&format!("/_matrix/federation/v1/openid/userinfo?access_token={token}"));
    assert_eq!(userinfo(token).await.ok(), json!({ "sub": alice.user_id }));
    userinfo("nonsense").await.error(401, "M_UNKNOWN_TOKEN");
}

async fn who_does_not_sign_learns_nothing(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let targets = [
        "/_matrix/federation/v1/event/$event",
        "/_matrix/federation/v1/state/!room:example.org?event_id=$event",
        "/_matrix/federation/v1/make_join/!room:example.org/@bob:other.test?ver=12",
        "/_matrix/federation/v1/query/profile?user_id=@alice:example.org",
        "/_matrix/federation/v1/user/devices/@alice:example.org",
        "/_matrix/federation/v1/publicRooms",
        "/_matrix/federation/v1/media/download/abc",
    ];
    let headers = [
        "",
        "Bearer nonsense",
        "X-Matrix",
        r#"X-Matrix origin="other.test",destination="somebody.else",key="ed25519:1",sig="dGVzdA""#,
        // Nobody is there who could tell the key.
        r#"X-Matrix origin="127.0.0.1:1",destination="example.org",key="ed25519:1",sig="dGVzdA""#,
        r#"X-Matrix origin="example.org",destination="example.org",key="ed25519:1",sig="dGVzdA""#,
    ];
    for target in targets {
        server.get(target).await.error(401, "M_UNAUTHORIZED");
        for header in headers {
            let reply = server.get(target).header("authorization", header).await;
            assert_eq!(reply.status, 401, "{target} {header}");
        }
        // A client's token is no server's signature.
        server.get(target).by(&alice).await.error(401, "M_UNAUTHORIZED");
    }
    let send = || server.put("/_matrix/federation/v1/send/1");
    send().json(json!({ "pdus": [] })).await.error(401, "M_UNAUTHORIZED");
    let forged = r#"X-Matrix origin="example.org",destination="example.org",key="ed25519:1",sig="dGVzdA""#;
    let reply = send().header("authorization", forged).json(json!({ "pdus": [] })).await;
    assert_eq!(reply.verdict().unwrap().to_string(), "bad-signature example.org");
}

async fn whose_signature_was_right_is_told_to_the_edge(engine: Engine) {
    let peer = Peer::start().await;
    let server = Server::start_with(engine, |config| peer.permit(config)).await;
    server.register("alice").await;
    let get = async |target: &str| {
        let signature = peer.signature("GET", target, None);
        server.get(target).header("authorization", &signature).await
    };
    let send = async |txn_id: &str, body: &Value| {
        let target = format!("/_matrix/federation/v1/send/{txn_id}");
        let signature = peer.signature("PUT", &target, Some(body));
        server.put(&target).header("authorization", &signature).json(body.clone()).await
    };
    let transaction = |pdus: Vec<Value>| json!({ "origin": peer.name, "origin_server_ts": BEGINNING, "pdus": pdus });

    // What is answered, what is refused, and what cannot even be read.
    let known = get("/_matrix/federation/v1/query/profile?user_id=@alice:example.org").await;
    assert_eq!((known.status.as_u16(), known.origin()), (200, Some(peer.name.as_str())));
    let unknown = get("/_matrix/federation/v1/query/profile?user_id=@nobody:example.org").await;
    assert_eq!((unknown.status.as_u16(), unknown.origin()), (404, Some(peer.name.as_str())));
    let unreadable = get("/_matrix/federation/v1/query/profile?user_id=nobody").await;
    assert_eq!((unreadable.status.as_u16(), unreadable.origin()), (400, Some(peer.name.as_str())));
    let sent = send("1", &transaction(Vec::new())).await;
    assert_eq!((sent.status.as_u16(), sent.origin(), sent.verdict()), (200, Some(peer.name.as_str()), None));

    // A limit of the shard's own: the verdict is about the server.
    let event = json!({ "room_id": "!room:example.org", "type": "m.room.message" });
    let refused = send("2", &transaction(vec![event; 51])).await;
    assert_eq!((refused.status.as_u16(), refused.origin()), (413, Some(peer.name.as_str())));
    assert_eq!(refused.verdict(), Some(Verdict::RateLimited("transaction".to_owned())));

    // A claim is no proof.
    let target = "/_matrix/federation/v1/query/profile?user_id=@alice:example.org";
    let other = peer.signature("GET", "/_matrix/federation/v1/version", None);
    let wrong = server.get(target).header("authorization", &other).await;
    assert_eq!((wrong.status.as_u16(), wrong.origin()), (401, None));
    assert_eq!(wrong.verdict(), Some(Verdict::BadSignature(peer.name.to_string())));
    assert_eq!(server.get(target).await.origin(), None);
}
