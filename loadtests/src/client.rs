//! Speaks the client-server API to one homeserver, with as little work per request as can be.

use std::cell::Cell;
use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::PathBuf;

use hmac::{Hmac, KeyInit, Mac};
use reqwest::{Certificate, Method, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sha1::Sha1;
use thiserror::Error;

/// Which server to speak to and how.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) base: String,
    pub(crate) ca: Option<PathBuf>,
    pub(crate) shared_secret: Option<String>,
    pub(crate) http2: bool,
}

/// Why the client could not be made.
#[derive(Debug, Error)]
pub(crate) enum SetupError {
    #[error("the CA file cannot be read: {0}")]
    CaFile(std::io::Error),
    #[error("the HTTP client cannot be made: {0}")]
    Http(reqwest::Error),
}

/// Why a call failed.
#[derive(Debug, Error)]
pub(crate) enum CallError {
    #[error("no answer: {0:?}")]
    Transport(reqwest::Error),
    #[error("{status} {errcode}")]
    Status { status: StatusCode, errcode: String },
    #[error("an answer without {0}")]
    Answer(&'static str),
    #[error("not JSON: {0}")]
    Json(serde_json::Error),
}

/// One homeserver.
#[derive(Debug)]
pub(crate) struct Server {
    http: reqwest::Client,
    base: String,
    shared_secret: Option<String>,
    /// Part of every name made in this run, so that runs on one server do not meet.
    run: String,
    next: Cell<u64>,
}

/// A user with one device.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Session {
    pub(crate) user_id: String,
    pub(crate) access_token: String,
}

#[derive(Deserialize)]
struct Nonce {
    nonce: String,
}

#[derive(Deserialize)]
struct RoomId {
    room_id: String,
}

#[derive(Deserialize)]
struct EventId {
    event_id: String,
}

#[derive(Deserialize)]
struct NextBatch {
    next_batch: String,
}

#[derive(Deserialize)]
struct Challenge {
    session: Option<String>,
}

/// The password of every user that a run makes.
pub(crate) const PASSWORD: &str = "correct horse battery staple";

impl Server {
    pub(crate) fn new(target: Target) -> Result<Self, SetupError> {
        // The first provider installed is the one used; a second call changes nothing.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut authorities = Vec::new();
        if let Some(file) = &target.ca {
            let pem = fs::read(file).map_err(SetupError::CaFile)?;
            authorities = Certificate::from_pem_bundle(&pem).map_err(SetupError::Http)?;
        }
        let builder = reqwest::Client::builder();
        let http = if target.http2 { builder } else { builder.http1_only() }
            .tcp_nodelay(true)
            .tls_certs_only(authorities)
            .no_proxy()
            .build()
            .map_err(SetupError::Http)?;
        // Every `RandomState` is seeded by the system.
        let run = RandomState::new().build_hasher().finish();
        Ok(Self {
            http,
            base: target.base.trim_end_matches('/').to_owned(),
            shared_secret: target.shared_secret,
            run: format!("{run:016x}"),
            next: Cell::new(0),
        })
    }

    /// A string that no other call in this run or another returns; fit for localparts and transaction ids.
    pub(crate) fn unique(&self, prefix: &str) -> String {
        let number = self.next.get();
        self.next.set(number + 1);
        format!("{prefix}-{}-{number}", self.run)
    }

    pub(crate) async fn register(&self) -> Result<Session, CallError> {
        let username = self.unique("load");
        match &self.shared_secret {
            Some(secret) => self.register_by_secret(&username, secret).await,
            None => self.register_openly(&username).await,
        }
    }

    async fn register_by_secret(&self, username: &str, secret: &str) -> Result<Session, CallError> {
        const PATH: &str = "/_synapse/admin/v1/register";
        let Nonce { nonce } = self.get(None, PATH).await?;
        // HMAC takes keys of any length.
        let mut mac =
            Hmac::<Sha1>::new_from_slice(secret.as_bytes()).map_err(|_| CallError::Answer("a usable secret"))?;
        for part in [nonce.as_str(), "\0", username, "\0", PASSWORD, "\0", "notadmin"] {
            mac.update(part.as_bytes());
        }
        let digest: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let body = json!({"nonce": nonce, "username": username, "password": PASSWORD, "mac": digest, "admin": false});
        self.post(None, PATH, &body).await
    }

    async fn register_openly(&self, username: &str) -> Result<Session, CallError> {
        const PATH: &str = "/_matrix/client/v3/register";
        let mut body = json!({"username": username, "password": PASSWORD});
        let (status, answer) = self.exchange(Method::POST, None, PATH, Some(&body)).await?;
        if status != StatusCode::UNAUTHORIZED {
            return parse(status, &answer);
        }
        let challenge: Challenge = serde_json::from_slice(&answer).map_err(CallError::Json)?;
        let session = challenge.session.ok_or(CallError::Answer("session"))?;
        body["auth"] = json!({"type": "m.login.dummy", "session": session});
        self.post(None, PATH, &body).await
    }

    pub(crate) async fn login(&self, user_id: &str) -> Result<Session, CallError> {
        let body = json!({
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": user_id},
            "password": PASSWORD,
        });
        self.post(None, "/_matrix/client/v3/login", &body).await
    }

