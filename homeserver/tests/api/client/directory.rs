use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Engine, Server, User};

on_both_engines!(
    an_alias_is_made_found_and_taken_away,
    an_alias_that_goes_is_shown_no_more,
    who_has_no_power_changes_nothing,
);

const ALIAS: &str = "/_matrix/client/v3/directory/room/%23tea:example.org";

pub(crate) async fn room(server: &Server, creator: &User, body: Value) -> String {
    // The id of a room is the hash of its beginning, which has a time in it.
    server.clock.advance(Duration::from_millis(1));
    let reply = server.post("/_matrix/client/v3/createRoom").by(creator).json(body).await.ok();
    reply["room_id"].as_str().unwrap().to_owned()
}

async fn an_alias_is_made_found_and_taken_away(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let room_id = room(&server, &alice, json!({})).await;
    server.get(ALIAS).await.error(404, "M_NOT_FOUND");
    server.put(ALIAS).by(&alice).json(json!({ "room_id": room_id })).await.ok();
    server.put(ALIAS).by(&alice).json(json!({ "room_id": room_id })).await.error(409, "M_UNKNOWN");
    assert_eq!(server.get(ALIAS).await.ok(), json!({ "room_id": room_id, "servers": ["example.org"] }));
    let aliases = format!("/_matrix/client/v3/rooms/{room_id}/aliases");
    assert_eq!(server.get(&aliases).by(&alice).await.ok(), json!({ "aliases": ["#tea:example.org"] }));
    server.delete(ALIAS).by(&alice).await.ok();
    server.get(ALIAS).await.error(404, "M_NOT_FOUND");
    server.delete(ALIAS).by(&alice).await.error(404, "M_NOT_FOUND");
    let elsewhere = "/_matrix/client/v3/directory/room/%23tea:other.example";
    server.put(elsewhere).by(&alice).json(json!({ "room_id": room_id })).await.error(400, "M_INVALID_PARAM");
    let nowhere = json!({ "room_id": "!nowhere:example.org" });
    server.put(ALIAS).by(&alice).json(nowhere).await.error(404, "M_NOT_FOUND");
    server.put("/_matrix/client/v3/directory/room/tea").by(&alice).json(json!({})).await.error(400, "M_INVALID_PARAM");
    let hidden = "/_matrix/client/v3/directory/room/%23t%00:example.org";
    let reply = server.put(hidden).by(&alice).json(json!({ "room_id": room_id })).await;
    reply.error(400, "M_INVALID_PARAM");
}

async fn an_alias_that_goes_is_shown_no_more(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let room_id = room(&server, &alice, json!({ "room_alias_name": "tea" })).await;
    let shown = format!("/_matrix/client/v3/rooms/{room_id}/state/m.room.canonical_alias");
    let second = "/_matrix/client/v3/directory/room/%23cake:example.org";
    server.put(second).by(&alice).json(json!({ "room_id": room_id })).await.ok();
    let both = json!({ "alias": "#tea:example.org", "alt_aliases": ["#cake:example.org"] });
    server.put(&shown).by(&alice).json(both).await.ok();
    server.delete(ALIAS).by(&alice).await.ok();
    server.put(ALIAS).by(&alice).json(json!({ "room_id": room_id })).await.ok();
    // What the room shows was changed with the alias: the same state again is a new event only for another content.
    let now = json!({ "alt_aliases": ["#cake:example.org"] });
    let first = server.put(&shown).by(&alice).json(now.clone()).await.ok();
    assert_eq!(server.put(&shown).by(&alice).json(now).await.ok(), first);
}

async fn who_has_no_power_changes_nothing(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let carol = server.register("carol").await;
    let room_id = room(&server, &alice, json!({ "preset": "public_chat", "room_alias_name": "tea" })).await;
    server.post(&format!("/_matrix/client/v3/join/{room_id}")).by(&bob).json(json!({})).await.ok();
    server.delete(ALIAS).by(&bob).await.error(403, "M_FORBIDDEN");
    let list = format!("/_matrix/client/v3/directory/list/room/{room_id}");
    server.put(&list).by(&bob).json(json!({ "visibility": "public" })).await.error(403, "M_FORBIDDEN");
    // Who is in the room may give it an alias, and take that one away again.
    let second = "/_matrix/client/v3/directory/room/%23cake:example.org";
    let body = json!({ "room_id": room_id });
    server.put(second).by(&carol).json(body.clone()).await.error(403, "M_FORBIDDEN");
    server.put(second).by(&bob).json(body).await.ok();
    server.get(&format!("/_matrix/client/v3/rooms/{room_id}/aliases")).by(&carol).await.error(403, "M_FORBIDDEN");
    server.delete(second).by(&carol).await.error(403, "M_FORBIDDEN");
    server.delete(second).by(&bob).await.ok();
}
