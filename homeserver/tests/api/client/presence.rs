use serde_json::json;

use super::typing::public_room;
use crate::harness::{Engine, Server, User};

on_both_engines!(presence_is_set_by_its_user_and_shown_to_who_shares_a_room);

async fn presence_is_set_by_its_user_and_shown_to_who_shares_a_room(engine: Engine) {
    let server = Server::start(engine).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let status = |user: &User| format!("/_matrix/client/v3/presence/{}/status", user.user_id);
    let online = json!({ "presence": "online", "status_msg": "here" });
    server.put(&status(&alice)).by(&alice).json(online.clone()).await.ok();
    server.put(&status(&alice)).by(&bob).json(online).await.error(403, "M_FORBIDDEN");
    server.get(&status(&alice)).by(&bob).await.error(403, "M_FORBIDDEN");
    let room_id = public_room(&server, &alice).await;
    server.post(&format!("/_matrix/client/v3/join/{room_id}")).by(&bob).json(json!({})).await.ok();
    let shown = server.get(&status(&alice)).by(&bob).await.ok();
    let expected = json!({
        "presence": "online", "status_msg": "here", "last_active_ago": 0, "currently_active": true,
    });
    assert_eq!(shown, expected);
    assert_eq!(server.get(&status(&bob)).by(&alice).await.ok()["presence"], "offline");
    server.put(&status(&alice)).by(&alice).json(json!({ "presence": "busy" })).await.error(400, "M_INVALID_PARAM");
}
