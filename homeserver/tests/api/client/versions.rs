use crate::harness::{Engine, Server};

on_both_engines!(versions_are_told_to_everybody);

async fn versions_are_told_to_everybody(engine: Engine) {
    let server = Server::start(engine).await;
    let body = server.get("/_matrix/client/versions").await.ok();
    let versions = body["versions"].as_array().unwrap();
    assert_eq!(versions.first().unwrap(), "v1.1");
    assert_eq!(versions.last().unwrap(), "v1.19");
    assert!(body["unstable_features"].is_object());
    server.get("/_matrix/client/versions").with_token("wrong").await.error(401, "M_UNKNOWN_TOKEN");
}
