//! A PostgreSQL that goes away or hangs below a shard: each request hears of it in time, and nothing is half-done.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use gatehouse_shared::config::Secret;
use gatehouse_test_support::postgres::Postgres;
use http::header::RETRY_AFTER;
use serde_json::{Value, json};

use crate::harness::{Call, Engine, PASSWORD, Reply, Server, User, password_login};

/// Within this every request is answered when the database hangs.
const PATIENCE: Duration = Duration::from_secs(40);

async fn start(postgres: &Postgres) -> Server {
    let url = Secret::new(postgres.create_database());
    Server::start_with(Engine::Sqlite, |config| config.database.postgres = Some(url)).await
}

async fn new_room(server: &Server, user: &User) -> String {
    let body =
        server.post("/_matrix/client/v3/createRoom").by(user).json(json!({ "preset": "public_chat" })).await.ok();
    body["room_id"].as_str().unwrap().to_owned()
}

/// One request of each kind; none of them can be answered from memory.
fn requests(server: &Server, user: &User, room_id: &str) -> Vec<Call> {
    let client = "/_matrix/client/v3";
    let room = format!("{client}/rooms/{room_id}");
    let register = json!({ "username": "carol", "password": PASSWORD, "auth": { "type": "m.login.dummy" } });
    let account = format!("{client}/user/{}", user.user_id);
    let message = json!({ "body": "hello", "msgtype": "m.text" });
    vec![
        server.post(&format!("{client}/login")).json(password_login("alice", PASSWORD)),
        server.post(&format!("{client}/register")).json(register),
        server.post(&format!("{client}/createRoom")).by(user).json(json!({ "name": "half-done" })),
        server.put(&format!("{room}/send/m.room.message/1")).by(user).json(message),
        server.put(&format!("{room}/state/m.room.topic")).by(user).json(json!({ "topic": "half-done" })),
        server.get(&format!("{room}/messages?dir=b")).by(user),
        server.get(&format!("{client}/sync")).by(user),
        server.get(&format!("{client}/sync?full_state=true")).by(user),
        server.put(&format!("{account}/account_data/org.example")).by(user).json(json!({ "half": "done" })),
        server
            .put(&format!("{client}/sendToDevice/m.dummy/1"))
            .by(user)
            .json(json!({ "messages": { &user.user_id: { "*": {} } } })),
        server.post(&format!("{client}/keys/query")).by(user).json(json!({ "device_keys": { &user.user_id: [] } })),
        server.post("/_matrix/media/v3/upload").by(user).body("bytes"),
        server.get(&format!("{client}/devices")).by(user),
    ]
}

#[track_caller]
fn assert_told_to_come_again(reply: Reply) {
    let retry_after = reply.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let body = reply.error(503, "M_LIMIT_EXCEEDED");
    assert!(retry_after.is_some_and(|seconds| seconds > 0), "{body}");
    assert!(body["retry_after_ms"].is_u64(), "{body}");
}

/// What must be as if nothing had been asked, and what works again.
async fn nothing_is_half_done(server: &Server, user: &User, room_id: &str) {
    let client = "/_matrix/client/v3";
    let rooms = server.get(&format!("{client}/joined_rooms")).by(user).await.ok();
    assert_eq!(rooms["joined_rooms"], json!([room_id]));
    let topic = server.get(&format!("{client}/rooms/{room_id}/state/m.room.topic")).by(user).await;
    topic.error(404, "M_NOT_FOUND");
    let account_data = format!("{client}/user/{}/account_data/org.example", user.user_id);
    server.get(&account_data).by(user).await.error(404, "M_NOT_FOUND");
    server.register("carol").await;
}

async fn messages(server: &Server, user: &User, room_id: &str) -> Vec<Value> {
    let body = server.get(&format!("/_matrix/client/v3/rooms/{room_id}/messages?dir=b")).by(user).await.ok();
    let events = body["chunk"].as_array().unwrap();
    events.iter().filter(|event| event["type"] == "m.room.message").cloned().collect()
}

#[tokio::test]
async fn a_database_that_went_away_is_told_with_the_time_to_come_again_and_nothing_is_half_done() {
    let postgres = Postgres::start();
    let server = start(&postgres).await;
    let alice = server.register("alice").await;
    let room_id = new_room(&server, &alice).await;
    let since = server.get("/_matrix/client/v3/sync").by(&alice).await.ok()["next_batch"].as_str().unwrap().to_owned();
    let poll = server.get(&format!("/_matrix/client/v3/sync?timeout=120000&since={since}")).by(&alice);
    let poll = tokio::spawn(poll.into_future());

    postgres.crash();
    for request in requests(&server, &alice, &room_id) {
        assert_told_to_come_again(request.await);
    }
    postgres.resume();
    nothing_is_half_done(&server, &alice, &room_id).await;
    let send = || server.put(&format!("/_matrix/client/v3/rooms/{room_id}/send/m.room.message/1")).by(&alice);
    let message = || json!({ "body": "hello", "msgtype": "m.text" });
    let first = send().json(message()).await.ok();
    assert_eq!(send().json(message()).await.ok(), first);
    assert_eq!(messages(&server, &alice, &room_id).await.len(), 1);
    // The long poll that stood through it either went on or was told to come again; the next one has the message.
    let answer = poll.await.unwrap();
    if answer.status != 200 {
        assert_told_to_come_again(answer);
    }
    let sync = server.get(&format!("/_matrix/client/v3/sync?since={since}")).by(&alice).await.ok();
    let timeline = sync["rooms"]["join"][&room_id]["timeline"]["events"].as_array().unwrap().clone();
    assert!(timeline.iter().any(|event| event["event_id"] == first["event_id"]), "{sync}");
}

#[tokio::test]
async fn a_database_that_hangs_holds_no_request_forever() {
    let postgres = Postgres::start();
    let server = start(&postgres).await;
    let alice = server.register("alice").await;
    let room_id = new_room(&server, &alice).await;
    let calls = requests(&server, &alice, &room_id);

    let frozen = postgres.freeze();
    let begun = Instant::now();
    // Many more than there are connections, and many for one room: nobody waits in a line of those who wait.
    let many = (0..30).map(|number| {
        let path = format!("/_matrix/client/v3/rooms/{room_id}/send/m.room.message/many{number}");
        server.put(&path).by(&alice).json(json!({ "body": "many", "msgtype": "m.text" }))
    });
    let calls = calls.into_iter().chain(many);
    let replies =
        tokio::time::timeout(PATIENCE, join_all(calls.map(IntoFuture::into_future))).await.expect("answers in time");
    replies.into_iter().for_each(assert_told_to_come_again);
    let first_took = begun.elapsed();
    // Once it is known that nobody answers, nobody waits for that.
    let begun = Instant::now();
    for call in requests(&server, &alice, &room_id) {
        assert_told_to_come_again(call.await);
    }
    assert!(begun.elapsed() < first_took / 2, "{:?} after {first_took:?}", begun.elapsed());

    drop(frozen);
    // Whoever looks for the server finds it soon; until then requests are refused as before.
    let path = format!("/_matrix/client/v3/rooms/{room_id}/send/m.room.message/1");
    let message = json!({ "body": "hello", "msgtype": "m.text" });
    let back = async {
        loop {
            let reply = server.put(&path).by(&alice).json(message.clone()).await;
            if reply.status == 200 {
                return;
            }
            assert_told_to_come_again(reply);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, back).await.expect("the database is back");
    let seen = messages(&server, &alice, &room_id).await;
    let hello = seen.iter().filter(|event| event["content"]["body"] == "hello").count();
    assert_eq!(hello, 1);
    new_room(&server, &alice).await;
}
