//! A small Matrix client in JSON, for tests that look at what a server says rather than at types made from it.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use hmac::{Hmac, KeyInit, Mac};
use reqwest::{Certificate, Method, StatusCode};
use serde_json::{Value, json};
use sha1::Sha1;

use crate::chance;

/// An answer of a server.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: StatusCode,
    /// The header `Retry-After`, in seconds.
    pub retry_after: Option<u64>,
    /// The body; null when it was no JSON.
    pub body: Value,
}

impl Answer {
    async fn read(response: reqwest::Response) -> Result<Self, reqwest::Error> {
        let status = response.status();
        let retry_after = response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
        let body = serde_json::from_slice(&response.bytes().await?).unwrap_or_default();
        Ok(Self { status, retry_after, body })
    }

    /// The body of an answer that must be a success.
    ///
    /// # Panics
    /// When it is none.
    pub fn expect(self, what: &str) -> Value {
        assert!(self.status.is_success(), "{what}: {} {}", self.status, self.body);
        self.body
    }
}

/// A homeserver as its clients see it.
#[derive(Debug, Clone)]
pub struct Server {
    http: reqwest::Client,
    authorities: Vec<Certificate>,
    base_url: String,
}

/// A user of a homeserver with one device.
#[derive(Debug, Clone)]
pub struct User {
    server: Server,
    /// The whole user id.
    pub id: String,
    access_token: String,
}

const PASSWORD: &str = "correct horse battery staple";

impl Server {
    /// A server whose certificate is by the authority in the file `ca`.
    ///
    /// # Panics
    /// When the file is none of certificates.
    pub fn new(base_url: &str, ca: &Path) -> Self {
        // The first provider installed is the one used; a second call changes nothing.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let pem = std::fs::read(ca).expect("the CA's file is readable");
        let authorities = Certificate::from_pem_bundle(&pem).expect("the CA's file holds certificates");
        Self { http: new_http(&authorities), authorities, base_url: base_url.to_owned() }
    }

    /// The same server over connections of one's own, since every user has a client of its own.
    fn apart(&self) -> Self {
        Self { http: new_http(&self.authorities), ..self.clone() }
    }

    /// Makes a user by Synapse's registration with a shared secret.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn register(&self, name: &str, secret: &str) -> User {
        const PATH: &str = "/_synapse/admin/v1/register";
        let name = format!("{name}-{:08x}", chance::random() >> 32);
        let nonce = self.call(Method::GET, None, PATH, None).await.expect("a nonce")["nonce"].clone();
        let nonce = nonce.as_str().expect("the nonce is a string");
        let mut mac = Hmac::<Sha1>::new_from_slice(secret.as_bytes()).expect("a key may have any length");
        mac.update(format!("{nonce}\0{name}\0{PASSWORD}\0notadmin").as_bytes());
        let mac: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let body = json!({"nonce": nonce, "username": name, "password": PASSWORD, "mac": mac, "admin": false});
        let user = self.call(Method::POST, None, PATH, Some(&body)).await.expect("the registration");
        User { server: self.apart(), id: text(&user, "user_id"), access_token: text(&user, "access_token") }
    }

    /// Logs a user in by password; the error is what the server answers.
    ///
    /// # Errors
    /// When the server refuses.
    ///
    /// # Panics
    /// When there is no answer at all.
    pub async fn log_in(&self, name: &str, password: &str) -> Result<User, Answer> {
        let identifier = json!({"type": "m.id.user", "user": name});
        let body = json!({"type": "m.login.password", "identifier": identifier, "password": password});
        let answer = self.call(Method::POST, None, "/_matrix/client/v3/login", Some(&body)).await;
        if !answer.status.is_success() {
            return Err(answer);
        }
        let user = answer.body;
        Ok(User { server: self.apart(), id: text(&user, "user_id"), access_token: text(&user, "access_token") })
    }

    async fn call(&self, method: Method, token: Option<&str>, path: &str, body: Option<&Value>) -> Answer {
        let mut answer = self.try_call(method.clone(), token, path, body).await;
        if answer.is_err() && method.is_idempotent() {
            // The server may have closed a kept connection meanwhile, as all clients must expect.
            answer = self.try_call(method.clone(), token, path, body).await;
        }
        answer.unwrap_or_else(|error| panic!("{method} {path} got no answer: {error:?}"))
    }

    async fn try_call(
        &self,
        method: Method,
        token: Option<&str>,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, reqwest::Error> {
        let mut request = self.http.request(method, format!("{}{path}", self.base_url));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        Answer::read(request.send().await?).await
    }
}

