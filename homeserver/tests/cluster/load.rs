//! Clients that send and follow at once while something below them goes away, and what they must have seen in the end.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join, join_all};
use gatehouse_test_support::client::{Follower, Seen, Server, User, encode, message, message_path};
use gatehouse_test_support::edge::{Deployment, REGISTRATION_SECRET};
use gatehouse_test_support::postgres::Postgres;
use reqwest::Method;
use serde_json::json;
use tokio::sync::Notify;

/// How much is sent by whom to where, and what happens meanwhile.
pub(crate) struct Load {
    pub(crate) clients: usize,
    pub(crate) rooms: usize,
    /// Members of each room; client `n` is in the rooms `n`, `n - 1` and so on, going round.
    pub(crate) members: usize,
    pub(crate) messages: usize,
    pub(crate) blows: Vec<Blow>,
}

/// What happens once so many messages are acknowledged.
pub(crate) struct Blow {
    pub(crate) after: usize,
    pub(crate) what: What,
}

pub(crate) enum What {
    /// The shard of this number is killed; the edge starts it again.
    KillShard(u16),
    /// The database ends in the midst of everything, and stays away for as long.
    CrashDatabase(Arc<Postgres>, Duration),
    /// The database hangs for as long.
    FreezeDatabase(Arc<Postgres>, Duration),
}

impl Blow {
    pub(crate) fn kill(after: usize, shard: u16) -> Self {
        Self { after, what: What::KillShard(shard) }
    }
}

/// A room and its members, by their places in the list of clients.
struct Room {
    id: String,
    members: Vec<usize>,
    /// The event id and body of each acknowledged message.
    acknowledged: RefCell<BTreeSet<(String, String)>>,
}

/// What was acknowledged, and what everybody saw.
pub(crate) struct Outcome {
    rooms: Vec<Room>,
    followers: Vec<Follower>,
}

/// What the clients share while they send.
struct Progress {
    acknowledged: Cell<usize>,
    changed: Notify,
}

impl Load {
    pub(crate) async fn run(&self, deployment: &Deployment) -> Outcome {
        let server = Server::new(&deployment.base_url(), &deployment.ca());
        let names: Vec<String> = (0..self.clients).map(|number| format!("client{number}")).collect();
        let users = join_all(names.iter().map(|name| server.register(name, REGISTRATION_SECRET))).await;
        let rooms = join_all((0..self.rooms).map(|number| self.make_room(number, &users))).await;
        let progress = Progress { acknowledged: Cell::new(0), changed: Notify::new() };
        let sending = join_all((0..self.clients).map(|client| self.send(client, &users, &rooms, &progress)));
        let following = join_all((0..self.clients).map(|client| self.follow(client, &users, &rooms, &progress)));
        let (_, (followers, ())) = join(sending, join(following, self.strike(deployment, &progress))).await;
        Outcome { rooms, followers }
    }

    async fn make_room(&self, number: usize, users: &[User]) -> Room {
        let members: Vec<usize> = (0..self.members).map(|offset| (number + offset) % self.clients).collect();
        let id = users[members[0]].create_room(&json!({"preset": "public_chat"})).await;
        for member in &members[1..] {
            users[*member].join(&id).await;
        }
        Room { id, members, acknowledged: RefCell::default() }
    }

    /// Sends this client's share of the messages, one after the other, to its rooms in turns.
    async fn send(&self, client: usize, users: &[User], rooms: &[Room], progress: &Progress) {
        let own: Vec<&Room> = rooms.iter().filter(|room| room.members.contains(&client)).collect();
        for number in (0..self.messages).filter(|number| number % self.clients == client) {
            let room = own[number / self.clients % own.len()];
            let body = format!("message {number} of client {client}");
            let event_id = send_until_acknowledged(&users[client], &room.id, &body).await;
            room.acknowledged.borrow_mut().insert((event_id, body));
            progress.acknowledged.set(progress.acknowledged.get() + 1);
            progress.changed.notify_waiters();
        }
    }

