use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{BEGINNING, Engine, PASSWORD, Server, User};

on_both_engines!(
    a_device_is_deleted_by_who_knows_the_password,
    a_session_confirms_one_request_and_no_other,
    devices_are_listed_and_named,
    when_a_device_was_seen_is_written_later,
);

const DEVICES: &str = "/_matrix/client/v3/devices";

fn auth(session: &str, user: &User) -> Value {
    json!({ "type": "m.login.password", "session": session, "user": user.user_id, "password": PASSWORD })
}

async fn devices_are_listed_and_named(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let body = server.get(DEVICES).by(&alice).await.ok();
    let listed = json!({ "devices": [{
        "device_id": alice.device_id, "display_name": null, "last_seen_ip": "192.0.2.7", "last_seen_ts": BEGINNING,
    }] });
    assert_eq!(body, listed);
    let path = format!("{DEVICES}/{}", alice.device_id);
    server.put(&path).by(&alice).json(json!({ "display_name": "Desk" })).await.ok();
    server.put(&path).by(&alice).json(json!({})).await.ok();
    assert_eq!(server.get(&path).by(&alice).await.ok()["display_name"], "Desk");
    server.get(&path).by(&bob).await.error(404, "M_NOT_FOUND");
    server.put(&path).by(&bob).json(json!({ "display_name": "Mine" })).await.error(404, "M_NOT_FOUND");
    server.put(&path).by(&alice).json(json!({ "display_name": "\0" })).await.error(400, "M_INVALID_PARAM");
    server.get(&format!("{DEVICES}/%00")).by(&alice).await.error(400, "M_INVALID_PARAM");
}

async fn a_device_is_deleted_by_who_knows_the_password(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let phone = server.log_in("alice").await;
    let path = format!("{DEVICES}/{}", phone.device_id);
    // Clients send this request without any body.
    let session = server.delete(&path).by(&alice).await.uia_session();
    server.delete(&path).by(&alice).json(json!({ "auth": auth(&session, &alice) })).await.ok();
    server.get(&path).by(&alice).await.error(404, "M_NOT_FOUND");
    server.get(DEVICES).by(&phone).await.error(401, "M_UNKNOWN_TOKEN");

    let phones = [server.log_in("alice").await, server.log_in("alice").await];
    let mut body = json!({ "devices": [phones[0].device_id, phones[1].device_id, "UNKNOWN"] });
    let many = "/_matrix/client/v3/delete_devices";
    let session = server.post(many).by(&alice).json(body.clone()).await.uia_session();
    body["auth"] = auth(&session, &alice);
    server.post(many).by(&alice).json(body).await.ok();
    for phone in &phones {
        server.get(DEVICES).by(phone).await.error(401, "M_UNKNOWN_TOKEN");
    }
    server.get(DEVICES).by(&alice).await.ok();
}

async fn a_session_confirms_one_request_and_no_other(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let phone = server.log_in("alice").await;
    let many = "/_matrix/client/v3/delete_devices";
    let session = server.post(many).by(&alice).json(json!({ "devices": ["HARMLESS"] })).await.uia_session();
    let other = json!({ "devices": [phone.device_id], "auth": auth(&session, &alice) });
    server.post(many).by(&alice).json(other).await.error(403, "M_FORBIDDEN");
    // A session that was used, or grew too old, begins anew.
    let same = json!({ "devices": ["HARMLESS"], "auth": auth(&session, &alice) });
    server.post(many).by(&alice).json(same).await.ok();
    let mut again = json!({ "devices": ["HARMLESS"], "auth": { "session": session } });
    let fresh = server.post(many).by(&alice).json(again.clone()).await.uia_session();
    assert_ne!(fresh, session);
    server.clock.advance(Duration::from_secs(2 * 60 * 60));
    again["auth"]["session"] = json!(fresh);
    assert_ne!(server.post(many).by(&alice).json(again).await.uia_session(), fresh);
    // Another user's name does not confirm it, with whatever password.
    server.register("bob").await;
    let named = json!({ "devices": ["HARMLESS"], "auth": {
        "type": "m.login.password", "password": PASSWORD, "identifier": { "type": "m.id.user", "user": "bob" },
    } });
    server.post(many).by(&alice).json(named).await.error(401, "M_FORBIDDEN");
    server.post(many).by(&alice).json(json!({ "devices": [], "auth": 7 })).await.error(400, "M_BAD_JSON");
}

async fn when_a_device_was_seen_is_written_later(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    server.clock.advance(Duration::from_secs(600));
    server.get(DEVICES).by(&alice).from("198.51.100.4").await.ok();
    // The end of the shard writes what it still knows.
    let server = server.restart().await;
    let device = server.get(&format!("{DEVICES}/{}", alice.device_id)).by(&alice).await.ok();
    assert_eq!(device["last_seen_ip"], "198.51.100.4");
    assert_eq!(device["last_seen_ts"], BEGINNING + 600_000);
}
