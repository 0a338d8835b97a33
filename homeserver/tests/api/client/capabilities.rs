use crate::harness::{Engine, Server};

on_both_engines!(capabilities_name_twelve_room_versions);

async fn capabilities_name_twelve_room_versions(engine: Engine) {
    let server = Server::start(engine).await;
    server.get("/_matrix/client/v3/capabilities").await.error(401, "M_MISSING_TOKEN");
    let alice = server.register("alice").await;
    let body = server.get("/_matrix/client/v3/capabilities").by(&alice).await.ok();
    let versions = &body["capabilities"]["m.room_versions"];
    assert_eq!(versions["default"], "12");
    assert_eq!(versions["available"].as_object().unwrap().len(), 12);
    assert_eq!(body["capabilities"]["m.3pid_changes"]["enabled"], false);
}
