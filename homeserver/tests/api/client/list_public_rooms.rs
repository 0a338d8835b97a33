use serde_json::{Value, json};

use super::directory::room;
use crate::harness::{Engine, Server};

on_both_engines!(pages_go_there_and_back, the_list_is_searched, what_is_published_is_listed);

const LIST: &str = "/_matrix/client/v3/publicRooms";

fn names(page: &Value) -> Vec<&str> {
    page["chunk"].as_array().unwrap().iter().map(|room| room["name"].as_str().unwrap_or("")).collect()
}

async fn what_is_published_is_listed(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let body = json!({
        "visibility": "public", "preset": "public_chat", "name": "Tea", "topic": "Leaves", "room_alias_name": "tea",
        "initial_state": [{ "type": "m.room.history_visibility", "content": { "history_visibility": "world_readable" } }],
    });
    let tea = room(&server, &alice, body).await;
    let hidden = room(&server, &alice, json!({ "name": "Hidden" })).await;
    server.post(&format!("/_matrix/client/v3/join/{tea}")).by(&bob).json(json!({})).await.ok();
    let page = server.get(LIST).by(&bob).await.ok();
    assert_eq!(
        page,
        json!({
            "chunk": [{
                "room_id": tea, "name": "Tea", "topic": "Leaves", "canonical_alias": "#tea:example.org",
                "num_joined_members": 2, "world_readable": true, "guest_can_join": false,
            }],
            "total_room_count_estimate": 1,
        })
    );
    let visibility = |room_id: &str| format!("/_matrix/client/v3/directory/list/room/{room_id}");
    assert_eq!(server.get(&visibility(&tea)).await.ok(), json!({ "visibility": "public" }));
    assert_eq!(server.get(&visibility(&hidden)).await.ok(), json!({ "visibility": "private" }));
    server.get(&visibility("!nowhere:example.org")).await.error(404, "M_NOT_FOUND");
    server.put(&visibility(&hidden)).by(&alice).json(json!({ "visibility": "public" })).await.ok();
    server.put(&visibility(&tea)).by(&alice).json(json!({ "visibility": "private" })).await.ok();
    assert_eq!(names(&server.get(LIST).by(&bob).await.ok()), ["Hidden"]);
    let nonsense = json!({ "visibility": "everywhere" });
    server.put(&visibility(&tea)).by(&alice).json(nonsense).await.error(400, "M_INVALID_PARAM");
}

async fn pages_go_there_and_back(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    for number in 0..5 {
        room(&server, &alice, json!({ "visibility": "public", "name": number.to_string() })).await;
    }
    let page = async |token: Option<&Value>| {
        let since = token.map_or(String::new(), |token| format!("&since={}", token.as_str().unwrap()));
        server.get(&format!("{LIST}?limit=2{since}")).by(&alice).await.ok()
    };
    let first = page(None).await;
    assert_eq!((names(&first), &first["total_room_count_estimate"]), (vec!["0", "1"], &json!(5)));
    assert!(first.get("prev_batch").is_none());
    let second = page(first.get("next_batch")).await;
    assert_eq!(names(&second), ["2", "3"]);
    let third = page(second.get("next_batch")).await;
    assert_eq!((names(&third), third.get("next_batch")), (vec!["4"], None));
    assert_eq!(names(&page(third.get("prev_batch")).await), ["2", "3"]);
    server.get(&format!("{LIST}?since=nonsense")).by(&alice).await.error(400, "M_INVALID_PARAM");
    // Nobody is there.
    server.get(&format!("{LIST}?server=other.example")).by(&alice).await.error(502, "M_UNKNOWN");
}

async fn the_list_is_searched(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let public = |name: &str| json!({ "visibility": "public", "name": name });
    room(&server, &alice, public("Grüner Tee")).await;
    room(&server, &alice, public("Coffee")).await;
    let mut space = public("Drinks");
    space["creation_content"] = json!({ "type": "m.space" });
    room(&server, &alice, space).await;
    let search = async |body: Value| server.post(LIST).by(&alice).json(body).await.ok();
    let found = search(json!({ "filter": { "generic_search_term": "GRÜN" } })).await;
    assert_eq!((names(&found), &found["total_room_count_estimate"]), (vec!["Grüner Tee"], &json!(1)));
    assert_eq!(names(&search(json!({ "filter": { "room_types": ["m.space"] } })).await), ["Drinks"]);
    assert_eq!(names(&search(json!({ "filter": { "room_types": [null] }, "limit": 1 })).await), ["Grüner Tee"]);
    assert_eq!(names(&search(json!({})).await).len(), 3);
    assert_eq!(names(&search(json!({ "third_party_instance_id": "irc" })).await).len(), 0);
}
