//! A shard for one test, on a database of its own, and a client that speaks as the edge does.

use std::{future::IntoFuture, pin::Pin, sync::Arc};

use axum::{Router, body::Body};
use gatehouse_homeserver::{app::App, config::Config};
use gatehouse_shared::{
    clock::TurnedClock,
    config::Secret,
    contract::{self, ClusterSecret, Signed, Verdict},
};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

/// The name of the server that tests talk to.
pub(crate) const SERVER_NAME: &str = "example.org";
/// What every test user's password is.
pub(crate) const PASSWORD: &str = "correct horse battery staple";
/// When the clock of every test begins: 2026-01-01, in milliseconds.
pub(crate) const BEGINNING: u64 = 1_767_225_600_000;
/// The secret that the tests' edge and shards share.
pub(crate) const SECRET: &str = "a secret of a cluster that only tests have";

/// Runs each of the named functions, `async fn(Engine)`, as a test on SQLite and as one on PostgreSQL.
macro_rules! on_both_engines {
    ($($name:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test] async fn $name() { super::$name($crate::harness::Engine::Sqlite).await })+
        }
        mod postgres {
            $(#[tokio::test] async fn $name() { super::$name($crate::harness::Engine::Postgres).await })+
        }
    };
}

/// What a test runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    Sqlite,
    Postgres,
}

/// A shard, and the folder and database that outlive it.
pub(crate) struct Server {
    app: App,
    config: Config,
    pub(crate) clock: Arc<TurnedClock>,
    folder: Arc<tempfile::TempDir>,
}

impl Server {
    /// A shard that takes registrations of everybody.
    pub(crate) async fn start(engine: Engine) -> Self {
        Self::start_with(engine, |_| {}).await
    }

    /// A shard whose configuration `edit` changes first.
    pub(crate) async fn start_with(engine: Engine, edit: impl FnOnce(&mut Config)) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let text = format!(
            "server_name = {SERVER_NAME:?}\ndata_folder = {:?}\ncluster_secret = {SECRET:?}\n\
             [registration]\nmode = \"open\"\n",
            folder.path().join("data")
        );
        let mut config: Config = gatehouse_shared::config::parse_checked(&text, |_, _| {}).unwrap();
        config.database.connections = 3;
        if engine == Engine::Postgres {
            config.database.postgres = Some(Secret::new(gatehouse_test_support::postgres::shared().create_database()));
        }
        edit(&mut config);
        Self::open(config, Arc::new(TurnedClock::at_ms(BEGINNING)), folder).await
    }

    async fn open(config: Config, clock: Arc<TurnedClock>, folder: Arc<tempfile::TempDir>) -> Self {
        let app = App::start(&config, clock.clone()).await.unwrap();
        Self { app, config, clock, folder }
    }

    /// Ends the shard and starts another one on the same database.
    pub(crate) async fn restart(self) -> Self {
        let Self { app, config, clock, folder } = self;
        app.stop().await;
        Self::open(config, clock, folder).await
    }

    /// A second shard on the same database, which must be one that several shards can share.
    pub(crate) async fn another_shard(&self) -> Self {
        Self::open(self.config.clone(), self.clock.clone(), self.folder.clone()).await
    }

    pub(crate) fn app(&self) -> &App {
        &self.app
    }

    pub(crate) fn get(&self, target: &str) -> Call {
        self.call(Method::GET, target)
    }

    pub(crate) fn post(&self, target: &str) -> Call {
        self.call(Method::POST, target)
    }

    pub(crate) fn put(&self, target: &str) -> Call {
        self.call(Method::PUT, target)
    }

    pub(crate) fn delete(&self, target: &str) -> Call {
        self.call(Method::DELETE, target)
    }

    pub(crate) fn call(&self, method: Method, target: &str) -> Call {
        let request = Request::builder().method(method).uri(target).body(Body::empty()).unwrap();
        Call { router: self.app.router(), request, client: "192.0.2.7".to_owned(), is_signed: true }
    }

    /// Registers `name` and logs it in.
    pub(crate) async fn register(&self, name: &str) -> User {
        let body = json!({ "username": name, "password": PASSWORD, "auth": { "type": "m.login.dummy" } });
        User::of(&self.post("/_matrix/client/v3/register").json(body).await.ok())
    }

    /// Logs `name` in on a new device.
    pub(crate) async fn log_in(&self, name: &str) -> User {
        User::of(&self.post("/_matrix/client/v3/login").json(password_login(name, PASSWORD)).await.ok())
    }
}

/// The body of a login by password.
pub(crate) fn password_login(name: &str, password: &str) -> Value {
    json!({ "type": "m.login.password", "identifier": { "type": "m.id.user", "user": name }, "password": password })
}

