use gatehouse_shared::config::Secret;
use serde_json::json;

use crate::harness::{BEGINNING, Engine, Server};

on_both_engines!(a_password_for_the_turn_server_is_given_where_there_is_one, no_other_network_is_bridged);

async fn a_password_for_the_turn_server_is_given_where_there_is_one(engine: Engine) {
    const TURN: &str = "/_matrix/client/v3/voip/turnServer";
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    assert_eq!(server.get(TURN).by(&alice).await.ok(), json!({}));
    let server = Server::start_with(engine, |config| {
        config.voip.turn_uris = vec!["turn:turn.example.org?transport=udp".to_owned()];
        config.voip.turn_shared_secret = Some(Secret::new("north"));
    })
    .await;
    let alice = server.register("alice").await;
    let pass = server.get(TURN).by(&alice).await.ok();
    let ends = BEGINNING / 1000 + 3600;
    assert_eq!(pass["username"], format!("{ends}:@alice:example.org"));
    assert_eq!((&pass["ttl"], &pass["uris"]), (&json!(3600), &json!(["turn:turn.example.org?transport=udp"])));
    server.get(TURN).await.error(401, "M_MISSING_TOKEN");
}

async fn no_other_network_is_bridged(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    assert_eq!(server.get("/_matrix/client/v3/thirdparty/protocols").by(&alice).await.ok(), json!({}));
}
