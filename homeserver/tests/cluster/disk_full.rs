//! A full disk refuses what would be stored and nothing else, and all works again as soon as there is room.

use gatehouse_test_support::client::{Answer, Follower, Server, User, encode, message, message_path};
use gatehouse_test_support::disk::{self, Holds, SmallDisk};
use gatehouse_test_support::edge::{Deployment, Options, REGISTRATION_SECRET};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

/// More sends than fit into what the full disk's WAL has of its own: about 2,000 pages.
const MANY: usize = 5_000;
/// The WAL is written anew from its beginning once it has 2,000 pages; one large transaction may go past that.
const LARGEST_WAL: u64 = 16 * 1024 * 1024;

fn start(holds: Holds, bytes: u64) -> Option<(Deployment, Server)> {
    let disk = disk::is_permitted().then_some(SmallDisk { bytes, holds })?;
    let deployment = Deployment::start(&Options { disk: Some(disk), ..Options::default() });
    let server = Server::new(&deployment.base_url(), &deployment.ca());
    Some((deployment, server))
}

#[track_caller]
fn assert_no_space(answer: &Answer) {
    let errcode = answer.body["errcode"].as_str();
    let expected = (StatusCode::INSUFFICIENT_STORAGE, Some("M_RESOURCE_LIMIT_EXCEEDED"));
    assert_eq!((answer.status, errcode), expected, "{}", answer.body);
    assert!(answer.body["admin_contact"].as_str().is_some_and(|uri| uri.starts_with("https://")), "{}", answer.body);
    assert!(answer.retry_after.is_some(), "{}", answer.body);
}

async fn send(user: &User, room_id: &str, body: &str) -> Answer {
    let transaction = encode(body.trim_end_matches(['x', ' ']));
    user.call(Method::PUT, &message_path(room_id, &transaction), Some(&message(body))).await
}

/// Sends messages until one is refused. Those that were acknowledged, and the body of the first refused one.
async fn send_until_full(user: &User, room_id: &str, round: u32) -> (Vec<String>, String) {
    let mut acknowledged = Vec::new();
    for number in 0..MANY {
        let body = format!("message {number} of round {round} {}", "x".repeat(2_000));
        let answer = send(user, room_id, &body).await;
        if !answer.status.is_success() {
            assert_no_space(&answer);
            return (acknowledged, body);
        }
        acknowledged.push(body);
    }
    panic!("a full disk took {MANY} messages");
}

async fn writes_are_refused(server: &Server, user: &User, room_id: &str) {
    let account_data = format!("/_matrix/client/v3/user/{}/account_data/org.example", encode(&user.id));
    let topic = format!("/_matrix/client/v3/rooms/{}/state/m.room.topic", encode(room_id));
    let filler = "x".repeat(9_000);
    let calls = [
        (Method::POST, "/_matrix/client/v3/createRoom", json!({ "name": "no room for it" })),
        (Method::PUT, account_data.as_str(), json!({ "filler": filler })),
        (Method::PUT, topic.as_str(), json!({ "topic": filler })),
    ];
    for (method, path, body) in calls {
        assert_no_space(&user.call(method, path, Some(&body)).await);
    }
    let name = user.id.trim_start_matches('@').split(':').next().unwrap();
    let refused = server.log_in(name, "correct horse battery staple").await.expect_err("a login makes a device");
    assert_no_space(&refused);
}

async fn reads_go_on(user: &User, room_id: &str, since: &str) {
    let room = encode(room_id);
    for path in [
        "/_matrix/client/v3/sync".to_owned(),
        "/_matrix/client/v3/sync?full_state=true".to_owned(),
        format!("/_matrix/client/v3/sync?timeout=100&since={}", encode(since)),
        format!("/_matrix/client/v3/rooms/{room}/messages?dir=b&limit=100"),
        format!("/_matrix/client/v3/rooms/{room}/members"),
        "/_matrix/client/v3/devices".to_owned(),
    ] {
        user.call(Method::GET, &path, None).await.expect(&path);
    }
}

