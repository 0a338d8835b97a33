//! Two servers of ours federate over loopback with TLS.

use std::time::Duration;

use axum::extract::Request;
use gatehouse_shared::{
    clock::{Clock, SystemClock},
    servers::{ServerNames, ServerPolicy},
};
use ruma::{OwnedUserId, UserId, api::client::room::create_room::v3::RoomPreset, user_id};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::{sender::SenderParts, *};
use crate::{
    e2ee::E2eeParts,
    ephemeral::EphemeralParts,
    membership::Membership,
    remote::testing::TestAuthority,
    rooms::{Draft, NewRoom, Profile, RoomsParts},
    rules::room_version::RoomVersion,
    storage::{event_cache::EventCache, testing, users},
    stream::Stream,
};

/// One server of ours, without its accounts and clients.
struct Node {
    name: OwnedServerName,
    db: Db,
    rooms: Rooms,
    federation: Federation,
    membership: Membership,
    sender: Option<CancellationToken>,
    sender_parts: Box<dyn Fn() -> SenderParts + Send + Sync>,
    /// While it is false, connections are refused as by a server that is down.
    is_up: tokio::sync::watch::Sender<bool>,
}

impl Node {
    async fn start(authority: &TestAuthority) -> Self {
        let name = format!("{:016x}.db", rand::random::<u64>());
        Self::start_on(authority, authority.db(&name).await).await
    }

    async fn start_on(authority: &TestAuthority, db: Db) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let name: OwnedServerName = listener.local_addr().unwrap().to_string().try_into().unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let nids = Nids::new(db.clone());
        let names = UserNames::new(db.clone(), nids.clone());
        let stream = Stream::open(db.clone()).await.unwrap();
        let lane = stream.start(clock.clone(), CancellationToken::new()).await.unwrap();
        let key = authority.key(name.as_str());
        let client = authority.client(db.clone(), key.clone(), clock.clone());
        let key_ring = KeyRing::new(db.clone(), client.clone(), key.clone(), Vec::new(), clock.clone());
        let rooms = Rooms::new(RoomsParts {
            db: db.clone(),
            event_cache: EventCache::default(),
            nids: nids.clone(),
            names: names.clone(),
            lane: lane.clone(),
            stream: stream.clone(),
            server_name: name.clone(),
            signing_key: key.shared_pair(),
            clock: clock.clone(),
        });
        let e2ee = E2ee::new(E2eeParts {
            db: db.clone(),
            names: names.clone(),
            lane: lane.clone(),
            stream: stream.clone(),
            server_name: name.clone(),
            clock: clock.clone(),
        });
        let ephemeral =
            Ephemeral::new(EphemeralParts { db: db.clone(), names: names.clone(), lane, clock: clock.clone() });
        let federation = Federation::new(FederationParts {
            db: db.clone(),
            nids,
            names: names.clone(),
            rooms: rooms.clone(),
            request_auth: RequestAuth::new(key.clone(), key_ring.clone()),
            key,
            key_ring,
            client: client.clone(),
            e2ee: e2ee.clone(),
            ephemeral,
            clock: clock.clone(),
        });
        let membership = Membership::new(db.clone(), names.clone(), rooms.clone(), federation.clone());
        let sender_parts = {
            let (db, names, stream, federation, name) =
                (db.clone(), names.clone(), stream.clone(), federation.clone(), name.clone());
            Box::new(move || SenderParts {
                db: db.clone(),
                names: names.clone(),
                stream: stream.clone(),
                client: client.clone(),
                e2ee: e2ee.clone(),
                federation: federation.clone(),
                server_name: name.clone(),
                clock: clock.clone(),
            })
        };
        let is_up = tokio::sync::watch::Sender::new(true);
        let router = crate::api::federation::rooms_only(federation.clone());
        authority.serve_on(listener, &["127.0.0.1"], switchable(router, is_up.subscribe()));
        let mut node = Self { name, db, rooms, federation, membership, sender: None, sender_parts, is_up };
        node.start_sender();
        node
    }

    fn start_sender(&mut self) {
        let stop = CancellationToken::new();
        tokio::spawn(sender::Sender::new((self.sender_parts)()).run(stop.clone()));
        self.sender = Some(stop);
    }

    async fn user(&self, localpart: &str) -> OwnedUserId {
        let user_id = UserId::parse(format!("@{localpart}:{}", self.name)).unwrap();
        let user_nid = self.federation.parts.names.nid(&user_id).await.unwrap();
        self.db.write(vec![users::insert(user_nid, None, false, 0)]).await.unwrap();
        user_id
    }

    async fn room(&self, creator: &UserId, version: RoomVersion) -> OwnedRoomId {
        let room = NewRoom {
            creator: creator.to_owned(),
            room_version: version,
            creation_content: CanonicalJsonObject::new(),
            preset: RoomPreset::PublicChat,
            is_published: false,
            name: Some("Shared".to_owned()),
            topic: None,
            alias: None,
            power_levels: CanonicalJsonObject::new(),
            initial_state: Vec::new(),
            invites: Vec::new(),
            remote_invites: Vec::new(),
            is_direct: false,
            profile: Profile::default(),
        };
        self.membership.create_room(room).await.unwrap()
    }

    async fn say(&self, room_id: &RoomId, sender: &UserId, body: &str) {
        let content: CanonicalJsonObject =
            serde_json::from_value(json!({ "msgtype": "m.text", "body": body })).unwrap();
        let draft =
            Draft { sender, event_type: "m.room.message", state_key: None, content, redacts: None, transaction: None };
        self.rooms.append(room_id, draft).await.unwrap();
    }

    /// What `sender` said in a room, in the room's order, as this server has it.
    async fn heard(&self, room_id: &RoomId, sender: &UserId) -> Vec<String> {
        let sql = "SELECT e.json FROM events e JOIN rooms r ON r.room_nid = e.room_nid WHERE r.room_id = $1 \
                   AND e.sender = $2 AND e.event_type = 'm.room.message' AND e.position > 0 AND e.standing = 0 \
                   ORDER BY e.position";
        let rows = self.db.query(sql, crate::params![room_id.as_str(), sender.as_str()]).await.unwrap();
        rows.iter()
            .map(|row| {
                let json: serde_json::Value = serde_json::from_str(&row.get::<String>(0).unwrap()).unwrap();
                json["content"]["body"].as_str().unwrap().to_owned()
            })
            .collect()
    }

    async fn membership(&self, room_id: &RoomId, user_id: &UserId) -> Option<String> {
        let sql = "SELECT m.membership FROM memberships m JOIN rooms r ON r.room_nid = m.room_nid \
                   JOIN user_names u ON u.user_nid = m.user_nid WHERE r.room_id = $1 AND u.user_id = $2";
        let row = self.db.query_opt(sql, crate::params![room_id.as_str(), user_id.as_str()]).await.unwrap();
        row.map(|row| row.get(0).unwrap())
    }
}

