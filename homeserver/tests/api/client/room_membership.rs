use serde_json::json;

use crate::harness::{Engine, Server, User};

on_both_engines!(
    a_ban_keeps_out_until_it_is_lifted,
    a_knock_is_answered,
    a_restricted_room_lets_in_who_is_in_the_other_one,
    a_room_is_forgotten_after_leaving_it,
    an_alias_leads_into_a_room,
    an_invite_opens_a_private_room,
    memberships_can_be_written_as_state,
    only_the_powerful_remove_others,
    whoever_leaves_is_out,
);

async fn membership_of(server: &Server, asking: &User, room_id: &str, user: &User) -> serde_json::Value {
    server.state(asking, room_id, "m.room.member", &user.user_id).await.ok()
}

async fn an_invite_opens_a_private_room(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let carol = server.register("carol").await;
    let room_id = server.create_room(&alice, json!({})).await;
    server.membership(&bob, &room_id, "join", json!({})).await.error(403, "M_FORBIDDEN");
    server.membership(&bob, &room_id, "invite", json!({ "user_id": carol.user_id })).await.error(403, "M_FORBIDDEN");
    let invite = json!({ "user_id": bob.user_id, "reason": "do come" });
    server.membership(&alice, &room_id, "invite", invite.clone()).await.ok();
    server.membership(&alice, &room_id, "invite", invite.clone()).await.ok();
    assert_eq!(membership_of(&server, &alice, &room_id, &bob).await["reason"], "do come");
    let answer = server.membership(&bob, &room_id, "join", json!({ "reason": "thanks" })).await.ok();
    assert_eq!(answer, json!({ "room_id": room_id }));
    // A join may be repeated.
    server.membership(&bob, &room_id, "join", json!({})).await.ok();
    server.membership(&alice, &room_id, "invite", invite).await.error(403, "M_FORBIDDEN");
    let bad = server.membership(&alice, &room_id, "invite", json!({ "user_id": "carol" }));
    bad.await.error(400, "M_BAD_JSON");
    let nowhere = server.membership(&alice, "!nowhere:example.org", "join", json!({}));
    nowhere.await.error(404, "M_NOT_FOUND");
    let no_room = server.membership(&alice, "nonsense", "join", json!({}));
    assert_eq!(no_room.await.status, 400);
    let unknown = server.membership(&alice, "!nowhere:example.org", "invite", json!({ "user_id": bob.user_id }));
    unknown.await.error(404, "M_NOT_FOUND");
}

async fn an_alias_leads_into_a_room(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let room_id = server.create_room(&alice, json!({ "preset": "public_chat", "room_alias_name": "hall" })).await;
    let join = server.post("/_matrix/client/v3/join/%23hall:example.org").by(&bob).json(json!({}));
    assert_eq!(join.await.ok()["room_id"], room_id);
    let join = server.post("/_matrix/client/v3/join/%23nowhere:example.org").by(&bob).json(json!({}));
    join.await.error(404, "M_NOT_FOUND");
    let join = server.post(&format!("/_matrix/client/v3/join/{room_id}")).by(&bob).body("");
    join.await.ok();
}

async fn whoever_leaves_is_out(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let carol = server.register("carol").await;
    let room_id = server.public_room(&alice, &[&bob]).await;
    server.membership(&carol, &room_id, "leave", json!({})).await.error(403, "M_FORBIDDEN");
    server.membership(&bob, &room_id, "leave", json!({ "reason": "late" })).await.ok();
    server.membership(&bob, &room_id, "leave", json!({})).await.ok();
    assert_eq!(
        membership_of(&server, &alice, &room_id, &bob).await,
        json!({ "membership": "leave", "reason": "late" })
    );
    server.send(&bob, &room_id, "m.room.message", "t", json!({ "body": "?" })).await.error(403, "M_FORBIDDEN");
    server.membership(&bob, "!nowhere:example.org", "leave", json!({})).await.error(404, "M_NOT_FOUND");
    // A room that everybody left can still be joined.
    server.membership(&alice, &room_id, "leave", json!({})).await.ok();
    server.membership(&bob, &room_id, "join", json!({})).await.ok();
    server.say(&bob, &room_id, "alone").await;
    // An invite is refused by leaving.
    let private = server.create_room(&alice, json!({ "invite": [carol.user_id] })).await;
    server.membership(&carol, &private, "leave", json!({})).await.ok();
    server.membership(&carol, &private, "join", json!({})).await.error(403, "M_FORBIDDEN");
}

