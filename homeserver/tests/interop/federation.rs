//! A real Synapse and Gatehouse federate over the loopback with TLS.

use std::path::PathBuf;

use gatehouse_test_support::client::{Follower, Server, User, encode};
use gatehouse_test_support::edge::{self, Deployment, Options};
use gatehouse_test_support::keeper::folder;
use gatehouse_test_support::synapse::{self, Synapse};
use gatehouse_test_support::tls::TestCa;
use reqwest::Method;
use serde_json::{Value, json};

const ROOM_VERSIONS: [&str; 3] = ["10", "11", "12"];

/// Messages each way in each of two rooms: in all 200 each way for each room version.
const MESSAGES: usize = 100;

/// Messages sent while the other server is stopped.
const MISSED: usize = 50;

/// One side of the test.
struct Side {
    name: String,
    server: Server,
    secret: &'static str,
}

/// A user of each server, and two rooms that both are in.
struct Pair {
    version: &'static str,
    ours: Follower,
    theirs: Follower,
    our_room: String,
    their_room: String,
}

#[tokio::test]
async fn a_synapse_and_gatehouse_share_rooms_of_versions_10_11_and_12() {
    let certificates = folder("gatehouse-ca-");
    let authority = TestCa::make(certificates.path());
    let options = Options { trusted_ca: Some(authority.ca.clone()), ..Options::default() };
    let mut gatehouse = Deployment::start(&options);
    let mut synapse = Synapse::start(&authority, &[gatehouse.ca()]);
    let ours = side(gatehouse.server_name(), gatehouse.base_url(), gatehouse.ca(), edge::REGISTRATION_SECRET);
    let theirs = side(synapse.server_name(), synapse.base_url(), authority.ca, synapse::REGISTRATION_SECRET);

    let mut pairs = Vec::new();
    for version in ROOM_VERSIONS {
        pairs.push(meet(version, &ours, &theirs).await);
    }
    let talks = pairs.iter_mut().map(|pair| async {
        talk(pair).await;
        invite_and_leave(pair, &ours, &theirs).await;
    });
    futures_util::future::join_all(talks).await;

    synapse.stop();
    for pair in &pairs {
        say(pair.ours.user(), &pair.our_room, "missed", MISSED).await;
    }
    synapse.resume();
    for pair in &mut pairs {
        // Whoever hears from a server again need not wait to try it again.
        say(pair.theirs.user(), &pair.our_room, "back", 1).await;
        hear(&mut pair.theirs, &pair.our_room, pair.ours.user(), "missed", MISSED).await;
    }

    gatehouse.stop();
    for pair in &pairs {
        say(pair.theirs.user(), &pair.their_room, "missed", MISSED).await;
    }
    gatehouse.resume();
    for pair in &mut pairs {
        say(pair.ours.user(), &pair.their_room, "back", 1).await;
        hear(&mut pair.ours, &pair.their_room, pair.theirs.user(), "missed", MISSED).await;
    }
}

fn side(name: String, base_url: String, ca: PathBuf, secret: &'static str) -> Side {
    Side { name, server: Server::new(&base_url, &ca), secret }
}

/// Makes two users and two rooms of a version; each user joins the other's room over federation.
async fn meet(version: &'static str, ours: &Side, theirs: &Side) -> Pair {
    let our_user = ours.server.register("ours", ours.secret).await;
    let their_user = theirs.server.register("theirs", theirs.secret).await;
    let content = json!({"preset": "public_chat", "room_version": version});
    let our_room = our_user.create_room(&content).await;
    let their_room = their_user.create_room(&content).await;
    their_user.join_via(&our_room, &ours.name).await;
    our_user.join_via(&their_room, &theirs.name).await;
    let (mut ours, mut theirs) = (Follower::new(&our_user), Follower::new(&their_user));
    for room in [&our_room, &their_room] {
        expect_membership(&mut ours, room, &their_user, "join").await;
        expect_membership(&mut theirs, room, &our_user, "join").await;
    }
    Pair { version, ours, theirs, our_room, their_room }
}

