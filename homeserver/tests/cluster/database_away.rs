//! PostgreSQL goes away below running shards: clients are told to come again, and all recovers by itself.

use std::sync::Arc;
use std::time::Duration;

use gatehouse_test_support::client::{Follower, Server, User, message, message_path};
use gatehouse_test_support::edge::{Database, Deployment, Options, REGISTRATION_SECRET};
use gatehouse_test_support::postgres::Postgres;
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::load::{Blow, Load, What};

fn start(postgres: &Postgres) -> Deployment {
    let database = Database::Postgres(postgres.create_database());
    Deployment::start(&Options { shards: 2, database, ..Options::default() })
}

/// Twice the database crashes and once it hangs while 10 clients send; one crash is so long that leases run out.
#[tokio::test]
async fn every_acknowledged_message_survives_a_database_that_crashes_and_hangs() {
    let postgres = Arc::new(Postgres::start());
    let deployment = start(&postgres);
    let load = Load {
        clients: 10,
        rooms: 10,
        members: 4,
        messages: 2_000,
        blows: vec![
            Blow { after: 300, what: What::CrashDatabase(postgres.clone(), Duration::ZERO) },
            Blow { after: 900, what: What::FreezeDatabase(postgres.clone(), Duration::from_secs(20)) },
            Blow { after: 1_500, what: What::CrashDatabase(postgres.clone(), Duration::from_secs(3)) },
        ],
    };
    load.run(&deployment).await.check_order_and_completeness().await;
}

/// The edge says 429 with a time to wait for everything, a long poll that began before goes on afterwards, and a shard
/// that dies meanwhile comes back with the database.
#[tokio::test]
async fn clients_are_told_to_come_again_while_the_database_is_away() {
    let postgres = Arc::new(Postgres::start());
    let deployment = start(&postgres);
    let server = Server::new(&deployment.base_url(), &deployment.ca());
    let (alice, bob) =
        (server.register("alice", REGISTRATION_SECRET).await, server.register("bob", REGISTRATION_SECRET).await);
    let room_id = alice.create_room(&json!({"preset": "public_chat"})).await;
    bob.join(&room_id).await;
    let mut follower = Follower::new(&bob);
    follower.step(0).await;

    let poll = async {
        follower
            .until("what was sent in the end", |follower| !follower.messages_by(&room_id, &alice.id).is_empty())
            .await;
    };
    let outage = async {
        postgres.crash();
        for _ in 0..3 {
            all_are_told_to_come_again(&alice, &room_id).await;
        }
        deployment.kill_shard(1).await;
        all_are_told_to_come_again(&alice, &room_id).await;
        postgres.resume();
        let path = message_path(&room_id, "txn");
        alice.call_patiently(Method::PUT, &path, Some(&message("after all"))).await.expect("a message");
    };
    tokio::join!(poll, outage);
    let again = alice.call_patiently(Method::PUT, &message_path(&room_id, "txn"), Some(&message("after all"))).await;
    again.expect("the same message");
    let rooms = alice.call(Method::GET, "/_matrix/client/v3/joined_rooms", None).await.expect("the rooms");
    assert_eq!(rooms["joined_rooms"], json!([room_id]), "a room that was refused is there");
    follower.step(0).await;
    assert_eq!(follower.messages_by(&room_id, &alice.id), ["after all"]);
}

async fn all_are_told_to_come_again(user: &User, room_id: &str) {
    let send = message_path(room_id, "txn");
    let calls = [
        (Method::PUT, send.as_str(), Some(message("after all"))),
        (Method::POST, "/_matrix/client/v3/createRoom", Some(json!({}))),
        (Method::GET, "/_matrix/client/v3/sync", None),
        (Method::GET, "/_matrix/client/v3/devices", None),
    ];
    for (method, path, body) in calls {
        let answer = user.call(method.clone(), path, body.as_ref()).await;
        let errcode = answer.body["errcode"].as_str();
        assert_eq!(
            (answer.status, errcode),
            (StatusCode::TOO_MANY_REQUESTS, Some("M_LIMIT_EXCEEDED")),
            "{method} {path}"
        );
        let (seconds, ms) = (answer.retry_after, answer.body["retry_after_ms"].as_u64());
        assert!(seconds.is_some_and(|seconds| ms == Some(seconds * 1_000)), "{method} {path}: {}", answer.body);
    }
}