impl User {
    /// Makes a request as this user; the path begins with `/_matrix`.
    ///
    /// # Panics
    /// When there is no answer at all.
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        self.server.call(method, Some(&self.access_token), path, body).await
    }

    /// As [`User::call`]; told to come again later it does so, as clients do.
    ///
    /// # Panics
    /// When there is no answer at all, or the server says "later" and not when.
    pub async fn call_patiently(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        loop {
            let answer = self.call(method.clone(), path, body).await;
            if answer.status != StatusCode::TOO_MANY_REQUESTS {
                return answer;
            }
            assert_eq!(answer.body["errcode"], "M_LIMIT_EXCEEDED", "{method} {path}: {}", answer.body);
            assert!(answer.retry_after.is_some(), "{method} {path} has no Retry-After: {}", answer.body);
            let wait = answer.body["retry_after_ms"].as_u64();
            let wait = wait.unwrap_or_else(|| panic!("{method} {path} has no retry_after_ms: {}", answer.body));
            tokio::time::sleep(std::time::Duration::from_millis(wait)).await;
        }
    }

    /// As [`User::call`] with `GET`, as part of a trace: `traceparent` is the header of the W3C.
    ///
    /// # Panics
    /// When there is no answer at all.
    pub async fn get_in_trace(&self, path: &str, traceparent: &str) -> Answer {
        let request = self.server.http.get(format!("{}{path}", self.server.base_url));
        let request = request.bearer_auth(&self.access_token).header("traceparent", traceparent);
        Answer::read(request.send().await.expect("an answer")).await.expect("a whole answer")
    }

    /// Uploads bytes as media; the answer has their `content_uri`.
    ///
    /// # Panics
    /// When there is no answer at all.
    pub async fn upload(&self, bytes: Vec<u8>) -> Answer {
        let url = format!("{}/_matrix/media/v3/upload", self.server.base_url);
        let request = self.server.http.post(url).bearer_auth(&self.access_token).body(bytes);
        Answer::read(request.send().await.expect("the upload is answered")).await.expect("a whole answer")
    }

    /// The bytes of media.
    ///
    /// # Panics
    /// When the server does not give them.
    pub async fn download(&self, content_uri: &str) -> Vec<u8> {
        let media = content_uri.strip_prefix("mxc://").expect("a content URI");
        let url = format!("{}/_matrix/client/v1/media/download/{media}", self.server.base_url);
        let response = self.server.http.get(url).bearer_auth(&self.access_token).send().await;
        let response = response.and_then(reqwest::Response::error_for_status).expect("the media");
        response.bytes().await.expect("all of the media").to_vec()
    }

    /// Makes a room and returns its id.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn create_room(&self, content: &Value) -> String {
        let path = "/_matrix/client/v3/createRoom";
        text(&self.call(Method::POST, path, Some(content)).await.expect("a new room"), "room_id")
    }

    /// Joins a room of the user's own server.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn join(&self, room_id: &str) {
        let path = format!("/_matrix/client/v3/rooms/{}/join", encode(room_id));
        self.call(Method::POST, &path, Some(&json!({}))).await.expect("the join");
    }

    /// Joins a room that this user's server may not know, through the server `via`.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn join_via(&self, room_id: &str, via: &str) {
        let (room_id, via) = (encode(room_id), encode(via));
        // `server_name` is what `via` was called before version 1.12 of the specification.
        let path = format!("/_matrix/client/v3/join/{room_id}?via={via}&server_name={via}");
        self.call(Method::POST, &path, Some(&json!({}))).await.expect("the join");
    }

    /// Invites a user to a room.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn invite(&self, room_id: &str, user_id: &str) {
        let path = format!("/_matrix/client/v3/rooms/{}/invite", encode(room_id));
        self.call(Method::POST, &path, Some(&json!({"user_id": user_id}))).await.expect("the invite");
    }

    /// Leaves a room.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn leave(&self, room_id: &str) {
        let path = format!("/_matrix/client/v3/rooms/{}/leave", encode(room_id));
        self.call(Method::POST, &path, Some(&json!({}))).await.expect("the leave");
    }

    /// Sends a message and returns its event id.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn send(&self, room_id: &str, body: &str) -> String {
        let transaction = format!("{:016x}", chance::random());
        let path = message_path(room_id, &transaction);
        text(&self.call(Method::PUT, &path, Some(&message(body))).await.expect("the message"), "event_id")
    }
}