async fn only_the_powerful_remove_others(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let carol = server.register("carol").await;
    let room_id = server.public_room(&alice, &[&bob, &carol]).await;
    let kick = |user: &User| json!({ "user_id": user.user_id, "reason": "enough" });
    server.membership(&bob, &room_id, "kick", kick(&carol)).await.error(403, "M_FORBIDDEN");
    server.membership(&bob, &room_id, "kick", kick(&alice)).await.error(403, "M_FORBIDDEN");
    server.membership(&alice, &room_id, "kick", kick(&carol)).await.ok();
    assert_eq!(membership_of(&server, &alice, &room_id, &carol).await["reason"], "enough");
    server.membership(&alice, &room_id, "kick", kick(&carol)).await.error(403, "M_FORBIDDEN");
    server.membership(&carol, &room_id, "join", json!({})).await.ok();
    let nowhere = server.membership(&alice, "!nowhere:example.org", "kick", kick(&carol));
    nowhere.await.error(404, "M_NOT_FOUND");
}

async fn a_ban_keeps_out_until_it_is_lifted(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let carol = server.register("carol").await;
    let room_id = server.public_room(&alice, &[&bob]).await;
    let who = |user: &User| json!({ "user_id": user.user_id });
    server.membership(&bob, &room_id, "ban", who(&carol)).await.error(403, "M_FORBIDDEN");
    for user in [&bob, &carol] {
        server.membership(&alice, &room_id, "ban", who(user)).await.ok();
        server.membership(&alice, &room_id, "ban", who(user)).await.ok();
        server.membership(user, &room_id, "join", json!({})).await.error(403, "M_FORBIDDEN");
        server.membership(user, &room_id, "leave", json!({})).await.error(403, "M_FORBIDDEN");
        server.membership(&alice, &room_id, "invite", who(user)).await.error(403, "M_FORBIDDEN");
        server.membership(&alice, &room_id, "kick", who(user)).await.error(403, "M_FORBIDDEN");
    }
    server.membership(&bob, &room_id, "unban", who(&carol)).await.error(403, "M_FORBIDDEN");
    server.membership(&alice, &room_id, "unban", who(&bob)).await.ok();
    server.membership(&alice, &room_id, "unban", who(&bob)).await.error(400, "M_BAD_STATE");
    server.membership(&bob, &room_id, "join", json!({})).await.ok();
}

async fn a_knock_is_answered(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let carol = server.register("carol").await;
    let knocking = json!([{ "type": "m.room.join_rules", "content": { "join_rule": "knock" } }]);
    let room_id = server.create_room(&alice, json!({ "initial_state": knocking })).await;
    let knock = |user: &User, room_id: &str| {
        server.post(&format!("/_matrix/client/v3/knock/{room_id}")).by(user).json(json!({ "reason": "please" }))
    };
    assert_eq!(knock(&bob, &room_id).await.ok(), json!({ "room_id": room_id }));
    let member = membership_of(&server, &alice, &room_id, &bob).await;
    assert_eq!((&member["membership"], &member["reason"]), (&json!("knock"), &json!("please")));
    server.membership(&bob, &room_id, "join", json!({})).await.error(403, "M_FORBIDDEN");
    server.membership(&alice, &room_id, "invite", json!({ "user_id": bob.user_id })).await.ok();
    knock(&bob, &room_id).await.error(403, "M_FORBIDDEN");
    server.membership(&bob, &room_id, "join", json!({})).await.ok();
    knock(&bob, &room_id).await.error(403, "M_FORBIDDEN");
    // A knock is taken back, or refused.
    knock(&carol, &room_id).await.ok();
    server.membership(&carol, &room_id, "leave", json!({})).await.ok();
    knock(&carol, &room_id).await.ok();
    server.membership(&alice, &room_id, "kick", json!({ "user_id": carol.user_id })).await.ok();
    server.membership(&alice, &room_id, "ban", json!({ "user_id": carol.user_id })).await.ok();
    knock(&carol, &room_id).await.error(403, "M_FORBIDDEN");
    let private = server.create_room(&alice, json!({})).await;
    knock(&bob, &private).await.error(403, "M_FORBIDDEN");
    knock(&bob, "!nowhere:example.org").await.error(404, "M_NOT_FOUND");
}

