use serde_json::json;

use crate::harness::{Engine, Server};

on_both_engines!(rules_are_added_changed_and_deleted, the_servers_rules_can_only_be_switched);

const RULES: &str = "/_matrix/client/v3/pushrules/global";

async fn the_servers_rules_can_only_be_switched(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let all = server.get("/_matrix/client/v3/pushrules/").by(&alice).await.ok();
    let global = server.get(&format!("{RULES}/")).by(&alice).await.ok();
    assert_eq!(all["global"], global);
    assert_eq!(global["override"][0]["rule_id"], ".m.rule.master");
    let master = format!("{RULES}/override/.m.rule.master");
    assert_eq!(server.get(&master).by(&alice).await.ok()["enabled"], false);
    server.put(&format!("{master}/enabled")).by(&alice).json(json!({ "enabled": true })).await.ok();
    assert_eq!(server.get(&format!("{master}/enabled")).by(&alice).await.ok(), json!({ "enabled": true }));
    let reply = server.put(&master).by(&alice).json(json!({ "actions": [], "conditions": [] })).await;
    reply.error(400, "M_INVALID_PARAM");
    server.delete(&master).by(&alice).await.error(400, "M_INVALID_PARAM");
    // Nobody else's rules moved.
    let bob = server.register("bob").await;
    assert_eq!(server.get(&master).by(&bob).await.ok()["enabled"], false);
    // Clients see the change as account data.
    let data = "/_matrix/client/v3/user/@alice:example.org/account_data/m.push_rules";
    assert_eq!(server.get(data).by(&alice).await.ok()["global"]["override"][0]["enabled"], true);
}

async fn rules_are_added_changed_and_deleted(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let word = format!("{RULES}/content/word");
    server.get(&word).by(&alice).await.error(404, "M_NOT_FOUND");
    let body = json!({ "pattern": "umbrella", "actions": ["notify"] });
    server.put(&word).by(&alice).json(body).await.ok();
    let rule = server.get(&word).by(&alice).await.ok();
    assert_eq!(rule["pattern"], "umbrella");
    assert_eq!((&rule["enabled"], &rule["default"]), (&json!(true), &json!(false)));
    let quiet = json!({ "actions": [] });
    server.put(&format!("{word}/actions")).by(&alice).json(quiet.clone()).await.ok();
    assert_eq!(server.get(&format!("{word}/actions")).by(&alice).await.ok(), quiet);
    let before = json!({ "pattern": "rain", "actions": ["notify"] });
    server.put(&format!("{RULES}/content/rain?before=word")).by(&alice).json(before.clone()).await.ok();
    let global = server.get(&format!("{RULES}/")).by(&alice).await.ok();
    let ids: Vec<&str> =
        global["content"].as_array().unwrap().iter().map(|rule| rule["rule_id"].as_str().unwrap()).collect();
    assert!(ids.iter().position(|id| *id == "rain") < ids.iter().position(|id| *id == "word"), "{ids:?}");
    let nowhere = format!("{RULES}/content/snow?before=unknown");
    server.put(&nowhere).by(&alice).json(before.clone()).await.error(400, "M_UNKNOWN");
    server.put(&format!("{RULES}/nonsense/x")).by(&alice).json(before).await.error(400, "M_INVALID_PARAM");
    server.delete(&word).by(&alice).await.ok();
    server.delete(&word).by(&alice).await.error(404, "M_NOT_FOUND");
    server.put(&format!("{word}/enabled")).by(&alice).json(json!({ "enabled": true })).await.error(404, "M_NOT_FOUND");
}
