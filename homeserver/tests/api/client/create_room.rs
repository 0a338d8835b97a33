use serde_json::{Value, json};

use crate::harness::{Engine, Server, User};

on_both_engines!(
    a_room_of_every_version_is_made,
    a_taken_alias_makes_no_room,
    creators_of_version_12_rooms_share_their_power,
    initial_state_comes_before_the_preset,
    invites_are_part_of_the_creation,
    power_levels_are_overridden_field_by_field,
    presets_set_what_the_specification_says,
    what_cannot_be_made_is_refused,
);

const CREATE: &str = "/_matrix/client/v3/createRoom";

async fn content(server: &Server, user: &User, room_id: &str, event_type: &str) -> Value {
    server.state(user, room_id, event_type, "").await.ok()
}

async fn joined_rooms(server: &Server, user: &User) -> usize {
    let rooms = server.get("/_matrix/client/v3/joined_rooms").by(user).await.ok();
    rooms["joined_rooms"].as_array().unwrap().len()
}

async fn a_room_of_every_version_is_made(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    for version in 1..=12 {
        let room_id = server.create_room(&alice, json!({ "room_version": version.to_string() })).await;
        assert_eq!(room_id.ends_with(":example.org"), version < 12, "{room_id}");
        let create = content(&server, &alice, &room_id, "m.room.create").await;
        assert_eq!(create["room_version"], version.to_string());
        assert_eq!(create.get("creator").is_some(), version < 11, "{create}");
        server.say(&alice, &room_id, "hello").await;
    }
    let room_id = server.create_room(&alice, json!({})).await;
    assert_eq!(content(&server, &alice, &room_id, "m.room.create").await["room_version"], "12");
}

async fn presets_set_what_the_specification_says(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let (private, public) = (["invite", "shared", "can_join"], ["public", "shared", "forbidden"]);
    for (body, expected) in [
        (json!({ "preset": "private_chat" }), private),
        (json!({ "preset": "trusted_private_chat" }), private),
        (json!({ "preset": "public_chat" }), public),
        (json!({}), private),
        (json!({ "visibility": "private" }), private),
        (json!({ "visibility": "public" }), public),
        (json!({ "visibility": "public", "preset": "private_chat" }), private),
    ] {
        let room_id = server.create_room(&alice, body.clone()).await;
        let found = [
            content(&server, &alice, &room_id, "m.room.join_rules").await["join_rule"].clone(),
            content(&server, &alice, &room_id, "m.room.history_visibility").await["history_visibility"].clone(),
            content(&server, &alice, &room_id, "m.room.guest_access").await["guest_access"].clone(),
        ];
        assert_eq!(found, expected, "{body}");
        let listed = server.get(&format!("/_matrix/client/v3/directory/list/room/{room_id}")).by(&alice).await.ok();
        let visibility = body.get("visibility").cloned().unwrap_or(json!("private"));
        assert_eq!(listed["visibility"], visibility, "{body}");
    }
}

async fn initial_state_comes_before_the_preset(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let body = json!({
        "preset": "private_chat",
        "name": "Name",
        "topic": "Topic",
        "creation_content": { "m.federate": false, "type": "m.space", "room_version": "1" },
        "initial_state": [
            { "type": "m.room.join_rules", "content": { "join_rule": "public" } },
            { "type": "m.room.name", "state_key": "", "content": { "name": "Overruled" } },
            { "type": "m.room.encryption", "state_key": "", "content": { "algorithm": "m.megolm.v1.aes-sha2" } },
            { "type": "org.example.custom", "state_key": "key", "content": { "a": 1 } },
        ],
    });
    let room_id = server.create_room(&alice, body).await;
    assert_eq!(content(&server, &alice, &room_id, "m.room.join_rules").await, json!({ "join_rule": "public" }));
    assert_eq!(content(&server, &alice, &room_id, "m.room.name").await["name"], "Name");
    assert_eq!(content(&server, &alice, &room_id, "m.room.topic").await["topic"], "Topic");
    assert_eq!(content(&server, &alice, &room_id, "m.room.encryption").await["algorithm"], "m.megolm.v1.aes-sha2");
    assert_eq!(server.state(&alice, &room_id, "org.example.custom", "key").await.ok(), json!({ "a": 1 }));
    let create = content(&server, &alice, &room_id, "m.room.create").await;
    assert_eq!((&create["m.federate"], &create["type"]), (&json!(false), &json!("m.space")));
    assert_eq!(create["room_version"], "12", "the request's own field decides");
}

async fn invites_are_part_of_the_creation(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let body = json!({ "invite": [bob.user_id, alice.user_id, bob.user_id], "is_direct": true });
    let room_id = server.create_room(&alice, body).await;
    let member = server.state(&alice, &room_id, "m.room.member", &bob.user_id).await.ok();
    assert_eq!((&member["membership"], &member["is_direct"]), (&json!("invite"), &json!(true)));
    let own = server.state(&alice, &room_id, "m.room.member", &alice.user_id).await.ok();
    assert_eq!(own["membership"], "join");
    server.membership(&bob, &room_id, "join", json!({})).await.ok();
    server.say(&bob, &room_id, "hello").await;
}

