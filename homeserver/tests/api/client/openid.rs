use serde_json::json;

use crate::harness::{Engine, Server};

on_both_engines!(a_user_gets_an_openid_token);

async fn a_user_gets_an_openid_token(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let path = "/_matrix/client/v3/user/@alice:example.org/openid/request_token";
    let body = server.post(path).by(&alice).json(json!({})).await.ok();
    assert_eq!((&body["token_type"], &body["matrix_server_name"]), (&json!("Bearer"), &json!("example.org")));
    assert_eq!(body["expires_in"], 3600);
    assert!(body["access_token"].as_str().unwrap().len() > 20);
    server.post(path).by(&bob).json(json!({})).await.error(403, "M_FORBIDDEN");
}
