//! Servers that the operator's policy denies are not called, whoever asks for it.

use std::fs;

use serde_json::json;

use crate::{
    harness::{Engine, Server},
    peer::Peer,
};

on_both_engines!(what_needs_a_denied_server_is_refused_and_it_is_not_called);

async fn what_needs_a_denied_server_is_refused_and_it_is_not_called(engine: Engine) {
    let folder = tempfile::tempdir().unwrap();
    let policy = folder.path().join("policy.toml");
    let peer = Peer::start().await;
    // The host alone stands for every port.
    fs::write(&policy, "[servers]\ndeny = [\"127.0.0.1\"]\n[connections]\nper_client = 10\n").unwrap();
    let server = Server::start_with(engine, |config| {
        peer.permit(config);
        config.federation.policy = Some(policy.clone());
    })
    .await;
    let alice = server.register("alice").await;
    let name = &peer.name;
    let refused = async |call: crate::harness::Call| {
        let answer = call.by(&alice).await.error(403, "M_FORBIDDEN");
        assert_eq!(answer["error"], format!("This server has nothing to do with {name}"));
    };
    refused(server.get(&format!("/_matrix/client/v3/profile/@bob:{name}"))).await;
    refused(server.post(&format!("/_matrix/client/v3/publicRooms?server={name}")).json(json!({}))).await;
    refused(server.post(&format!("/_matrix/client/v3/join/!room:{name}")).json(json!({}))).await;
    let nameless = format!("!{}", "A".repeat(43));
    refused(server.post(&format!("/_matrix/client/v3/join/{nameless}?via={name}")).json(json!({}))).await;
    refused(server.post(&format!("/_matrix/client/v3/knock/{nameless}?via={name}")).json(json!({}))).await;
    refused(server.get(&format!("/_matrix/client/v1/media/download/{name}/abcdef"))).await;
    let room = server.post("/_matrix/client/v3/createRoom").by(&alice).json(json!({})).await.ok();
    let invite = format!("/_matrix/client/v3/rooms/{}/invite", room["room_id"].as_str().unwrap());
    refused(server.post(&invite).json(json!({ "user_id": format!("@bob:{name}") }))).await;
    let query = json!({ "device_keys": { format!("@bob:{name}"): [] } });
    let keys = server.post("/_matrix/client/v3/keys/query").by(&alice).json(query).await.ok();
    assert!(keys["failures"].get(name.as_str()).is_some(), "{keys}");
    // Its signature could be verified only with a key that is not fetched from it.
    let target = "/_matrix/federation/v1/query/profile?user_id=@alice:example.org";
    let signed = server.get(target).header("authorization", &peer.signature("GET", target, None));
    signed.await.error(401, "M_UNAUTHORIZED");
    assert_eq!(peer.asked(), 0);

    // A broken list changes nothing, and one that is mended takes effect.
    fs::write(&policy, "[servers]\ndeny = [\"nonsense*\"]\n").unwrap();
    server.app().reload().unwrap_err();
    refused(server.get(&format!("/_matrix/client/v3/profile/@bob:{name}"))).await;
    fs::write(&policy, "[servers]\ndeny = [\"elsewhere.test\"]\n").unwrap();
    server.app().reload().unwrap();
    server.get(&format!("/_matrix/client/v3/profile/@bob:{name}")).by(&alice).await.error(404, "M_NOT_FOUND");
    assert_eq!(peer.asked(), 1);
}