/// A user who is logged in.
#[derive(Debug, Clone)]
pub(crate) struct User {
    pub(crate) user_id: String,
    pub(crate) device_id: String,
    pub(crate) access_token: String,
}

impl User {
    pub(crate) fn of(body: &Value) -> Self {
        let text = |key: &str| body[key].as_str().unwrap_or_else(|| panic!("no {key} in {body}")).to_owned();
        Self { user_id: text("user_id"), device_id: text("device_id"), access_token: text("access_token") }
    }
}

/// A request on its way; `.await` sends it.
pub(crate) struct Call {
    router: Router,
    request: Request<Body>,
    client: String,
    is_signed: bool,
}

impl Call {
    /// Sends the user's access token along.
    pub(crate) fn by(self, user: &User) -> Self {
        self.with_token(&user.access_token)
    }

    pub(crate) fn with_token(self, token: &str) -> Self {
        self.header(header::AUTHORIZATION.as_str(), &format!("Bearer {token}"))
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        let name: http::HeaderName = name.parse().unwrap();
        self.request.headers_mut().append(name, HeaderValue::from_str(value).unwrap());
        self
    }

    pub(crate) fn json(self, body: Value) -> Self {
        self.header(header::CONTENT_TYPE.as_str(), "application/json").body(body.to_string())
    }

    pub(crate) fn body(mut self, body: impl Into<Body>) -> Self {
        *self.request.body_mut() = body.into();
        self
    }

    /// Comes from another address.
    pub(crate) fn from(mut self, client: &str) -> Self {
        self.client = client.to_owned();
        self
    }

    /// Goes past the edge.
    pub(crate) fn unsigned(mut self) -> Self {
        self.is_signed = false;
        self
    }

    fn sign(&mut self) {
        let target = self.request.uri().path_and_query().unwrap().as_str();
        let contract = contract_headers(&self.client, self.request.method().as_str(), target);
        for (name, value) in contract {
            self.request.headers_mut().insert(name, HeaderValue::from_str(&value).unwrap());
        }
    }
}

/// The headers with which the edge vouches for a request.
pub(crate) fn contract_headers(client: &str, method: &str, target: &str) -> [(&'static str, String); 5] {
    let secret = ClusterSecret::new(&Secret::new(SECRET)).unwrap();
    let request_id = "test";
    let signed = Signed { client, scheme: "https", host: SERVER_NAME, request_id, traceparent: "", method, target };
    let mac = String::from_utf8(signed.sign(&secret).as_bytes().to_vec()).unwrap();
    [
        (contract::CLIENT, client.to_owned()),
        (contract::SCHEME, "https".to_owned()),
        (contract::HOST, SERVER_NAME.to_owned()),
        (contract::REQUEST_ID, request_id.to_owned()),
        (contract::MAC, mac),
    ]
}

impl IntoFuture for Call {
    type Output = Reply;
    type IntoFuture = Pin<Box<dyn Future<Output = Reply> + Send>>;

    fn into_future(mut self) -> Self::IntoFuture {
        Box::pin(async move {
            if self.is_signed {
                self.sign();
            }
            let what = format!("{} {}", self.request.method(), self.request.uri());
            let response = self.router.oneshot(self.request).await.unwrap();
            let (parts, body) = response.into_parts();
            let bytes = body.collect().await.unwrap().to_bytes().to_vec();
            let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
            Reply { what, status: parts.status, headers: parts.headers, bytes, body }
        })
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    what: String,
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Vec<u8>,
    /// The body as JSON; null when it is none.
    pub(crate) body: Value,
}

impl Reply {
    /// The body of a success.
    #[track_caller]
    pub(crate) fn ok(self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}: {}", self.what, self.body);
        self.body
    }

    /// The body of an error of the specification.
    #[track_caller]
    pub(crate) fn error(self, status: u16, errcode: &str) -> Value {
        assert_eq!(
            (self.status.as_u16(), self.body["errcode"].as_str()),
            (status, Some(errcode)),
            "{}: {}",
            self.what,
            self.body
        );
        assert!(self.body["error"].is_string(), "{}: {}", self.what, self.body);
        self.body
    }

    /// What the shard tells the edge about the sender.
    pub(crate) fn verdict(&self) -> Option<Verdict> {
        Verdict::parse(self.headers.get(contract::VERDICT)?.to_str().ok()?)
    }

    /// The server whose signature the shard says it found right.
    pub(crate) fn origin(&self) -> Option<&str> {
        self.headers.get(contract::ORIGIN)?.to_str().ok()
    }

    /// The session of an answer that asks for user-interactive authentication.
    #[track_caller]
    pub(crate) fn uia_session(&self) -> String {
        assert_eq!(self.status, StatusCode::UNAUTHORIZED, "{}: {}", self.what, self.body);
        self.body["session"].as_str().unwrap_or_else(|| panic!("{}: {}", self.what, self.body)).to_owned()
    }
}