/// Both talk in both rooms at once, and hear all that the other says, once and in order.
async fn talk(pair: &mut Pair) {
    let (ours, theirs) = (pair.ours.user().clone(), pair.theirs.user().clone());
    let rooms = [pair.our_room.as_str(), pair.their_room.as_str()];
    let hearing = async |follower: &mut Follower, speaker: &User| {
        for room in rooms {
            hear(follower, room, speaker, pair.version, MESSAGES).await;
        }
    };
    tokio::join!(
        say(&ours, rooms[0], pair.version, MESSAGES),
        say(&ours, rooms[1], pair.version, MESSAGES),
        say(&theirs, rooms[0], pair.version, MESSAGES),
        say(&theirs, rooms[1], pair.version, MESSAGES),
        hearing(&mut pair.ours, &theirs),
        hearing(&mut pair.theirs, &ours),
    );
}

/// Each invites the other into a private room, the other joins and leaves, and both see all of it.
async fn invite_and_leave(pair: &mut Pair, ours: &Side, theirs: &Side) {
    let content = json!({"preset": "private_chat", "room_version": pair.version});
    visit(&mut pair.ours, &ours.name, &mut pair.theirs, &content).await;
    visit(&mut pair.theirs, &theirs.name, &mut pair.ours, &content).await;
    take_back(pair.ours.user(), &mut pair.theirs, &content).await;
    take_back(pair.theirs.user(), &mut pair.ours, &content).await;
}

/// An invite that is taken back disappears, although the guest's server is not in the room.
async fn take_back(host: &User, guest: &mut Follower, content: &Value) {
    let guest_user = guest.user().clone();
    let room = host.create_room(content).await;
    host.invite(&room, &guest_user.id).await;
    guest.until("the invite", |guest| guest.is_invited(&room)).await;
    let path = format!("/_matrix/client/v3/rooms/{}/kick", encode(&room));
    host.call(Method::POST, &path, Some(&json!({"user_id": guest_user.id}))).await.expect("the kick");
    guest.until("the end of the invite", |guest| !guest.is_invited(&room)).await;
}

async fn visit(host: &mut Follower, host_name: &str, guest: &mut Follower, content: &Value) {
    let (host_user, guest_user) = (host.user().clone(), guest.user().clone());
    let room = host_user.create_room(content).await;
    host_user.invite(&room, &guest_user.id).await;
    guest.until("the invite", |guest| guest.is_invited(&room)).await;
    guest_user.join_via(&room, host_name).await;
    expect_membership(host, &room, &guest_user, "join").await;
    guest.until("the room", |guest| guest.membership(&room, &guest_user.id) == "join").await;
    guest_user.leave(&room).await;
    expect_membership(host, &room, &guest_user, "leave").await;
}

async fn expect_membership(follower: &mut Follower, room: &str, user: &User, membership: &str) {
    let what = format!("{} to be known as {membership}", user.id);
    follower.until(&what, |follower| follower.membership(room, &user.id) == membership).await;
}

/// Sends numbered messages, each when the one before is acknowledged.
async fn say(user: &User, room: &str, prefix: &str, count: usize) {
    for text in texts(prefix, count) {
        user.send(room, &text).await;
    }
}

/// Waits for numbered messages, and checks that no other ones of this kind came, none twice, and all in order.
async fn hear(follower: &mut Follower, room: &str, speaker: &User, prefix: &str, count: usize) {
    let expected = texts(prefix, count);
    let heard = |follower: &Follower| -> Vec<String> {
        let messages = follower.messages_by(room, &speaker.id);
        messages.into_iter().filter(|body| body.starts_with(prefix)).map(str::to_owned).collect()
    };
    let what = format!("{count} messages `{prefix}` of {}", speaker.id);
    follower.until(&what, |follower| heard(follower).len() >= count).await;
    assert_eq!(heard(follower), expected);
}

fn texts(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix} {number}")).collect()
}
