use gatehouse_homeserver::config::RegistrationMode;
use gatehouse_shared::{config::Secret, contract::Verdict};
use serde_json::json;

use crate::harness::{Engine, PASSWORD, Server, User, password_login};

on_both_engines!(
    a_closed_server_takes_nobody,
    a_name_is_had_once,
    a_registration_by_token,
    guests_are_refused,
    names_follow_the_grammar,
    the_first_answer_names_the_flows,
    who_asks_for_no_login_gets_none,
);

const REGISTER: &str = "/_matrix/client/v3/register";

async fn the_first_answer_names_the_flows(engine: Engine) {
    let server = Server::start(engine).await;
    let first = server.post(REGISTER).json(json!({})).await;
    assert_eq!(first.body["flows"], json!([{ "stages": ["m.login.dummy"] }]));
    let session = first.uia_session();
    let body = json!({
        "username": "alice", "password": PASSWORD, "device_id": "PHONE", "initial_device_display_name": "Phone",
        "auth": { "type": "m.login.dummy", "session": session },
    });
    let alice = User::of(&server.post(REGISTER).json(body).await.ok());
    assert_eq!((alice.user_id.as_str(), alice.device_id.as_str()), ("@alice:example.org", "PHONE"));
    let me = server.get("/_matrix/client/v3/account/whoami").by(&alice).await.ok();
    assert_eq!(me["user_id"], "@alice:example.org");
    // A stage that is in no flow does not count.
    let password = json!({ "auth": { "type": "m.login.password", "password": PASSWORD } });
    assert_eq!(server.post(REGISTER).json(password).await.error(401, "M_UNRECOGNIZED")["completed"], json!([]));
    // Without a password there is nothing to log in with, and nothing is made.
    let bare = json!({ "username": "bob", "auth": { "type": "m.login.dummy" } });
    server.post(REGISTER).json(bare).await.error(400, "M_MISSING_PARAM");
    server.get(&format!("{REGISTER}/available?username=bob")).await.ok();
    let weak = json!({ "username": "bob", "password": "", "auth": { "type": "m.login.dummy" } });
    server.post(REGISTER).json(weak).await.error(400, "M_WEAK_PASSWORD");
    // Without a name one is given.
    let nameless = json!({ "password": PASSWORD, "auth": { "type": "m.login.dummy" } });
    server.post(REGISTER).json(nameless).await.ok();
}

async fn a_name_is_had_once(engine: Engine) {
    let server = Server::start(engine).await;
    let available = |name: &str| server.get(&format!("{REGISTER}/available?username={name}"));
    assert_eq!(available("alice").await.ok(), json!({ "available": true }));
    server.register("alice").await;
    available("alice").await.error(400, "M_USER_IN_USE");
    let body = json!({ "username": "alice", "password": PASSWORD, "auth": { "type": "m.login.dummy" } });
    server.post(REGISTER).json(body).await.error(400, "M_USER_IN_USE");
    available("").await.error(400, "M_INVALID_USERNAME");
}

async fn names_follow_the_grammar(engine: Engine) {
    let server = Server::start(engine).await;
    for name in ["Alice", "al ice", "alice:example.org", "@alice:example.org", "älice", "a\0", &"a".repeat(250)] {
        let body = json!({ "username": name, "password": PASSWORD, "auth": { "type": "m.login.dummy" } });
        server.post(REGISTER).json(body).await.error(400, "M_INVALID_USERNAME");
    }
}

async fn a_closed_server_takes_nobody(engine: Engine) {
    let server = Server::start_with(engine, |config| config.registration.mode = RegistrationMode::Closed).await;
    let body = json!({ "username": "alice", "password": PASSWORD, "auth": { "type": "m.login.dummy" } });
    for body in [json!({}), body] {
        let reply = server.post(REGISTER).json(body).await;
        assert_eq!(reply.verdict(), Some(Verdict::RegistrationRefused("closed".to_owned())));
        reply.error(403, "M_FORBIDDEN");
    }
    let validity = "/_matrix/client/v1/register/m.login.registration_token/validity?token=x";
    server.get(validity).await.error(403, "M_FORBIDDEN");
}

async fn a_registration_by_token(engine: Engine) {
    let server = Server::start_with(engine, |config| {
        config.registration.mode = RegistrationMode::Token;
        config.registration.tokens = vec![Secret::new("first"), Secret::new("second")];
    })
    .await;
    let validity = "/_matrix/client/v1/register/m.login.registration_token/validity";
    assert_eq!(server.get(&format!("{validity}?token=second")).await.ok(), json!({ "valid": true }));
    assert_eq!(server.get(&format!("{validity}?token=third")).await.ok(), json!({ "valid": false }));

    let mut body = json!({ "username": "alice", "password": PASSWORD });
    let session = server.post(REGISTER).json(body.clone()).await.uia_session();
    body["auth"] = json!({ "type": "m.login.dummy", "session": session });
    server.post(REGISTER).json(body.clone()).await.error(401, "M_UNRECOGNIZED");
    body["auth"] = json!({ "type": "m.login.registration_token", "token": "third", "session": session });
    let refused = server.post(REGISTER).json(body.clone()).await;
    assert_eq!(refused.verdict(), Some(Verdict::RegistrationRefused("token".to_owned())));
    assert_eq!(refused.error(401, "M_FORBIDDEN")["session"], session);
    body["auth"] = json!({ "type": "m.login.registration_token", "token": "first", "session": session });
    server.post(REGISTER).json(body).await.ok();
}

async fn guests_are_refused(engine: Engine) {
    let server = Server::start(engine).await;
    let reply = server.post(&format!("{REGISTER}?kind=guest")).json(json!({})).await;
    reply.error(403, "M_GUEST_ACCESS_FORBIDDEN");
}

async fn who_asks_for_no_login_gets_none(engine: Engine) {
    let server = Server::start(engine).await;
    let body = json!({
        "username": "alice", "password": PASSWORD, "inhibit_login": true, "auth": { "type": "m.login.dummy" },
    });
    assert_eq!(server.post(REGISTER).json(body).await.ok(), json!({ "user_id": "@alice:example.org" }));
    server.post("/_matrix/client/v3/login").json(password_login("alice", PASSWORD)).await.ok();
}