/// The path that sends a message with this transaction id.
pub fn message_path(room_id: &str, transaction: &str) -> String {
    format!("/_matrix/client/v3/rooms/{}/send/m.room.message/{transaction}", encode(room_id))
}

/// The content of a text message.
pub fn message(body: &str) -> Value {
    json!({"msgtype": "m.text", "body": body})
}

/// An event as a follower saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The event id.
    pub event_id: String,
    /// Who sent it.
    pub sender: String,
    /// The body of a message; empty for events of other types.
    pub body: String,
}

/// Follows everything that a user's `/sync` says about rooms, as a client does, and remembers it in order.
#[derive(Debug)]
pub struct Follower {
    user: User,
    since: Option<String>,
    filter: String,
    rooms: BTreeMap<String, Vec<Seen>>,
    seen: HashSet<String>,
    memberships: BTreeMap<(String, String), String>,
    invites: HashSet<String>,
}

impl Follower {
    /// A follower who has read nothing yet. Its timelines are long; a gap is filled from `/messages` all the same.
    pub fn new(user: &User) -> Self {
        let filter = encode(&json!({"room": {"timeline": {"limit": 100}}, "presence": {"types": []}}).to_string());
        Self {
            user: user.clone(),
            since: None,
            filter,
            rooms: BTreeMap::new(),
            seen: HashSet::new(),
            memberships: BTreeMap::new(),
            invites: HashSet::new(),
        }
    }

    /// Whom this follows.
    pub fn user(&self) -> &User {
        &self.user
    }

    /// All events of the room's timeline so far, in the order in which they came.
    pub fn timeline(&self, room_id: &str) -> &[Seen] {
        self.rooms.get(room_id).map_or(&[], Vec::as_slice)
    }

    /// The bodies of the messages that this user has sent to the room, in order.
    pub fn messages_by(&self, room_id: &str, sender: &str) -> Vec<&str> {
        let by_sender = |event: &&Seen| event.sender == sender && !event.body.is_empty();
        self.timeline(room_id).iter().filter(by_sender).map(|event| event.body.as_str()).collect()
    }

    /// The membership of a user in a room, as far as is known; empty when it is not.
    pub fn membership(&self, room_id: &str, user_id: &str) -> &str {
        self.memberships.get(&(room_id.to_owned(), user_id.to_owned())).map_or("", String::as_str)
    }

    /// Whether this user is invited to the room and has not answered.
    pub fn is_invited(&self, room_id: &str) -> bool {
        self.invites.contains(room_id)
    }

