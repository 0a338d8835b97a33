use serde_json::json;

use crate::harness::{Engine, Server, User};

on_both_engines!(only_members_type_and_only_for_themselves);

/// Makes a public room and returns its id.
pub(super) async fn public_room(server: &Server, creator: &User) -> String {
    let body = json!({ "preset": "public_chat" });
    let answer = server.post("/_matrix/client/v3/createRoom").by(creator).json(body).await.ok();
    answer["room_id"].as_str().unwrap().to_owned()
}

async fn only_members_type_and_only_for_themselves(engine: Engine) {
    let server = Server::start(engine).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room_id = public_room(&server, &alice).await;
    let typing = |user: &User| format!("/_matrix/client/v3/rooms/{room_id}/typing/{}", user.user_id);
    let begin = json!({ "typing": true, "timeout": 30_000 });
    assert_eq!(server.put(&typing(&alice)).by(&alice).json(begin.clone()).await.ok(), json!({}));
    server.put(&typing(&alice)).by(&alice).json(begin.clone()).await.ok();
    server.put(&typing(&alice)).by(&alice).json(json!({ "typing": false })).await.ok();
    server.put(&typing(&bob)).by(&bob).json(begin.clone()).await.error(403, "M_FORBIDDEN");
    server.put(&typing(&bob)).by(&alice).json(begin).await.error(403, "M_FORBIDDEN");
    server.put(&typing(&alice)).by(&alice).json(json!({ "typing": "yes" })).await.error(400, "M_BAD_JSON");
    let forever = json!({ "typing": true, "timeout": u64::MAX });
    server.put(&typing(&alice)).by(&alice).json(forever).await;
}
