use gatehouse_shared::contract::Verdict;
use serde_json::{Value, json};

use crate::harness::{Engine, PASSWORD, Server, User, password_login};

on_both_engines!(
    a_deactivated_account_is_gone_and_its_name_stays_taken,
    a_new_password_ends_the_other_sessions,
    a_deactivated_user_leaves_every_room,
    administrators_and_users_learn_where_a_user_is_logged_in,
    nobody_has_addresses,
    other_sessions_can_be_kept,
);

const LOGIN: &str = "/_matrix/client/v3/login";
const PASSWORD_PATH: &str = "/_matrix/client/v3/account/password";
const WHOAMI: &str = "/_matrix/client/v3/account/whoami";

fn confirmation(session: &str, user: &User) -> Value {
    json!({
        "type": "m.login.password", "session": session, "password": PASSWORD,
        "identifier": { "type": "m.id.user", "user": user.user_id },
    })
}

async fn a_new_password_ends_the_other_sessions(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let other = server.log_in("alice").await;
    let mut body = json!({ "new_password": "another one" });
    let session = server.post(PASSWORD_PATH).by(&alice).json(body.clone()).await.uia_session();
    body["auth"] = confirmation(&session, &alice);
    body["auth"]["password"] = json!("wrong");
    let refused = server.post(PASSWORD_PATH).by(&alice).json(body.clone()).await;
    assert_eq!(refused.verdict(), Some(Verdict::LoginFailed(alice.user_id.clone())));
    refused.error(401, "M_FORBIDDEN");
    body["auth"] = confirmation(&session, &alice);
    server.post(PASSWORD_PATH).by(&alice).json(body).await.ok();
    server.get(WHOAMI).by(&alice).await.ok();
    server.get(WHOAMI).by(&other).await.error(401, "M_UNKNOWN_TOKEN");
    server.post(LOGIN).json(password_login("alice", PASSWORD)).await.error(403, "M_FORBIDDEN");
    server.post(LOGIN).json(password_login("alice", "another one")).await.ok();
}

async fn other_sessions_can_be_kept(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let other = server.log_in("alice").await;
    let mut body = json!({ "new_password": "another one", "logout_devices": false });
    let session = server.post(PASSWORD_PATH).by(&alice).json(body.clone()).await.uia_session();
    body["auth"] = confirmation(&session, &alice);
    server.post(PASSWORD_PATH).by(&alice).json(body).await.ok();
    server.get(WHOAMI).by(&other).await.ok();
}

async fn a_deactivated_account_is_gone_and_its_name_stays_taken(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let deactivate = "/_matrix/client/v3/account/deactivate";
    let session = server.post(deactivate).by(&alice).json(json!({ "erase": true })).await.uia_session();
    // The session is Alice's: Bob cannot use it, not even with his own password.
    let bobs = json!({ "erase": true, "auth": confirmation(&session, &bob) });
    server.post(deactivate).by(&bob).json(bobs).await.error(403, "M_FORBIDDEN");
    let body = json!({ "erase": true, "auth": confirmation(&session, &alice) });
    let body = server.post(deactivate).by(&alice).json(body).await.ok();
    assert_eq!(body, json!({ "id_server_unbind_result": "success" }));
    server.get(WHOAMI).by(&alice).await.error(401, "M_UNKNOWN_TOKEN");
    server.post(LOGIN).json(password_login("alice", PASSWORD)).await.error(403, "M_USER_DEACTIVATED");
    server.get("/_matrix/client/v3/register/available?username=alice").await.error(400, "M_USER_IN_USE");
    server.get("/_matrix/client/v3/profile/@alice:example.org").await.error(404, "M_NOT_FOUND");
}

async fn nobody_has_addresses(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let body = server.get("/_matrix/client/v3/account/3pid").by(&alice).await.ok();
    assert_eq!(body, json!({ "threepids": [] }));
    let add = server.post("/_matrix/client/v3/account/3pid/add").by(&alice).json(json!({}));
    add.await.error(403, "M_THREEPID_DENIED");
    let ask = server.post("/_matrix/client/v3/register/email/requestToken").json(json!({}));
    ask.await.error(403, "M_THREEPID_DENIED");
}

async fn a_deactivated_user_leaves_every_room(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let invite = json!({ "preset": "public_chat", "invite": [alice.user_id] });
    let room = server.post("/_matrix/client/v3/createRoom").by(&bob).json(invite).await.ok();
    let room = room["room_id"].as_str().unwrap().to_owned();
    server.post(&format!("/_matrix/client/v3/join/{room}")).by(&alice).json(json!({})).await.ok();
    let deactivate = "/_matrix/client/v3/account/deactivate";
    let session = server.post(deactivate).by(&alice).json(json!({})).await.uia_session();
    server.post(deactivate).by(&alice).json(json!({ "auth": confirmation(&session, &alice) })).await.ok();
    let members = server.get(&format!("/_matrix/client/v3/rooms/{room}/joined_members")).by(&bob).await.ok();
    let joined: Vec<&String> = members["joined"].as_object().unwrap().keys().collect();
    assert_eq!(joined, ["@bob:example.org"]);
}

async fn administrators_and_users_learn_where_a_user_is_logged_in(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let path = "/_matrix/client/v3/admin/whois/@alice:example.org";
    let body = server.get(path).by(&alice).await.ok();
    let connection = &body["devices"][&alice.device_id]["sessions"][0]["connections"][0];
    assert_eq!(connection["ip"], "192.0.2.7");
    server.get(path).by(&bob).await.error(403, "M_FORBIDDEN");
}
