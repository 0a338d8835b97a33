use std::time::Duration;

use gatehouse_shared::contract::Verdict;
use serde_json::json;

use crate::harness::{Engine, PASSWORD, Server, User, password_login};

on_both_engines!(
    a_deactivated_or_unknown_user_learns_nothing_from_the_password,
    a_device_that_logs_in_again_ends_its_earlier_token,
    a_login_needs_its_parts,
    a_logged_out_token_is_unknown_at_once,
    a_restart_keeps_sessions,
    a_used_refresh_token_is_worth_nothing,
    an_expired_access_token_asks_for_a_refresh,
    everybody_can_log_in_with_name_or_id,
    logout_all_ends_every_session,
    only_passwords_are_offered,
);

const LOGIN: &str = "/_matrix/client/v3/login";
const WHOAMI: &str = "/_matrix/client/v3/account/whoami";

async fn only_passwords_are_offered(engine: Engine) {
    let server = Server::start(engine).await;
    let body = server.get(LOGIN).await.ok();
    assert_eq!(body, json!({ "flows": [{ "type": "m.login.password" }] }));
    let token = json!({ "type": "m.login.token", "token": "abc" });
    server.post(LOGIN).json(token).await.error(400, "M_UNKNOWN");
}

async fn everybody_can_log_in_with_name_or_id(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    for name in ["alice", "@alice:example.org", "Alice", "@ALICE:example.org"] {
        let body = server.post(LOGIN).json(password_login(name, PASSWORD)).await.ok();
        assert_eq!(body["user_id"], "@alice:example.org", "{name}");
        assert!(body["access_token"].as_str().unwrap().starts_with("gh_"), "{body}");
        assert!(body.get("refresh_token").is_none() && body.get("expires_in_ms").is_none());
    }
    let old_form = json!({ "type": "m.login.password", "user": "alice", "password": PASSWORD });
    server.post("/_matrix/client/r0/login").json(old_form).await.ok();
    let me = server.get(WHOAMI).by(&alice).await.ok();
    assert_eq!(me, json!({ "user_id": alice.user_id, "device_id": alice.device_id }));
    // Where old clients put the token.
    server.get(&format!("{WHOAMI}?access_token={}", alice.access_token)).await.ok();
}

async fn a_login_needs_its_parts(engine: Engine) {
    let server = Server::start(engine).await;
    server.register("alice").await;
    let whole = password_login("alice", PASSWORD);
    let changed = |edit: &dyn Fn(&mut serde_json::Value)| {
        let mut body = whole.clone();
        edit(&mut body);
        body
    };
    let cases = [
        (json!({}), "M_BAD_JSON"),
        (json!([]), "M_BAD_JSON"),
        (json!({ "type": 7 }), "M_BAD_JSON"),
        (changed(&|body| body["identifier"] = json!(null)), "M_MISSING_PARAM"),
        (changed(&|body| body["identifier"] = json!({ "type": "m.id.user" })), "M_MISSING_PARAM"),
        (changed(&|body| body["identifier"] = json!({ "type": "m.id.other", "user": "alice" })), "M_UNKNOWN"),
        (changed(&|body| drop(body.as_object_mut().unwrap().remove("password"))), "M_MISSING_PARAM"),
        (changed(&|body| body["device_id"] = json!("D\0")), "M_INVALID_PARAM"),
        (changed(&|body| body["device_id"] = json!("")), "M_INVALID_PARAM"),
        (changed(&|body| body["initial_device_display_name"] = json!("x".repeat(600))), "M_INVALID_PARAM"),
    ];
    for (body, errcode) in cases {
        server.post(LOGIN).json(body).await.error(400, errcode);
    }
    server.post(LOGIN).body("{\"type\":").await.error(400, "M_NOT_JSON");
    server.post(LOGIN).body(&b"{\"type\": \"\xff\"}"[..]).await.error(400, "M_NOT_JSON");
    let mail = json!({ "type": "m.id.thirdparty", "medium": "email", "address": "alice@example.org" });
    let by_mail = changed(&|body| body["identifier"] = mail.clone());
    server.post(LOGIN).json(by_mail).await.error(403, "M_FORBIDDEN");
}

async fn a_deactivated_or_unknown_user_learns_nothing_from_the_password(engine: Engine) {
    let server = Server::start(engine).await;
    server.register("alice").await;
    for (name, password) in [
        ("alice", "wrong"),
        ("nobody", PASSWORD),
        ("@alice:elsewhere.org", PASSWORD),
        ("@@:", PASSWORD),
        ("a\0b", PASSWORD),
    ] {
        let reply = server.post(LOGIN).json(password_login(name, password)).await;
        assert_eq!(reply.verdict(), Some(Verdict::LoginFailed(name.to_owned())));
        let body = reply.error(403, "M_FORBIDDEN");
        assert_eq!(body["error"], "The user name or the password is wrong");
    }
}

