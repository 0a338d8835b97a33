//! Nonsense for every operation that is routed: whatever comes, the answer is one of the specification's, and never that
//! something of ours broke.

use std::{fs, path::Path, time::Duration};

use http::Method;
use serde_json::{Value, json};

use super::client::directory::room;
use crate::harness::{Engine, Reply, SERVER_NAME, Server, User};

on_both_engines!(nothing_that_comes_in_breaks_the_server);

/// What is put into a place of a path: null bytes, bytes that are no UTF-8, other folders, line breaks, statements.
const PATH_TRICKS: &[&str] = &[
    "%00",
    "%ff",
    "%ed%a0%80",
    ".",
    "%2E%2E",
    "..%2F..%2Fetc%2Fpasswd",
    "..%5C..%5Cboot.ini",
    "%0D%0Ax:%20y",
    "%27%3B%20DROP%20TABLE%20users%3B--",
    "%F0%9F%92%A9%E2%80%AE",
    "%40x%00y:example.org",
    "!x%00y:example.org",
    "%23x%00y:example.org",
    "$x%00y",
    "%40:example.org",
    "%40x:",
    "!x:example.org:99999999",
    "1%2A2",
    "-1",
    "99999999999999999999999",
];

/// What is put into an argument of a query. None is a time to wait for.
const QUERY_TRICKS: &[&str] = &[
    "",
    "%00",
    "%ff",
    "-1",
    "1.5",
    "1e9",
    "99999999999999999999999",
    "null",
    "%7B%22a%22:",
    "%7B%7D",
    "s1_2_3",
    "0%001",
    "%F0%9F%92%A9",
];

/// Bodies that are no JSON.
const NO_JSON: &[&[u8]] = &[
    b"{",
    b"nul",
    b"[1,",
    b"{} x",
    b"{\"a\":1,}",
    b"{'a':1}",
    b"{\"a\":\"\xff\xfe\"}",
    b"\xff\xfe{\x00}\x00",
    b"{\"a\":\"\\ud800\"",
    b"\x00",
];

/// Bodies that are JSON, and no object.
const NO_OBJECT: &[&[u8]] = &[b"null", b"1", b"\"x\"", b"[]", b"true", b"-0.0", b"[[[[{}]]]]"];

/// Operations that answer the same whatever the body says: nobody's address is kept.
const UNREAD: &[&str] = &["/account/3pid/delete", "/account/3pid/unbind"];

/// What a server claims to be when it has no signature.
const FORGED: &[&str] = &[
    "X-Matrix",
    "X-Matrix origin=,key=,sig=",
    "X-Matrix origin=example.org,destination=example.org,key=\"ed25519:1\",sig=\"AAAA\"",
    "X-Matrix origin=\"\\\"\",key=\"\t\",sig=\"\"",
    "Bearer ",
    "Basic eA==",
];

async fn nothing_that_comes_in_breaks_the_server(engine: Engine) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/matrix-spec");
    if !folder.is_dir() {
        eprintln!("skipped: the documents of the specification are not at {}", folder.display());
        return;
    }
    let mut world = World::open(engine).await;
    let mut mistakes = Vec::new();
    let mut sent = 0;
    for operation in operations(&folder) {
        world.renew().await;
        if world.send(&operation, &operation.plain(&world)).await.is_ok_and(|reply| is_unrouted(&reply)) {
            continue;
        }
        for input in operation.inputs(&world) {
            sent += 1;
            if let Err(mistake) = world.send(&operation, &input).await.and_then(|reply| judge(&input, &reply)) {
                mistakes.push(format!("{} {} with {}: {mistake}", operation.method, input.target, input.what));
            }
        }
        assert!(mistakes.len() < 100, "\n{}", mistakes.join("\n"));
    }
    assert!(sent > 1_000, "only {sent} requests were made");
    assert!(mistakes.is_empty(), "\n{}", mistakes.join("\n"));
}

