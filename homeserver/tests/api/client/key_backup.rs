use serde_json::{Value, json};

use crate::harness::{Engine, Server, User};

on_both_engines!(a_backup_is_made_filled_read_and_deleted, nonsense_is_refused, old_versions_take_no_keys);

const VERSION: &str = "/_matrix/client/v3/room_keys/version";
const KEYS: &str = "/_matrix/client/v3/room_keys/keys";
const ALGORITHM: &str = "m.megolm_backup.v1.curve25519-aes-sha2";

fn backup(public_key: &str) -> Value {
    json!({ "algorithm": ALGORITHM, "auth_data": { "public_key": public_key, "signatures": {} } })
}

fn session(first_message_index: u64) -> Value {
    json!({
        "first_message_index": first_message_index,
        "forwarded_count": 0,
        "is_verified": true,
        "session_data": { "ephemeral": "YQ", "ciphertext": "Yg", "mac": "Yw", "from.the.future": [1] },
    })
}

async fn create(server: &Server, user: &User) -> String {
    let answer = server.post(VERSION).by(user).json(backup("YWJj")).await.ok();
    answer["version"].as_str().unwrap().to_owned()
}

async fn a_backup_is_made_filled_read_and_deleted(engine: Engine) {
    let server = Server::start(engine).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    server.get(VERSION).by(&alice).await.error(404, "M_NOT_FOUND");
    let version = create(&server, &alice).await;
    let with_version = |path: &str| format!("{KEYS}{path}?version={version}");
    let all = json!({ "rooms": { "!r:example.org": { "sessions": { "one": session(1), "two/2": session(2) } } } });
    let state = server.put(&with_version("")).by(&alice).json(all.clone()).await.ok();
    assert_eq!(state, json!({ "count": 2, "etag": "1" }));
    let room = json!({ "sessions": { "three": session(3) } });
    let state = server.put(&with_version("/!other:example.org")).by(&alice).json(room.clone()).await.ok();
    assert_eq!(state, json!({ "count": 3, "etag": "2" }));
    let one = with_version("/!r:example.org/one");
    let state = server.put(&one).by(&alice).json(session(5)).await.ok();
    assert_eq!(state, json!({ "count": 3, "etag": "2" }), "a worse key changes nothing");
    assert_eq!(server.get(&one).by(&alice).await.ok(), session(1));
    assert_eq!(server.get(&with_version("/!r:example.org/two%2F2")).by(&alice).await.ok(), session(2));
    assert_eq!(server.get(&with_version("/!other:example.org")).by(&alice).await.ok(), room);
    let mut both = all;
    both["rooms"]["!other:example.org"] = room;
    assert_eq!(server.get(&with_version("")).by(&alice).await.ok(), both);
    let info = server.get(VERSION).by(&alice).await.ok();
    let mut expected = backup("YWJj");
    expected["count"] = 3.into();
    expected["etag"] = "2".into();
    expected["version"] = version.clone().into();
    assert_eq!(info, expected);
    server.get(&with_version("")).by(&bob).await.error(404, "M_NOT_FOUND");

    let state = server.delete(&one).by(&alice).await.ok();
    assert_eq!(state, json!({ "count": 2, "etag": "3" }));
    server.get(&one).by(&alice).await.error(404, "M_NOT_FOUND");
    server.delete(&with_version("/!other:example.org")).by(&alice).await.ok();
    let state = server.delete(&with_version("")).by(&alice).await.ok();
    assert_eq!(state, json!({ "count": 0, "etag": "5" }));
    server.delete(&format!("{VERSION}/{version}")).by(&alice).await.ok();
    server.get(&format!("{VERSION}/{version}")).by(&alice).await.error(404, "M_NOT_FOUND");
    server.get(&with_version("")).by(&alice).await.error(404, "M_NOT_FOUND");
}

async fn old_versions_take_no_keys(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let (old, new) = (create(&server, &alice).await, create(&server, &alice).await);
    let rooms = json!({ "rooms": {} });
    let path = |version: &str| format!("{KEYS}?version={version}");
    let error = server.put(&path(&old)).by(&alice).json(rooms.clone()).await.error(403, "M_WRONG_ROOM_KEYS_VERSION");
    assert_eq!(error["current_version"], new.as_str());
    server.put(&path(&new)).by(&alice).json(rooms).await.ok();
    let changed =
        |algorithm: &str| json!({ "algorithm": algorithm, "auth_data": { "public_key": "eHl6", "signatures": {} } });
    let one = format!("{VERSION}/{old}");
    server.put(&one).by(&alice).json(changed(ALGORITHM)).await.ok();
    assert_eq!(server.get(&one).by(&alice).await.ok()["auth_data"]["public_key"], "eHl6");
    server.put(&one).by(&alice).json(changed("another")).await.error(400, "M_INVALID_PARAM");
    let mut other_version = changed(ALGORITHM);
    other_version["version"] = "77".into();
    server.put(&one).by(&alice).json(other_version).await.error(400, "M_INVALID_PARAM");
}

async fn nonsense_is_refused(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let version = create(&server, &alice).await;
    let path = format!("{KEYS}/!r:example.org/s?version={version}");
    for bad in [
        json!({}),
        json!([]),
        json!({ "first_message_index": -1, "forwarded_count": 0, "is_verified": true, "session_data": {} }),
    ] {
        server.put(&path).by(&alice).json(bad).await.error(400, "M_BAD_JSON");
    }
    server.post(VERSION).by(&alice).json(json!({ "algorithm": 5 })).await.error(400, "M_BAD_JSON");
    server.post(VERSION).by(&alice).json(json!({ "algorithm": "a", "auth_data": 5 })).await.error(400, "M_BAD_JSON");
    for version in ["0", "x", "-1", "99999999999999999999"] {
        server.get(&format!("{KEYS}?version={version}")).by(&alice).await.error(404, "M_NOT_FOUND");
    }
    server.get(&format!("{KEYS}/!r:example.org/%00?version={version}")).by(&alice).await.error(400, "M_INVALID_PARAM");
    server.get(VERSION).await.error(401, "M_MISSING_TOKEN");
}
