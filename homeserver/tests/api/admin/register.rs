use std::time::Duration;

use gatehouse_shared::{config::Secret, contract::Verdict};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};

use crate::harness::{Engine, PASSWORD, Server, User, password_login};

on_both_engines!(a_server_without_a_secret_is_closed, who_knows_the_secret_makes_users);

const REGISTER: &str = "/_synapse/admin/v1/register";
const SECRET: &str = "shared with the operator";

/// As the script of Synapse does it.
fn mac(nonce: &str, name: &str, role: &str) -> String {
    let mut mac = Hmac::<sha1::Sha1>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update([nonce, name, PASSWORD, role].join("\0").as_bytes());
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn nonce(server: &Server) -> String {
    server.get(REGISTER).await.ok()["nonce"].as_str().unwrap().to_owned()
}

fn body(nonce: &str, name: &str, is_admin: bool) -> Value {
    let role = if is_admin { "admin" } else { "notadmin" };
    let mac = mac(nonce, name, role);
    json!({ "nonce": nonce, "username": name, "password": PASSWORD, "admin": is_admin, "mac": mac })
}

async fn who_knows_the_secret_makes_users(engine: Engine) {
    let server = Server::start_with(engine, |config| {
        config.registration.mode = gatehouse_homeserver::config::RegistrationMode::Closed;
        config.registration.shared_secret = Some(Secret::new(SECRET));
    })
    .await;
    let first = nonce(&server).await;
    let reply = server.post(REGISTER).json(body(&first, "alice", true)).await.ok();
    assert_eq!(reply["home_server"], "example.org");
    let alice = User::of(&reply);
    server.get("/_matrix/client/v3/account/whoami").by(&alice).await.ok();
    server.post("/_matrix/client/v3/login").json(password_login("alice", PASSWORD)).await.ok();
    // A nonce is good once, for a minute, and for what its MAC says.
    server.post(REGISTER).json(body(&first, "bob", false)).await.error(400, "M_UNKNOWN");
    let late = nonce(&server).await;
    server.clock.advance(Duration::from_secs(61));
    server.post(REGISTER).json(body(&late, "bob", false)).await.error(400, "M_UNKNOWN");
    let mut forged = body(&nonce(&server).await, "bob", false);
    forged["admin"] = json!(true);
    let refused = server.post(REGISTER).json(forged).await;
    assert_eq!(refused.verdict(), Some(Verdict::RegistrationRefused("shared-secret".to_owned())));
    refused.error(403, "M_FORBIDDEN");
    let taken = body(&nonce(&server).await, "alice", false);
    server.post(REGISTER).json(taken).await.error(400, "M_USER_IN_USE");
    server.post(REGISTER).json(json!({ "nonce": "x" })).await.error(400, "M_BAD_JSON");
}

async fn a_server_without_a_secret_is_closed(engine: Engine) {
    let server = Server::start(engine).await;
    server.get(REGISTER).await.error(403, "M_FORBIDDEN");
    server.post(REGISTER).json(body("x", "alice", false)).await.error(403, "M_FORBIDDEN");
}