/// Answers 503 while the server is meant to be down.
fn switchable(router: axum::Router, is_up: tokio::sync::watch::Receiver<bool>) -> axum::Router {
    axum::Router::new().fallback(move |request: Request| {
        let (router, is_up) = (router.clone(), *is_up.borrow());
        async move {
            if is_up {
                router.oneshot(request).await.unwrap_or_else(|error| match error {})
            } else {
                axum::response::IntoResponse::into_response(http::StatusCode::SERVICE_UNAVAILABLE)
            }
        }
    })
}

async fn eventually<F: Future<Output = bool>>(what: &str, check: impl Fn() -> F) {
    for _ in 0..300 {
        if check().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("never: {what}");
}

fn numbered(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix} {number}")).collect()
}

async fn expect_heard(node: &Node, room_id: &RoomId, sender: &UserId, expected: &[String]) {
    eventually(&format!("{} hears {} messages", node.name, expected.len()), || async {
        node.heard(room_id, sender).await.len() >= expected.len()
    })
    .await;
    assert_eq!(node.heard(room_id, sender).await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_share_rooms_and_catch_up_after_an_outage() {
    let authority = TestAuthority::new();
    // One on each engine.
    let postgres = testing::postgres().await.db;
    let (here, there) = tokio::join!(Node::start(&authority), Node::start_on(&authority, postgres));
    let (alice, bob) = (here.user("alice").await, there.user("bob").await);
    for version in [RoomVersion::V1, RoomVersion::V10, RoomVersion::V11, RoomVersion::V12] {
        let room = here.room(&alice, version).await;
        there.membership.join(&bob, &room, std::slice::from_ref(&here.name), None).await.unwrap();
        assert_eq!(there.membership(&room, &alice).await.as_deref(), Some("join"));
        assert_eq!(here.membership(&room, &bob).await.as_deref(), Some("join"));

        let (ours, theirs) = (numbered("ours", 50), numbered("theirs", 50));
        let talk = async |node: &Node, user: &UserId, bodies: &[String]| {
            for body in bodies {
                node.say(&room, user, body).await;
            }
        };
        tokio::join!(talk(&here, &alice, &ours), talk(&there, &bob, &theirs));
        expect_heard(&there, &room, &alice, &ours).await;
        expect_heard(&here, &room, &bob, &theirs).await;

        there.is_up.send_replace(false);
        let missed = numbered("missed", 60);
        talk(&here, &alice, &missed).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        there.is_up.send_replace(true);
        // Who hears from a server again need not wait to try it again.
        there.say(&room, &bob, "back").await;
        expect_heard(&there, &room, &alice, &[ours, missed].concat()).await;
        expect_heard(&here, &room, &bob, &[theirs, vec!["back".to_owned()]].concat()).await;

        there.membership.leave(&bob, &room, None).await.unwrap();
        eventually("the leave arrives", || async { here.membership(&room, &bob).await.as_deref() == Some("leave") })
            .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invites_go_each_way_and_can_be_refused() {
    let authority = TestAuthority::new();
    let (here, there) = tokio::join!(Node::start(&authority), Node::start(&authority));
    let (alice, bob, carol) = (here.user("alice").await, there.user("bob").await, there.user("carol").await);
    let room = here.room(&alice, RoomVersion::V12).await;
    for invited in [&bob, &carol] {
        here.membership.invite(&alice, &room, invited, None, false).await.unwrap();
        assert_eq!(there.membership(&room, invited).await.as_deref(), Some("invite"));
        assert_eq!(here.membership(&room, invited).await.as_deref(), Some("invite"));
    }
    // The invite says through whom to join.
    there.membership.join(&bob, &room, &[], None).await.unwrap();
    eventually("bob is in", || async { here.membership(&room, &bob).await.as_deref() == Some("join") }).await;
    there.membership.leave(&carol, &room, None).await.unwrap();
    eventually("carol refused", || async { here.membership(&room, &carol).await.as_deref() == Some("leave") }).await;
    assert_eq!(there.membership(&room, &carol).await.as_deref(), Some("leave"));

    let nobody = user_id!("@nobody:example.org");
    assert!(here.membership.invite(&alice, &room, nobody, None, false).await.is_err());
    let unregistered = UserId::parse(format!("@unregistered:{}", there.name)).unwrap();
    assert!(here.membership.invite(&alice, &room, &unregistered, None, false).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invite_that_is_taken_back_is_gone_in_a_server_that_is_not_in_the_room() {
    let authority = TestAuthority::new();
    let (here, there, third) = tokio::join!(Node::start(&authority), Node::start(&authority), Node::start(&authority));
    let (alice, bob, carol) = (here.user("alice").await, there.user("bob").await, third.user("carol").await);
    let room = here.room(&alice, RoomVersion::V12).await;
    third.membership.join(&carol, &room, std::slice::from_ref(&here.name), None).await.unwrap();
    here.membership.invite(&alice, &room, &bob, None, false).await.unwrap();
    // The invite is alice's. A removal in the name of somebody else is not believed, nor is anything else about the room.
    let invite = here.rooms.state_event(&room, "m.room.member", bob.as_str()).await.unwrap().unwrap();
    eventually("carol's server knows", || async { third.rooms.find_event(invite.event_id()).await.unwrap().is_some() })
        .await;
    let content = ruma::CanonicalJsonObject::from([("membership".to_owned(), "leave".into())]);
    let refused = third.rooms.append(&room, Draft::state(&carol, "m.room.member", bob.as_str(), content)).await;
    assert!(refused.is_err(), "carol has no power");
    assert_eq!(there.membership(&room, &bob).await.as_deref(), Some("invite"));

    here.membership.kick(&alice, &room, &bob, None).await.unwrap();
    eventually("the invite is gone", || async { there.membership(&room, &bob).await.as_deref() == Some("leave") })
        .await;
    // Another invite is another one.
    here.membership.invite(&alice, &room, &bob, None, false).await.unwrap();
    assert_eq!(there.membership(&room, &bob).await.as_deref(), Some("invite"));
    here.membership.ban(&alice, &room, &bob, None).await.unwrap();
    eventually("bob is banned", || async { there.membership(&room, &bob).await.as_deref() == Some("ban") }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_is_sent_after_a_restart_of_the_sender() {
    let authority = TestAuthority::new();
    let (mut here, there) = tokio::join!(Node::start(&authority), Node::start(&authority));
    let (alice, bob) = (here.user("alice").await, there.user("bob").await);
    let room = here.room(&alice, RoomVersion::V12).await;
    there.membership.join(&bob, &room, std::slice::from_ref(&here.name), None).await.unwrap();
    if let Some(sender) = here.sender.take() {
        sender.cancel();
    }
    let bodies = numbered("while nobody sends", 10);
    for body in &bodies {
        here.say(&room, &alice, body).await;
    }
    here.start_sender();
    expect_heard(&there, &room, &alice, &bodies).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_waits_for_a_server_that_is_denied_and_it_catches_up_once_it_is_not() {
    let authority = TestAuthority::new();
    let (here, there) = tokio::join!(Node::start(&authority), Node::start(&authority));
    let (alice, bob) = (here.user("alice").await, there.user("bob").await);
    let room = here.room(&alice, RoomVersion::V11).await;
    there.membership.join(&bob, &room, std::slice::from_ref(&here.name), None).await.unwrap();
    let waiting = async || {
        let row = here.db.query_one("SELECT COUNT(*) FROM outbox", crate::params![]).await.unwrap();
        row.get::<i64>(0).unwrap()
    };
    // Some wait already when the server is denied, and some come later.
    there.is_up.send_replace(false);
    let missed = numbered("missed", 20);
    for body in &missed[..10] {
        here.say(&room, &alice, body).await;
    }
    eventually("events wait", async || waiting().await >= 10).await;
    let deny = |names: &[&OwnedServerName]| {
        let deny = names.iter().map(ToString::to_string).collect();
        here.federation.parts.client.set_servers(ServerNames::new(&ServerPolicy { allow: Vec::new(), deny }));
    };
    deny(&[&there.name]);
    there.is_up.send_replace(true);
    eventually("nothing waits", async || waiting().await == 0).await;
    for body in &missed[10..] {
        here.say(&room, &alice, body).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(waiting().await, 0);
    assert!(there.heard(&room, &alice).await.is_empty());

    deny(&[]);
    here.say(&room, &alice, "welcome back").await;
    let mut all = missed;
    all.push("welcome back".to_owned());
    expect_heard(&there, &room, &alice, &all).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_third_server_hears_all_and_a_gap_is_closed() {
    let authority = TestAuthority::new();
    let (here, there, third) = tokio::join!(Node::start(&authority), Node::start(&authority), Node::start(&authority));
    let (alice, bob, carol) = (here.user("alice").await, there.user("bob").await, third.user("carol").await);
    let room = here.room(&alice, RoomVersion::V12).await;
    there.membership.join(&bob, &room, std::slice::from_ref(&here.name), None).await.unwrap();
    // Through a server that is not the creator's: the join has to be passed on.
    third.membership.join(&carol, &room, std::slice::from_ref(&there.name), None).await.unwrap();
    eventually("carol is known", || async { here.membership(&room, &carol).await.as_deref() == Some("join") }).await;
    third.is_up.send_replace(false);
    let missed = numbered("missed", 30);
    for body in &missed {
        here.say(&room, &alice, body).await;
    }
    expect_heard(&there, &room, &alice, &missed).await;
    third.is_up.send_replace(true);
    // Bob's message rests on what carol's server has not seen.
    there.say(&room, &bob, "after the gap").await;
    expect_heard(&third, &room, &bob, &["after the gap".to_owned()]).await;
    expect_heard(&third, &room, &alice, &missed).await;
    third.say(&room, &carol, "I see").await;
    expect_heard(&here, &room, &carol, &["I see".to_owned()]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_for_the_same_state_gets_the_same_answer_and_strangers_none() {
    let authority = TestAuthority::new();
    let (here, there) = tokio::join!(Node::start(&authority), Node::start(&authority));
    let (alice, bob) = (here.user("alice").await, there.user("bob").await);
    let room = here.room(&alice, RoomVersion::V12).await;
    there.membership.join(&bob, &room, std::slice::from_ref(&here.name), None).await.unwrap();
    here.say(&room, &alice, "hello").await;
    expect_heard(&there, &room, &alice, &["hello".to_owned()]).await;
    let sql = "SELECT e.event_id FROM events e JOIN rooms r ON r.room_nid = e.room_nid WHERE r.room_id = $1 \
               AND e.event_type = 'm.room.message'";
    let row = here.db.query_one(sql, crate::params![room.as_str()]).await.unwrap();
    let message = ruma::OwnedEventId::try_from(row.get::<String>(0).unwrap()).unwrap();

    let stranger = ServerName::parse("stranger.example").unwrap();
    let asks = (0..30).map(|number| {
        let origin = if number % 3 == 2 { &stranger } else { &there.name };
        here.federation.state_ids(origin, &room, &message)
    });
    let answers = futures_util::future::join_all(asks).await;
    // The other server knows the same state.
    let sorted = |ids: &[ruma::OwnedEventId]| ids.iter().cloned().collect::<std::collections::BTreeSet<_>>();
    let theirs = there.federation.state_ids(&here.name, &room, &message).await.unwrap();
    assert!(theirs.pdu_ids.len() > theirs.auth_chain_ids.len() && !theirs.auth_chain_ids.is_empty());
    for (number, answer) in answers.into_iter().enumerate() {
        if number % 3 == 2 {
            assert!(matches!(answer, Err(ServeError::NotInRoom)), "{number}");
            continue;
        }
        let answer = answer.unwrap();
        assert_eq!(sorted(&answer.pdu_ids), sorted(&theirs.pdu_ids));
        assert_eq!(sorted(&answer.auth_chain_ids), sorted(&theirs.auth_chain_ids));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_from_before_the_join_is_fetched_to_the_start() {
    let authority = TestAuthority::new();
    let (here, there) = tokio::join!(Node::start(&authority), Node::start(&authority));
    let (alice, bob) = (here.user("alice").await, there.user("bob").await);
    for version in [RoomVersion::V1, RoomVersion::V12] {
        let room = here.room(&alice, version).await;
        let bodies = numbered("before", 120);
        for body in &bodies {
            here.say(&room, &alice, body).await;
        }
        there.membership.join(&bob, &room, std::slice::from_ref(&here.name), None).await.unwrap();
        let mut rounds = 0;
        while there.federation.fetch_history(&room, 10).await.unwrap() {
            rounds += 1;
            assert!(rounds < 10, "history has no end");
        }
        let count = "SELECT COUNT(*), COUNT(e.state_nid), COUNT(DISTINCT e.position) FROM events e \
                     JOIN rooms r ON r.room_nid = e.room_nid WHERE r.room_id = $1 AND e.position IS NOT NULL \
                     AND e.standing = 0";
        let counts = async |node: &Node| {
            let row = node.db.query_one(count, crate::params![room.as_str()]).await.unwrap();
            (row.get::<i64>(0).unwrap(), row.get::<i64>(1).unwrap(), row.get::<i64>(2).unwrap())
        };
        assert_eq!(counts(&there).await, counts(&here).await);
        let order = "SELECT e.event_id FROM events e JOIN rooms r ON r.room_nid = e.room_nid \
                     WHERE r.room_id = $1 AND e.position IS NOT NULL ORDER BY e.position";
        let ids = async |node: &Node| {
            let rows = node.db.query(order, crate::params![room.as_str()]).await.unwrap();
            rows.iter().map(|row| row.get::<String>(0).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(ids(&there).await, ids(&here).await);
        assert!(there.rooms.gaps(&room).await.unwrap().is_empty());
    }
}