fn is_unrouted(reply: &Reply) -> bool {
    reply.body["errcode"] == "M_UNRECOGNIZED"
}

fn judge(input: &Input, reply: &Reply) -> Result<(), String> {
    let status = reply.status.as_u16();
    let is_waiting = status == 504 && reply.body["errcode"] == "M_NOT_YET_UPLOADED";
    if status >= 500 && !is_waiting {
        return Err(format!("{status} {}", reply.body));
    }
    if input.must_fail && !(400..500).contains(&status) {
        return Err(format!("{status}, although it is nonsense"));
    }
    let is_interactive = status == 401 && reply.body["flows"].is_array();
    let says_why = reply.body["errcode"].is_string() && reply.body["error"].is_string();
    if (400..500).contains(&status) && !says_why && !is_interactive {
        return Err(format!("{status} without an errcode: {}", reply.body));
    }
    Ok(())
}

/// A server with a user who has a room of its own.
struct World {
    server: Server,
    alice: User,
    users: usize,
    room_id: String,
    event_id: String,
}

impl World {
    async fn open(engine: Engine) -> Self {
        // Nonsense may be about users of other servers, and none of those is to be asked.
        let server = Server::start_with(engine, |config| config.federation.enabled = false).await;
        let alice = server.register("alice").await;
        Self { server, alice, users: 1, room_id: String::new(), event_id: String::new() }
    }

    /// The operation before may have ended the session, the room or the user.
    async fn renew(&mut self) {
        let whoami = self.server.get("/_matrix/client/v3/account/whoami").by(&self.alice).await;
        if whoami.status != 200 {
            self.users += 1;
            self.alice = self.server.register(&format!("alice{}", self.users)).await;
        }
        self.room_id = room(&self.server, &self.alice, json!({})).await;
        let send = format!("/_matrix/client/v3/rooms/{}/send/m.room.message/1", self.room_id);
        let sent = self.server.put(&send).by(&self.alice).json(json!({ "msgtype": "m.text", "body": "x" })).await.ok();
        self.event_id = sent["event_id"].as_str().unwrap().to_owned();
    }

    async fn send(&self, operation: &Operation, input: &Input) -> Result<Reply, String> {
        // Each in a time of its own: the id of a room is the hash of its beginning.
        self.server.clock.advance(Duration::from_millis(1));
        let mut call = self.server.call(operation.method.clone(), &input.target);
        call = match &input.authorization {
            Some(authorization) => call.header("authorization", authorization),
            None => call.by(&self.alice),
        };
        if let Some(body) = &input.body {
            call = call.header("content-type", "application/json").body(body.clone());
        }
        // In a task of its own, as a server would: a panic there is a connection that breaks off.
        let answered = tokio::time::timeout(Duration::from_secs(60), tokio::spawn(async move { call.await })).await;
        answered.map_err(|_| "no answer".to_owned())?.map_err(|error| format!("no answer: {error}"))
    }
}

/// One request.
struct Input {
    what: String,
    target: String,
    body: Option<Vec<u8>>,
    authorization: Option<String>,
    /// Whether a success would be wrong.
    must_fail: bool,
}

/// An operation of the specification.
struct Operation {
    method: Method,
    path: String,
    queries: Vec<String>,
    /// A body as it should be, where there is one, and whether there must be one.
    body: Option<(Value, bool)>,
    is_federation: bool,
}

impl Operation {
    fn plain(&self, world: &World) -> Input {
        let body = self.body.as_ref().map(|(example, _)| example.to_string().into_bytes());
        let target = self.target(world, None);
        Input { what: "nothing wrong".to_owned(), target, body, authorization: None, must_fail: false }
    }

