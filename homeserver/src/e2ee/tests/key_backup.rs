use serde_json::{json, value::to_raw_value};

use super::{World, alice};
use crate::{
    e2ee::{BackupError, BackupState, BackupWrite, Sessions, SessionsOfRooms},
    storage::testing::{on_both_engines, sqlite_in},
};

const ALGORITHM: &str = "m.megolm_backup.v1.curve25519-aes-sha2";

fn backup(algorithm: &str, public_key: &str) -> BackupWrite {
    let auth_data = to_raw_value(&json!({ "public_key": public_key, "signatures": {} })).unwrap();
    BackupWrite { algorithm: algorithm.to_owned(), auth_data, version: None }
}

fn session(
    room: &str,
    session: &str,
    is_verified: bool,
    first_message_index: i64,
    forwarded_count: i64,
) -> SessionsOfRooms {
    let data = json!({
        "first_message_index": first_message_index,
        "forwarded_count": forwarded_count,
        "is_verified": is_verified,
        "session_data": { "ciphertext": format!("{is_verified} {first_message_index} {forwarded_count}") },
    });
    let sessions = [(session.to_owned(), to_raw_value(&data).unwrap())].into_iter().collect();
    SessionsOfRooms::from([(room.to_owned(), sessions)])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_better_session_replaces_and_a_worse_one_is_passed_over() {
    on_both_engines(|test| async move {
        let world = World::new(test).await;
        let nid = world.nid(alice()).await;
        let version = world.e2ee.create_backup(nid, &backup(ALGORITHM, "a")).await.unwrap().to_string();
        let one = Sessions::One { room_id: "!r:example.org", session_id: "s" };
        // (is_verified, first_message_index, forwarded_count), and whether it replaces what was there.
        let steps = [
            ((false, 5, 5), true),
            ((false, 5, 5), false),
            ((false, 5, 6), false),
            ((false, 5, 4), true),
            ((false, 6, 0), false),
            ((false, 4, 9), true),
            ((true, 9, 9), true),
            ((false, 0, 0), false),
            ((true, 8, 10), true),
        ];
        let mut etag = 0;
        for (step, ((is_verified, index, forwarded), replaces)) in steps.into_iter().enumerate() {
            let rooms = session("!r:example.org", "s", is_verified, index, forwarded);
            let state = world.e2ee.store_sessions(nid, &version, rooms.clone()).await.unwrap();
            etag += i64::from(replaces);
            assert_eq!(state, BackupState { etag, count: 1 }, "step {step}");
            let stored = world.e2ee.list_sessions(nid, &version, one).await.unwrap();
            let is_new = stored["!r:example.org"]["s"].get().contains(&format!("{is_verified} {index} {forwarded}"));
            assert_eq!(is_new, replaces || step == 1, "step {step}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_go_into_the_current_version_only_and_leave_with_theirs() {
    on_both_engines(|test| async move {
        let world = World::new(test).await;
        let nid = world.nid(alice()).await;
        let e2ee = &world.e2ee;
        assert!(matches!(e2ee.backup_info(nid, None).await, Err(BackupError::NotFound)));
        let rooms = || session("!r:example.org", "s", true, 0, 0);
        assert!(matches!(e2ee.store_sessions(nid, "1", rooms()).await, Err(BackupError::NotFound)));
        let first = e2ee.create_backup(nid, &backup(ALGORITHM, "a")).await.unwrap().to_string();
        e2ee.store_sessions(nid, &first, rooms()).await.unwrap();
        let second = e2ee.create_backup(nid, &backup(ALGORITHM, "b")).await.unwrap().to_string();
        let error = e2ee.store_sessions(nid, &first, rooms()).await.unwrap_err();
        assert!(matches!(error, BackupError::WrongVersion { current } if current.to_string() == second));
        assert_eq!(e2ee.list_sessions(nid, &first, Sessions::All).await.unwrap().len(), 1, "old ones can be read");
        e2ee.store_sessions(nid, &second, rooms()).await.unwrap();
        e2ee.store_sessions(nid, &second, session("!other:example.org", "t", true, 0, 0)).await.unwrap();
        let state = e2ee.delete_sessions(nid, &second, Sessions::OfRoom("!r:example.org")).await.unwrap();
        assert_eq!(state, BackupState { etag: 3, count: 1 });
        let gone = Sessions::One { room_id: "!r:example.org", session_id: "s" };
        assert!(matches!(e2ee.list_sessions(nid, &second, gone).await, Err(BackupError::NotFound)));
        assert!(e2ee.list_sessions(nid, &second, Sessions::OfRoom("!r:example.org")).await.unwrap().is_empty());
        e2ee.delete_backup(nid, &second).await.unwrap();
        assert_eq!(e2ee.backup_info(nid, None).await.unwrap().version.to_string(), first);
        assert!(matches!(e2ee.list_sessions(nid, &second, Sessions::All).await, Err(BackupError::NotFound)));
        let third = e2ee.create_backup(nid, &backup(ALGORITHM, "c")).await.unwrap();
        assert_eq!(third, 3, "a deleted version's number is not given again");
    })
    .await;
}

#[tokio::test]
async fn only_the_auth_data_of_a_version_changes() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::new(sqlite_in(folder.path()).await).await;
    let nid = world.nid(alice()).await;
    let version = world.e2ee.create_backup(nid, &backup(ALGORITHM, "a")).await.unwrap().to_string();
    world.e2ee.update_backup(nid, &version, &backup(ALGORITHM, "b")).await.unwrap();
    let info = world.e2ee.backup_info(nid, Some(&version)).await.unwrap();
    assert!(info.auth_data.contains("\"b\""));
    let error = world.e2ee.update_backup(nid, &version, &backup("another", "c")).await.unwrap_err();
    assert!(matches!(error, BackupError::OtherAlgorithm));
    let other = BackupWrite { version: Some("77".to_owned()), ..backup(ALGORITHM, "c") };
    let error = world.e2ee.update_backup(nid, &version, &other).await.unwrap_err();
    assert!(matches!(error, BackupError::OtherVersion));
    for nonsense in ["0", "-1", "x", "99999999999999999999", ""] {
        let error = world.e2ee.update_backup(nid, nonsense, &backup(ALGORITHM, "c")).await.unwrap_err();
        assert!(matches!(error, BackupError::NotFound));
    }
}
