use http::Method;
use serde_json::json;

use crate::harness::{Engine, PASSWORD, Server};

on_both_engines!(
    a_draining_shard_is_not_healthy_and_answers_still,
    bodies_have_a_limit_and_a_depth,
    only_the_edge_comes_in,
    unknown_paths_and_methods_are_told,
);

async fn only_the_edge_comes_in(engine: Engine) {
    let server = Server::start(engine).await;
    let versions = "/_matrix/client/versions";
    server.get(versions).unsigned().await.error(403, "M_FORBIDDEN");
    let forged = server.get(versions).unsigned().header("x-gatehouse-client", "192.0.2.1");
    forged.header("x-gatehouse-mac", &"0".repeat(64)).await.error(403, "M_FORBIDDEN");
    // A second value beside the edge's own.
    server.get(versions).header("x-gatehouse-client", "192.0.2.1").await.ok();
    let health = server.get("/_gatehouse/health").unsigned().await;
    assert_eq!(health.status, 200);
}

async fn unknown_paths_and_methods_are_told(engine: Engine) {
    let server = Server::start(engine).await;
    for path in
        ["/", "/_matrix", "/_matrix/client/v3/nothing", "/_matrix/client/v3/../v3/login", "/_matrix/client/v3//login"]
    {
        server.get(path).await.error(404, "M_UNRECOGNIZED");
    }
    server.delete("/_matrix/client/v3/login").await.error(405, "M_UNRECOGNIZED");
    let invented = Method::from_bytes(b"INVENTED").unwrap();
    server.call(invented, "/_matrix/client/versions").await.error(405, "M_UNRECOGNIZED");
    server.get("/_matrix/client/v3/profile/%ff").await.error(400, "M_INVALID_PARAM");
    server.get("/_matrix/client/v3/profile/@a:b/%00").await.error(400, "M_INVALID_PARAM");
}

async fn bodies_have_a_limit_and_a_depth(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let path = "/_matrix/client/v3/user/@alice:example.org/account_data/org.example.big";
    let big = json!({ "text": "x".repeat(1024 * 1024) });
    server.put(path).by(&alice).json(big).await.error(413, "M_TOO_LARGE");
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    server.put(path).by(&alice).body(deep.clone()).await.error(400, "M_NOT_JSON");
    // What nobody reads may be as deep as it likes; it is skipped without recursion.
    server.post("/_matrix/client/v3/login").body(deep.clone()).await.error(400, "M_BAD_JSON");
    server.post("/_matrix/client/v3/register").body(deep).await.error(400, "M_NOT_JSON");
    server.get(path).by(&alice).await.error(404, "M_NOT_FOUND");
}

async fn a_draining_shard_is_not_healthy_and_answers_still(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    server.app().draining().begin();
    let health = server.get("/_gatehouse/health").unsigned().await;
    assert_eq!(health.status, 503);
    server.get("/_matrix/client/v3/account/whoami").by(&alice).await.ok();
    let login = crate::harness::password_login("alice", PASSWORD);
    server.post("/_matrix/client/v3/login").json(login).await.ok();
}