    fn inputs(&self, world: &World) -> Vec<Input> {
        let mut inputs = Vec::new();
        let places = self.path.matches('{').count();
        for place in 0..places {
            let long = "a".repeat(3000);
            for trick in PATH_TRICKS.iter().copied().chain([long.as_str()]) {
                let target = self.target(world, Some((place, trick)));
                inputs.push(Input { what: "a trick in the path".to_owned(), target, ..self.plain(world) });
            }
        }
        for query in &self.queries {
            let long = "a".repeat(3000);
            for trick in QUERY_TRICKS.iter().copied().chain([long.as_str()]) {
                let target = format!("{}?{query}={trick}", self.target(world, None));
                inputs.push(Input { what: "a trick in the query".to_owned(), target, ..self.plain(world) });
            }
        }
        for query in ["?", "?&&=&", "?%ff=%ff", "?a=1&a=2&a%00=", "?access_token=%00"] {
            let target = self.target(world, None) + query;
            inputs.push(Input { what: "a strange query".to_owned(), target, ..self.plain(world) });
        }
        for authorization in FORGED {
            let authorization = Some((*authorization).to_owned());
            inputs.push(Input { what: "a forged authorization".to_owned(), authorization, ..self.plain(world) });
        }
        if let Some((example, is_required)) = self.body.as_ref().filter(|_| !self.is_federation) {
            inputs.extend(self.bodies(world, example, *is_required));
        }
        inputs
    }

    fn bodies(&self, world: &World, example: &Value, is_required: bool) -> Vec<Input> {
        let input = |what: String, body: Vec<u8>, must_fail| Input {
            what,
            target: self.target(world, None),
            body: Some(body),
            authorization: None,
            must_fail,
        };
        let quoted = |body: &[u8]| String::from_utf8_lossy(body).chars().take(100).collect::<String>();
        let deep = [b"{\"a\":".as_slice(), &[b'['; 50_000], &[b']'; 50_000], b"}"].concat();
        let deep_objects = ["{\"a\":".repeat(20_000), "1".to_owned(), "}".repeat(20_000)].concat();
        let mut inputs: Vec<Input> = NO_JSON
            .iter()
            .map(|body| input(format!("the body {}", quoted(body)), body.to_vec(), is_required))
            .chain(NO_OBJECT.iter().map(|body| input(format!("the body {}", quoted(body)), body.to_vec(), is_required)))
            .collect();
        inputs.push(input("a deep body".to_owned(), deep, false));
        inputs.push(input("a deep body of objects".to_owned(), deep_objects.into_bytes(), false));
        inputs.push(input("a huge body".to_owned(), vec![b' '; 12 * 1024 * 1024], is_required));
        inputs.push(input("no body".to_owned(), Vec::new(), false));
        inputs.push(input("an empty body".to_owned(), b"{}".to_vec(), false));
        for body in spoiled(example) {
            inputs.push(input(format!("the body {}", quoted(body.as_bytes())), body.into_bytes(), false));
        }
        inputs
    }

    /// The path with something plausible in each place, and `trick` in one of them.
    fn target(&self, world: &World, trick: Option<(usize, &str)>) -> String {
        let mut place = 0;
        let segments = self.path.split('/').map(|segment| {
            if !segment.starts_with('{') {
                return segment.to_owned();
            }
            place += 1;
            match trick {
                Some((tricked, trick)) if tricked + 1 == place => trick.to_owned(),
                _ => plausible(world, segment),
            }
        });
        segments.collect::<Vec<_>>().join("/")
    }
}

fn plausible(world: &World, place: &str) -> String {
    match place {
        "{userId}" => world.alice.user_id.clone(),
        "{roomId}" | "{roomIdOrAlias}" => world.room_id.clone(),
        "{deviceId}" => world.alice.device_id.clone(),
        "{eventId}" => world.event_id.clone(),
        "{roomAlias}" => "%23tea:example.org".to_owned(),
        "{eventType}" => "m.room.topic".to_owned(),
        "{serverName}" => SERVER_NAME.to_owned(),
        "{kind}" => "override".to_owned(),
        "{receiptType}" => "m.read".to_owned(),
        _ => "x".to_owned(),
    }
}