async fn power_levels_are_overridden_field_by_field(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let overridden = json!({ "events_default": 10, "events": { "m.room.name": 20 } });
    let body = json!({ "room_version": "11", "power_level_content_override": overridden });
    let levels = content(&server, &alice, &server.create_room(&alice, body).await, "m.room.power_levels").await;
    assert_eq!(levels["events_default"], 10);
    assert_eq!(levels["events"], json!({ "m.room.name": 20 }));
    assert_eq!(levels["users"][&alice.user_id], 100);
    assert_eq!(levels["ban"], 50);
    let body = json!({ "room_version": "12" });
    let levels = content(&server, &alice, &server.create_room(&alice, body).await, "m.room.power_levels").await;
    assert_eq!(levels["users"], json!({}), "a creator is above all levels");
    assert_eq!(levels["events"]["m.room.tombstone"], 150);
}

async fn creators_of_version_12_rooms_share_their_power(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let carol = server.register("carol").await;
    for version in ["11", "12"] {
        let body = json!({
            "preset": "trusted_private_chat",
            "room_version": version,
            "invite": [bob.user_id],
            "creation_content": if version == "12" { json!({ "additional_creators": [carol.user_id] }) } else { json!({}) },
        });
        let room_id = server.create_room(&alice, body).await;
        let create = content(&server, &alice, &room_id, "m.room.create").await;
        let levels = content(&server, &alice, &room_id, "m.room.power_levels").await;
        if version == "12" {
            assert_eq!(create["additional_creators"], json!([carol.user_id, bob.user_id]));
            assert_eq!(levels["users"], json!({}));
        } else {
            assert_eq!(create.get("additional_creators"), None);
            assert_eq!(levels["users"][&bob.user_id], 100);
        }
        server.membership(&bob, &room_id, "join", json!({})).await.ok();
        server.put_state(&bob, &room_id, "m.room.power_levels", "", levels).await.ok();
    }
}

async fn a_taken_alias_makes_no_room(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let room_id = server.create_room(&alice, json!({ "room_alias_name": "hall" })).await;
    let alias = content(&server, &alice, &room_id, "m.room.canonical_alias").await;
    assert_eq!(alias["alias"], "#hall:example.org");
    let found = server.get("/_matrix/client/v3/directory/room/%23hall:example.org").by(&alice).await.ok();
    assert_eq!(found["room_id"], room_id);
    let again = server.post(CREATE).by(&alice).json(json!({ "room_alias_name": "hall" }));
    again.await.error(400, "M_ROOM_IN_USE");
    assert_eq!(joined_rooms(&server, &alice).await, 1);
    server.create_room(&alice, json!({ "room_alias_name": "yard" })).await;
}

async fn what_cannot_be_made_is_refused(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let many: Vec<String> = (0..101).map(|number| format!("@user{number}:example.org")).collect();
    let threepid =
        json!([{ "id_server": "example.org", "id_access_token": "t", "medium": "email", "address": "a@b.c" }]);
    for (body, errcode) in [
        (json!({ "room_version": "99" }), "M_UNSUPPORTED_ROOM_VERSION"),
        (json!({ "room_version": 11 }), "M_BAD_JSON"),
        (json!({ "name": 1 }), "M_BAD_JSON"),
        (json!({ "invite": ["bob"] }), "M_BAD_JSON"),
        (json!({ "invite": many }), "M_INVALID_PARAM"),
        (json!({ "invite_3pid": threepid }), "M_INVALID_PARAM"),
        (json!({ "room_alias_name": "no:colon" }), "M_INVALID_PARAM"),
        (json!({ "room_alias_name": "" }), "M_INVALID_PARAM"),
        (json!({ "initial_state": [{ "content": {} }] }), "M_BAD_JSON"),
        (json!({ "initial_state": [{ "type": "m.room.name", "content": { "f": 1.5 } }] }), "M_BAD_JSON"),
        (
            json!({ "room_version": "12", "power_level_content_override": { "users": { alice.user_id.clone(): 100 } } }),
            "M_INVALID_ROOM_STATE",
        ),
        (
            json!({ "initial_state": [{ "type": "m.room.member", "state_key": "@x:example.org",
                                        "content": { "membership": "join" } }] }),
            "M_INVALID_ROOM_STATE",
        ),
        (json!({ "creation_content": { "additional_creators": ["nobody"] } }), "M_INVALID_ROOM_STATE"),
    ] {
        server.post(CREATE).by(&alice).json(body.clone()).await.error(400, errcode);
    }
    server.post(CREATE).by(&alice).body("{").await.error(400, "M_NOT_JSON");
    server.post(CREATE).json(json!({})).await.error(401, "M_MISSING_TOKEN");
    let long = server.post(CREATE).by(&alice).json(json!({ "topic": "x".repeat(70_000) }));
    long.await.error(413, "M_TOO_LARGE");
    assert_eq!(joined_rooms(&server, &alice).await, 0, "nothing of all that was made");
}