    /// Makes `/sync` requests until the condition holds.
    ///
    /// # Panics
    /// When that takes longer than three minutes, a request fails, or an event comes twice.
    pub async fn until(&mut self, what: &str, condition: impl Fn(&Self) -> bool) {
        let steps = async {
            while !condition(self) {
                self.step(10_000).await;
            }
        };
        let patience = std::time::Duration::from_secs(180);
        let in_time = tokio::time::timeout(patience, steps).await.is_ok();
        let sizes: Vec<_> = self.rooms.iter().map(|(room_id, events)| (room_id, events.len())).collect();
        assert!(in_time, "{} waited in vain for {what}; it has {sizes:?}", self.user.id);
    }

    /// Makes one `/sync` request that waits for at most `timeout` milliseconds.
    ///
    /// # Panics
    /// When it fails or an event comes twice.
    pub async fn step(&mut self, timeout: u32) {
        let since = self.since.as_ref().map_or_else(String::new, |since| format!("&since={}", encode(since)));
        let path = format!("/_matrix/client/v3/sync?timeout={timeout}&filter={}{since}", self.filter);
        let answer = self.user.call_patiently(Method::GET, &path, None).await.expect("a sync");
        for (room_id, room) in entries(&answer["rooms"]["join"]).chain(entries(&answer["rooms"]["leave"])) {
            self.invites.remove(room_id);
            self.read_room(room_id, room).await;
        }
        for (room_id, _) in entries(&answer["rooms"]["invite"]) {
            self.invites.insert(room_id.clone());
        }
        self.since = Some(text(&answer, "next_batch"));
    }

    async fn read_room(&mut self, room_id: &str, room: &Value) {
        let timeline = &room["timeline"];
        let known = self.rooms.contains_key(room_id);
        let mut events = Vec::new();
        if known && timeline["limited"] == true {
            events = self.fill_gap(room_id, &text(timeline, "prev_batch")).await;
        }
        events.extend(list(&timeline["events"]).iter().cloned());
        for event in list(&room["state"]["events"]).iter().chain(&events) {
            if event["type"] == "m.room.member" {
                let key = (room_id.to_owned(), text(event, "state_key"));
                self.memberships.insert(key, text(&event["content"], "membership"));
            }
        }
        for event in &events {
            let event_id = text(event, "event_id");
            let body = event["content"]["body"].as_str().unwrap_or_default().to_owned();
            assert!(self.seen.insert(event_id.clone()), "{} got {event_id} ({body}) twice", self.user.id);
            let seen = Seen { event_id, sender: text(event, "sender"), body };
            self.rooms.entry(room_id.to_owned()).or_default().push(seen);
        }
    }

    /// The events between what was seen of the room and `prev_batch`, oldest first.
    async fn fill_gap(&self, room_id: &str, prev_batch: &str) -> Vec<Value> {
        let mut newest_first = Vec::new();
        let mut from = prev_batch.to_owned();
        loop {
            let path =
                format!("/_matrix/client/v3/rooms/{}/messages?dir=b&limit=100&from={}", encode(room_id), encode(&from));
            let page = self.user.call_patiently(Method::GET, &path, None).await.expect("a page of messages");
            for event in list(&page["chunk"]) {
                if self.seen.contains(event["event_id"].as_str().unwrap_or_default()) {
                    newest_first.reverse();
                    return newest_first;
                }
                newest_first.push(event.clone());
            }
            match page["end"].as_str() {
                Some(end) if !list(&page["chunk"]).is_empty() => from = end.to_owned(),
                _ => panic!("the history of {room_id} ends before what was seen of it"),
            }
        }
    }
}

fn new_http(authorities: &[Certificate]) -> reqwest::Client {
    let builder = reqwest::Client::builder().tls_certs_only(authorities.iter().cloned()).no_proxy();
    builder.build().expect("the client's settings are right")
}

/// Escapes what has a meaning of its own in paths and queries.
pub fn encode(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    let escape = |byte: u8| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(escape).collect()
}

fn text(object: &Value, key: &str) -> String {
    object[key].as_str().unwrap_or_else(|| panic!("no string `{key}` in {object}")).to_owned()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}