    /// Follows everything until all is acknowledged and this client has seen all that it may.
    async fn follow(&self, client: usize, users: &[User], rooms: &[Room], progress: &Progress) -> Follower {
        let mut follower = Follower::new(&users[client]);
        let own: Vec<&Room> = rooms.iter().filter(|room| room.members.contains(&client)).collect();
        let complete = |follower: &Follower| {
            let seen = |room: &&Room| messages(follower.timeline(&room.id)).count() >= room.acknowledged.borrow().len();
            progress.acknowledged.get() == self.messages && own.iter().all(seen)
        };
        follower.until("all acknowledged messages", complete).await;
        follower
    }

    async fn strike(&self, deployment: &Deployment, progress: &Progress) {
        for blow in &self.blows {
            while progress.acknowledged.get() < blow.after {
                progress.changed.notified().await;
            }
            match &blow.what {
                What::KillShard(shard) => kill_shard(deployment, *shard).await,
                What::CrashDatabase(postgres, away) => {
                    on_a_thread(postgres, |postgres| postgres.crash()).await;
                    tokio::time::sleep(*away).await;
                    on_a_thread(postgres, |postgres| postgres.resume()).await;
                }
                What::FreezeDatabase(postgres, away) => {
                    let frozen = on_a_thread(postgres, |postgres| postgres.freeze()).await;
                    tokio::time::sleep(*away).await;
                    drop(frozen);
                }
            }
        }
    }
}

async fn kill_shard(deployment: &Deployment, shard: u16) {
    // A shard that was killed before is being started again by the edge.
    while deployment.shard_pid(shard).is_none() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    deployment.kill_shard(shard).await;
}

/// Does something to the database while the clients go on.
async fn on_a_thread<T: Send + 'static>(
    postgres: &Arc<Postgres>,
    act: impl FnOnce(&Postgres) -> T + Send + 'static,
) -> T {
    let postgres = postgres.clone();
    tokio::task::spawn_blocking(move || act(&postgres)).await.expect("the server does as it is told")
}

/// Sends a message as a client does: told to come again later it does so, with the same transaction id. Nothing else
/// may go wrong, since the edge repeats what a killed shard did not answer.
async fn send_until_acknowledged(user: &User, room_id: &str, body: &str) -> String {
    let path = message_path(room_id, &encode(body));
    let answer = user.call_patiently(Method::PUT, &path, Some(&message(body))).await.expect("a message");
    answer["event_id"].as_str().expect("an event id").to_owned()
}

impl Outcome {
    /// Compares what each member saw with what the server has stored and with what it acknowledged.
    pub(crate) async fn check_order_and_completeness(&self) {
        for room in &self.rooms {
            let reader = self.followers[room.members[0]].user();
            let stored = stored_messages(reader, &room.id).await;
            let as_set: BTreeSet<(String, String)> = stored.iter().cloned().collect();
            assert_eq!(as_set.len(), stored.len(), "a message is stored twice in {}", room.id);
            assert_eq!(as_set, *room.acknowledged.borrow(), "stored and acknowledged differ in {}", room.id);
            for member in &room.members {
                let follower = &self.followers[*member];
                let seen: Vec<(String, String)> = messages(follower.timeline(&room.id)).collect();
                assert!(seen == stored, "{} saw {} otherwise than it is", follower.user().id, room.id);
            }
        }
    }
}

/// All messages of the room, oldest first, as the server has them.
async fn stored_messages(user: &User, room_id: &str) -> Vec<(String, String)> {
    let mut stored = Vec::new();
    let mut from = String::new();
    loop {
        let path = format!("/_matrix/client/v3/rooms/{}/messages?dir=b&limit=100{from}", encode(room_id));
        let page = user.call(Method::GET, &path, None).await.expect("a page of messages");
        let chunk = page["chunk"].as_array().expect("a chunk");
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let of_messages = chunk.iter().filter(|event| event["type"] == "m.room.message");
        stored.extend(of_messages.map(|event| (text(&event["event_id"]), text(&event["content"]["body"]))));
        match page["end"].as_str() {
            Some(end) if !chunk.is_empty() => from = format!("&from={}", encode(end)),
            _ => break,
        }
    }
    stored.reverse();
    stored
}

fn messages(timeline: &[Seen]) -> impl Iterator<Item = (String, String)> {
    timeline.iter().filter(|seen| !seen.body.is_empty()).map(|seen| (seen.event_id.clone(), seen.body.clone()))
}
