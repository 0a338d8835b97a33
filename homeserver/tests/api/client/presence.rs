use serde_json::json;

use super::typing::public_room;
use crate::harness::{Engine, Server, User};

on_both_engines!(
    presence_is_set_by_its_user_and_shown_to_who_shares_a_room,
    a_sync_sets_the_presence_that_it_names_and_no_other,
);

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

async fn a_sync_sets_the_presence_that_it_names_and_no_other(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let other_device = server.log_in("alice").await;
    let path = format!("/_matrix/client/v3/presence/{}/status", alice.user_id);
    let shown = async || server.get(&path).by(&alice).await.ok()["presence"].as_str().unwrap().to_owned();
    let sync = async |device: &User, parameter: &str| {
        server.get(&format!("/_matrix/client/v3/sync{parameter}")).by(device).await.ok();
    };
    sync(&alice, "").await;
    assert_eq!(shown().await, "offline", "a sync that says nothing of presence changes none");
    sync(&alice, "?set_presence=online").await;
    assert_eq!(shown().await, "online");
    sync(&alice, "?set_presence=unavailable").await;
    assert_eq!(shown().await, "unavailable");
    // The user is as present as the most present device.
    sync(&other_device, "?set_presence=online").await;
    sync(&alice, "?set_presence=offline").await;
    assert_eq!(shown().await, "online");
    sync(&other_device, "?set_presence=offline").await;
    assert_eq!(shown().await, "offline");
    // A status message stays.
    server.put(&path).by(&alice).json(json!({ "presence": "offline", "status_msg": "away" })).await.ok();
    sync(&alice, "?set_presence=online").await;
    assert_eq!(server.get(&path).by(&alice).await.ok()["status_msg"], "away");
    let wrong = server.get("/_matrix/client/v3/sync?set_presence=busy").by(&alice).await;
    wrong.error(400, "M_INVALID_PARAM");
}