    pub(crate) async fn create_room(&self, session: &Session, content: &Value) -> Result<String, CallError> {
        let room: RoomId = self.post(Some(session), "/_matrix/client/v3/createRoom", content).await?;
        Ok(room.room_id)
    }

    pub(crate) async fn join(&self, session: &Session, room_id: &str) -> Result<(), CallError> {
        let path = format!("/_matrix/client/v3/rooms/{}/join", encode(room_id));
        let _: RoomId = self.post(Some(session), &path, &json!({})).await?;
        Ok(())
    }

    /// Sends a plain message and returns its event id.
    pub(crate) async fn send(&self, session: &Session, room_id: &str) -> Result<String, CallError> {
        let transaction = self.unique("t");
        let path = format!("/_matrix/client/v3/rooms/{}/send/m.room.message/{transaction}", encode(room_id));
        let content =
            json!({"msgtype": "m.text", "body": format!("This is message {transaction}, of a usual length.")});
        let event: EventId = self.call(Method::PUT, Some(session), &path, Some(&content)).await?;
        Ok(event.event_id)
    }

    /// One `/sync` with the given query, which begins after the question mark. Returns the whole answer.
    pub(crate) async fn sync(&self, session: &Session, query: &str) -> Result<Vec<u8>, CallError> {
        let path = format!("/_matrix/client/v3/sync?set_presence=offline&{query}");
        let (status, answer) = self.exchange(Method::GET, Some(session), &path, None).await?;
        if status.is_success() { Ok(answer) } else { Err(refusal(status, &answer)) }
    }

    /// The position after one initial `/sync` that returns next to nothing.
    pub(crate) async fn position(&self, session: &Session) -> Result<String, CallError> {
        let filter = encode(r#"{"room":{"timeline":{"limit":1}}}"#);
        next_batch(&self.sync(session, &format!("timeout=0&filter={filter}")).await?)
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, session: Option<&Session>, path: &str) -> Result<T, CallError> {
        self.call(Method::GET, session, path, None).await
    }

    /// A GET whose answer is read and dropped; returns its length in bytes.
    pub(crate) async fn fetch(&self, session: Option<&Session>, path: &str) -> Result<usize, CallError> {
        let (status, answer) = self.exchange(Method::GET, session, path, None).await?;
        if status.is_success() { Ok(answer.len()) } else { Err(refusal(status, &answer)) }
    }

    /// Uploads bytes and returns the server name and media id of their `mxc:` URI, joined by a slash.
    pub(crate) async fn upload(&self, session: &Session, content: bytes::Bytes) -> Result<String, CallError> {
        let response = self
            .http
            .post(format!("{}/_matrix/media/v3/upload?filename=load.bin", self.base))
            .bearer_auth(&session.access_token)
            .header("content-type", "application/octet-stream")
            .body(content)
            .send()
            .await
            .map_err(CallError::Transport)?;
        let status = response.status();
        let answer = response.bytes().await.map_err(CallError::Transport)?;
        let answer: Value = parse(status, &answer)?;
        let uri = answer.get("content_uri").and_then(Value::as_str).ok_or(CallError::Answer("content_uri"))?;
        uri.strip_prefix("mxc://").map(str::to_owned).ok_or(CallError::Answer("an mxc: URI"))
    }

    async fn post<T: DeserializeOwned>(
        &self,
        session: Option<&Session>,
        path: &str,
        body: &Value,
    ) -> Result<T, CallError> {
        self.call(Method::POST, session, path, Some(body)).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        session: Option<&Session>,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T, CallError> {
        let (status, answer) = self.exchange(method, session, path, body).await?;
        parse(status, &answer)
    }

    async fn exchange(
        &self,
        method: Method,
        session: Option<&Session>,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Vec<u8>), CallError> {
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if let Some(session) = session {
            request = request.bearer_auth(&session.access_token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(CallError::Transport)?;
        let status = response.status();
        let answer = response.bytes().await.map_err(CallError::Transport)?;
        Ok((status, answer.into()))
    }
}

/// The position that a `/sync` answer ends at.
pub(crate) fn next_batch(answer: &[u8]) -> Result<String, CallError> {
    let answer: NextBatch = serde_json::from_slice(answer).map_err(CallError::Json)?;
    Ok(answer.next_batch)
}

/// Escapes what has a meaning of its own in paths and queries.
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len() + 8);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

fn parse<T: DeserializeOwned>(status: StatusCode, answer: &[u8]) -> Result<T, CallError> {
    if status.is_success() {
        serde_json::from_slice(answer).map_err(CallError::Json)
    } else {
        Err(refusal(status, answer))
    }
}

fn refusal(status: StatusCode, answer: &[u8]) -> CallError {
    let errcode = serde_json::from_slice::<Value>(answer)
        .ok()
        .and_then(|body| Some(format!("{} {}", body.get("errcode")?.as_str()?, body.get("error")?.as_str()?)))
        .unwrap_or_else(|| String::from("without errcode"));
    CallError::Status { status, errcode }
}