async fn a_room_is_forgotten_after_leaving_it(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let room_id = server.public_room(&alice, &[&bob]).await;
    server.membership(&bob, &room_id, "forget", json!({})).await.error(400, "M_UNKNOWN");
    server.membership(&bob, &room_id, "leave", json!({})).await.ok();
    server.membership(&bob, &room_id, "forget", json!({})).await.ok();
    server.membership(&bob, &room_id, "forget", json!({})).await.ok();
    server.membership(&bob, "!nowhere:example.org", "forget", json!({})).await.error(404, "M_NOT_FOUND");
    server.membership(&bob, &room_id, "join", json!({})).await.ok();
    let rooms = server.get("/_matrix/client/v3/joined_rooms").by(&bob).await.ok();
    assert_eq!(rooms["joined_rooms"], json!([room_id]));
}

async fn a_restricted_room_lets_in_who_is_in_the_other_one(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let carol = server.register("carol").await;
    for version in ["8", "9", "10", "11", "12"] {
        let club = server.public_room(&alice, &[&bob]).await;
        let rules = json!({ "join_rule": "restricted", "allow": [{ "type": "m.room_membership", "room_id": club }] });
        let body = json!({
            "room_version": version,
            "initial_state": [{ "type": "m.room.join_rules", "content": rules }],
        });
        let room_id = server.create_room(&alice, body).await;
        server.membership(&bob, &room_id, "join", json!({})).await.ok();
        let member = membership_of(&server, &alice, &room_id, &bob).await;
        assert_eq!(member["join_authorised_via_users_server"], alice.user_id, "version {version}");
        server.membership(&carol, &room_id, "join", json!({})).await.error(403, "M_FORBIDDEN");
        server.membership(&alice, &room_id, "invite", json!({ "user_id": carol.user_id })).await.ok();
        server.membership(&carol, &room_id, "join", json!({})).await.ok();
        // Whoever left the club does not come back in.
        server.membership(&bob, &club, "leave", json!({})).await.ok();
        server.membership(&bob, &room_id, "leave", json!({})).await.ok();
        server.membership(&bob, &room_id, "join", json!({})).await.error(403, "M_FORBIDDEN");
    }
}

async fn memberships_can_be_written_as_state(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let room_id = server.create_room(&alice, json!({})).await;
    let put = |by: &User, whose: &User, membership: &str| {
        server.put_state(by, &room_id, "m.room.member", &whose.user_id, json!({ "membership": membership }))
    };
    put(&bob, &bob, "join").await.error(403, "M_FORBIDDEN");
    put(&alice, &bob, "join").await.error(403, "M_FORBIDDEN");
    put(&alice, &bob, "invite").await.ok();
    put(&bob, &bob, "join").await.ok();
    put(&bob, &alice, "leave").await.error(403, "M_FORBIDDEN");
    put(&alice, &bob, "ban").await.ok();
    put(&alice, &bob, "nonsense").await.error(403, "M_FORBIDDEN");
    assert_eq!(membership_of(&server, &alice, &room_id, &bob).await["membership"], "ban");
}
