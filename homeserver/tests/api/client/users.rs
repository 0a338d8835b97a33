use serde_json::json;

use super::directory::room;
use crate::harness::{Engine, Server};

on_both_engines!(who_shares_a_room_is_found_and_who_does_not_is_not);

async fn who_shares_a_room_is_found_and_who_does_not_is_not(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let bob = server.register("bob_100").await;
    let carol = server.register("carol").await;
    let name = format!("/_matrix/client/v3/profile/{}/displayname", bob.user_id);
    server.put(&name).by(&bob).json(json!({ "displayname": "Bob \"the\" Builder" })).await.ok();
    let shared = room(&server, &alice, json!({ "preset": "public_chat" })).await;
    server.post(&format!("/_matrix/client/v3/join/{shared}")).by(&bob).json(json!({})).await.ok();
    let search = async |term: &str, user| {
        let call = server.post("/_matrix/client/v3/user_directory/search").by(user);
        let reply = call.json(json!({ "search_term": term, "limit": 5 })).await.ok();
        let found: Vec<String> =
            reply["results"].as_array().unwrap().iter().map(|user| user["user_id"].as_str().unwrap().into()).collect();
        found
    };
    for term in ["bob", "BUILD", "\"the\"", "@bob_100:example.org", "b_1"] {
        assert_eq!(search(term, &alice).await, ["@bob_100:example.org"], "{term}");
    }
    for term in ["", "%", "carol", "b%100", "join", "\0"] {
        assert!(search(term, &alice).await.is_empty(), "{term:?}");
    }
    assert!(search("bob", &carol).await.is_empty());
    let list = format!("/_matrix/client/v3/directory/list/room/{shared}");
    server.put(&list).by(&alice).json(json!({ "visibility": "public" })).await.ok();
    assert_eq!(search("bob", &carol).await, ["@bob_100:example.org"]);
}