#[tokio::test]
async fn a_full_database_disk_refuses_writes_and_serves_reads_until_there_is_room() {
    let Some((deployment, server)) = start(Holds::Database, 32 << 20) else { return };
    let alice = server.register("alice", REGISTRATION_SECRET).await;
    let bob = server.register("bob", REGISTRATION_SECRET).await;
    let room_id = alice.create_room(&json!({ "preset": "public_chat" })).await;
    bob.join(&room_id).await;
    let mut follower = Follower::new(&bob);
    follower.step(0).await;
    // A to-device message that bob has seen: what he acknowledges while the disk is full cannot be deleted.
    let to_device = json!({ "messages": { &bob.id: { "*": { "hello": "bob" } } } });
    let path = "/_matrix/client/v3/sendToDevice/org.example/1";
    alice.call(Method::PUT, path, Some(&to_device)).await.expect("a to-device message");
    let sync = bob.call(Method::GET, "/_matrix/client/v3/sync", None).await.expect("a sync");
    assert_eq!(to_device_count(&sync), 1);
    let since = sync["next_batch"].as_str().unwrap().to_owned();

    let (disk, shard) = (deployment.disk(), deployment.shard_pid(1));
    let mut all = Vec::new();
    for round in 0..2 {
        disk.fill();
        let (acknowledged, refused) = send_until_full(&alice, &room_id, round).await;
        all.extend(acknowledged);
        writes_are_refused(&server, &alice, &room_id).await;
        reads_go_on(&bob, &room_id, &since).await;
        let path = format!("/_matrix/client/v3/sync?since={}", encode(&since));
        let again = bob.call(Method::GET, &path, None).await.expect("a sync");
        assert_eq!(to_device_count(&again), 0, "what was acknowledged came again");
        let wal = disk.size_of("gatehouse.db-wal");
        assert!(wal < LARGEST_WAL, "the WAL has {wal} bytes");

        disk.free();
        send(&alice, &room_id, &refused).await.expect("the message that was refused before");
        all.push(refused);
    }
    follower.until("all messages", |follower| follower.messages_by(&room_id, &alice.id).len() == all.len()).await;
    assert_eq!(follower.messages_by(&room_id, &alice.id), all);
    assert_eq!(deployment.shard_pid(1), shard, "the shard was started again");
}

fn to_device_count(sync: &Value) -> usize {
    sync["to_device"]["events"].as_array().map_or(0, Vec::len)
}

#[tokio::test]
async fn a_full_media_disk_refuses_uploads_and_nothing_else_until_there_is_room() {
    let Some((deployment, server)) = start(Holds::Media, 4 << 20) else { return };
    let alice = server.register("alice", REGISTRATION_SECRET).await;
    let room_id = alice.create_room(&json!({ "preset": "public_chat" })).await;
    let kept = vec![b'k'; 1 << 20];
    let uri = alice.upload(kept.clone()).await.expect("an upload")["content_uri"].as_str().unwrap().to_owned();
    // Larger than what is left, so that it fills the disk itself and fails half-way.
    assert_no_space(&alice.upload(vec![b'l'; 5 << 20]).await);
    let disk = deployment.disk();
    assert_eq!(disk.files_in("media/incoming"), [""; 0], "a half-written file stays");
    disk.fill();
    for size in [1, 100_000] {
        assert_no_space(&alice.upload(vec![b's'; size]).await);
    }
    assert_eq!(alice.download(&uri).await, kept);
    alice.send(&room_id, "text goes on").await;

    disk.free();
    let uri = alice.upload(vec![b's'; 100_000]).await.expect("an upload")["content_uri"].as_str().unwrap().to_owned();
    assert_eq!(alice.download(&uri).await, vec![b's'; 100_000]);
    assert_eq!(disk.files_in("media/incoming"), [""; 0], "a half-written file stays");
}