/// The example with one value at a time taken out or replaced by nonsense.
fn spoiled(example: &Value) -> Vec<String> {
    let mut places = Vec::new();
    list_places(example, String::new(), &mut places);
    places.truncate(10);
    let nested = (0..200).fold(json!(1), |inner, _| json!([inner]));
    let nonsense = [
        Value::Null,
        json!(true),
        json!(-1),
        json!(1.5),
        json!(9_007_199_254_740_993_u64),
        json!(u64::MAX),
        json!(""),
        json!("\0"),
        json!("\u{202e}💩\u{feff}\r\n"),
        json!("x".repeat(70_000)),
        json!([]),
        json!([null, [], {}, "\0"]),
        json!({}),
        json!({ "\0": "\0", "a.b": 1 }),
        nested,
    ];
    let mut bodies = Vec::new();
    for place in &places {
        for value in &nonsense {
            let mut body = example.clone();
            if let Some(spoiled) = body.pointer_mut(place) {
                *spoiled = value.clone();
                bodies.push(body.to_string());
            }
        }
        let mut body = example.clone();
        let (parent, key) = place.rsplit_once('/').unwrap_or(("", place));
        if let Some(Value::Object(parent)) = body.pointer_mut(parent) {
            parent.remove(&key.replace("~1", "/").replace("~0", "~"));
            bodies.push(body.to_string());
        }
    }
    // A key twice, and a number that no machine can hold.
    bodies.push(r#"{"a":1,"a":2,"type":"x","type":"y"}"#.to_owned());
    bodies.push(r#"{"a":1e400,"timeout":1e400,"limit":123456789012345678901234567890}"#.to_owned());
    bodies
}

fn list_places(value: &Value, at: String, places: &mut Vec<String>) {
    let inner: Vec<(String, &Value)> = match value {
        Value::Object(object) => {
            object.iter().map(|(key, value)| (key.replace('~', "~0").replace('/', "~1"), value)).collect()
        }
        Value::Array(list) => list.iter().take(1).map(|value| ("0".to_owned(), value)).collect(),
        _ => Vec::new(),
    };
    // Outer ones first: they are the ones that a handler reads.
    places.extend(inner.iter().map(|(key, _)| format!("{at}/{key}")));
    for (key, value) in inner {
        list_places(value, format!("{at}/{key}"), places);
    }
}

fn operations(folder: &Path) -> Vec<Operation> {
    let mut found = Vec::new();
    for (document, is_federation) in [("client-server.json", false), ("server-server.json", true)] {
        let text = fs::read_to_string(folder.join(document)).unwrap().replace(":matrix.org", ":example.org");
        let document: Value = serde_json::from_str(&text).unwrap();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                if let "get" | "put" | "post" | "delete" = method.as_str() {
                    let method = method.to_uppercase().parse().unwrap();
                    found.push(read_operation(method, path, operation, is_federation));
                }
            }
        }
    }
    found
}

fn read_operation(method: Method, path: &str, operation: &Value, is_federation: bool) -> Operation {
    let parameters = operation["parameters"].as_array().map(Vec::as_slice).unwrap_or_default();
    let queries = parameters
        .iter()
        .filter(|parameter| parameter["in"] == "query")
        .map(|parameter| parameter["name"].as_str().unwrap().to_owned())
        .collect();
    let request = &operation["requestBody"];
    let content = &request["content"]["application/json"];
    let schema = &content["schema"];
    let example = [&content["example"], &schema["example"]].into_iter().find(|example| example.is_object()).cloned();
    let body = schema.is_object().then(|| {
        let named = schema["properties"].as_object().into_iter().flatten().map(|(name, _)| (name.clone(), json!("x")));
        let is_read = !UNREAD.iter().any(|end| path.ends_with(end));
        let is_required = request["required"] == true && schema["required"].is_array() && is_read;
        (example.unwrap_or_else(|| Value::Object(named.collect())), is_required)
    });
    // Some paths end with a space there.
    Operation { method, path: path.trim().to_owned(), queries, body, is_federation }
}