async fn a_device_that_logs_in_again_ends_its_earlier_token(engine: Engine) {
    let server = Server::start(engine).await;
    server.register("alice").await;
    let mut body = password_login("alice", PASSWORD);
    body["device_id"] = json!("PHONE");
    body["initial_device_display_name"] = json!("Phone");
    let first = User::of(&server.post(LOGIN).json(body.clone()).await.ok());
    assert_eq!(first.device_id, "PHONE");
    server.get(WHOAMI).by(&first).await.ok();
    body["initial_device_display_name"] = json!("Other name");
    let second = User::of(&server.post(LOGIN).json(body).await.ok());
    assert_eq!(second.device_id, "PHONE");
    let refused = server.get(WHOAMI).by(&first).await;
    assert_eq!(refused.verdict(), Some(Verdict::BadToken("access-token".to_owned())));
    assert_eq!(refused.error(401, "M_UNKNOWN_TOKEN")["soft_logout"], false);
    let device = server.get("/_matrix/client/v3/devices/PHONE").by(&second).await.ok();
    assert_eq!(device["display_name"], "Phone");
}

async fn a_logged_out_token_is_unknown_at_once(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let other = server.log_in("alice").await;
    server.get(WHOAMI).by(&alice).await.ok();
    server.post("/_matrix/client/v3/logout").by(&alice).await.ok();
    server.get(WHOAMI).by(&alice).await.error(401, "M_UNKNOWN_TOKEN");
    server.post("/_matrix/client/v3/logout").by(&alice).await.error(401, "M_UNKNOWN_TOKEN");
    // The device went with its token.
    let devices = server.get("/_matrix/client/v3/devices").by(&other).await.ok();
    assert_eq!(devices["devices"].as_array().unwrap().len(), 1);
}

async fn logout_all_ends_every_session(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let other = server.log_in("alice").await;
    let bob = server.register("bob").await;
    server.post("/_matrix/client/v3/logout/all").by(&alice).await.ok();
    for user in [&alice, &other] {
        server.get(WHOAMI).by(user).await.error(401, "M_UNKNOWN_TOKEN");
    }
    server.get(WHOAMI).by(&bob).await.ok();
}

async fn a_restart_keeps_sessions(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let server = server.restart().await;
    server.get(WHOAMI).by(&alice).await.ok();
}

/// Logs in as a client that can refresh; its access token and refresh token.
async fn refreshable(server: &Server) -> (String, String) {
    let mut body = password_login("alice", PASSWORD);
    body["refresh_token"] = json!(true);
    tokens(&server.post(LOGIN).json(body).await.ok())
}

fn tokens(body: &serde_json::Value) -> (String, String) {
    assert!(body["expires_in_ms"].as_u64().unwrap() > 0);
    let text = |key: &str| body[key].as_str().unwrap().to_owned();
    (text("access_token"), text("refresh_token"))
}

async fn an_expired_access_token_asks_for_a_refresh(engine: Engine) {
    let server = Server::start(engine).await;
    server.register("alice").await;
    let (access, refresh) = refreshable(&server).await;
    server.get(WHOAMI).with_token(&access).await.ok();
    server.clock.advance(Duration::from_secs(24 * 60 * 60));
    let refused = server.get(WHOAMI).with_token(&access).await;
    assert_eq!(refused.verdict(), None);
    assert_eq!(refused.error(401, "M_UNKNOWN_TOKEN")["soft_logout"], true);
    let body = server.post("/_matrix/client/v3/refresh").json(json!({ "refresh_token": refresh })).await.ok();
    server.get(WHOAMI).with_token(&tokens(&body).0).await.ok();
}

async fn a_used_refresh_token_is_worth_nothing(engine: Engine) {
    let server = Server::start(engine).await;
    server.register("alice").await;
    let ask = |refresh: &str| server.post("/_matrix/client/v3/refresh").json(json!({ "refresh_token": refresh }));
    let (access, refresh) = refreshable(&server).await;
    let (lost, _) = tokens(&ask(&refresh).await.ok());
    // The answer was lost: the old pair is still good, and the lost one is replaced.
    server.get(WHOAMI).with_token(&access).await.ok();
    let (second_access, second_refresh) = tokens(&ask(&refresh).await.ok());
    server.get(WHOAMI).with_token(&lost).await.error(401, "M_UNKNOWN_TOKEN");
    // The first use of the new pair ends the old one.
    server.get(WHOAMI).with_token(&second_access).await.ok();
    server.get(WHOAMI).with_token(&access).await.error(401, "M_UNKNOWN_TOKEN");
    ask(&refresh).await.error(401, "M_UNKNOWN_TOKEN");
    // So does the use of the new refresh token.
    let (third_access, third_refresh) = tokens(&ask(&second_refresh).await.ok());
    let (_, fourth_refresh) = tokens(&ask(&third_refresh).await.ok());
    ask(&second_refresh).await.error(401, "M_UNKNOWN_TOKEN");
    server.get(WHOAMI).with_token(&second_access).await.error(401, "M_UNKNOWN_TOKEN");
    server.get(WHOAMI).with_token(&third_access).await.ok();
    ask(&fourth_refresh).await.ok();
    ask("nonsense").await.error(401, "M_UNKNOWN_TOKEN");
}

#[tokio::test]
async fn a_logout_on_one_shard_is_known_on_the_other() {
    let first = Server::start(Engine::Postgres).await;
    let second = first.another_shard().await;
    let alice = first.register("alice").await;
    second.get(WHOAMI).by(&alice).await.ok();
    first.post("/_matrix/client/v3/logout").by(&alice).await.ok();
    for _ in 0..100 {
        if second.get(WHOAMI).by(&alice).await.status == 401 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the other shard never learned of the logout");
}
