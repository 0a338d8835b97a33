use ruma::UserId;
use serde_json::json;

use super::{Signer, World, alice, bob, carol, raw, upload_identity};
use crate::{
    e2ee::{Asker, DeviceListOfUser, OwnDevice, RemoteDeviceUpdate},
    storage::{
        device_lists,
        testing::{on_both_engines, sqlite_in},
    },
    stream::{Change, Positions, Write},
};

/// Who changed and who left for `user_id` since `from`.
async fn changes(world: &World, user_id: &UserId, from: &Positions) -> (Vec<String>, Vec<String>) {
    let nid = world.nid(user_id).await;
    let to = world.now().to_string();
    let (changed, left) = world.e2ee.key_changes(nid, &from.to_string(), &to).await.unwrap();
    let sorted = |users: Vec<ruma::OwnedUserId>| {
        let mut users: Vec<String> = users.into_iter().map(|user| user.localpart().to_owned()).collect();
        users.sort_unstable();
        users
    };
    (sorted(changed), sorted(left))
}

fn none() -> (Vec<String>, Vec<String>) {
    (Vec::new(), Vec::new())
}

fn changed(users: &[&str]) -> (Vec<String>, Vec<String>) {
    (users.iter().map(|user| (*user).to_owned()).collect(), Vec::new())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shares_a_room_hears_of_new_and_gone_devices_and_of_who_comes_and_goes() {
    on_both_engines(|test| async move {
        let world = World::new(test).await;
        let phone = world.device(alice(), "PHONE").await;
        world.device(bob(), "DESK").await;
        let start = world.now();
        upload_identity(&world, phone).await;
        assert_eq!(changes(&world, bob(), &start).await, none(), "they share no room");
        assert_eq!(changes(&world, alice(), &start).await, changed(&["alice"]));

        let before_joins = world.now();
        world.set_membership(1, alice(), "join").await;
        world.set_membership(1, bob(), "join").await;
        world.set_membership(2, bob(), "join").await;
        assert_eq!(changes(&world, bob(), &before_joins).await, changed(&["alice"]));
        assert_eq!(changes(&world, alice(), &before_joins).await, changed(&["bob"]));

        let shared = world.now();
        upload_identity(&world, phone).await;
        assert_eq!(changes(&world, bob(), &shared).await, changed(&["alice"]));
        let seen = world.now();
        assert_eq!(changes(&world, bob(), &seen).await, none());
        let deleted = Write {
            statements: device_lists::device_deleted(phone.user_nid, "PHONE"),
            changes: vec![Change::Devices { user: phone.user_nid }],
            ..Write::default()
        };
        world.lane.commit(deleted).await.unwrap();
        assert_eq!(changes(&world, bob(), &seen).await, changed(&["alice"]));
        let keys = world.e2ee.device_keys_of(Asker::Server, &[alice().to_owned()]).await.unwrap();
        assert!(keys.device_keys[alice()].is_empty());

        let together = world.now();
        world.set_membership(2, alice(), "join").await;
        world.set_membership(1, alice(), "leave").await;
        let (_, left) = changes(&world, bob(), &together).await;
        assert!(left.is_empty(), "they still share the other room");
        let still = world.now();
        world.set_membership(2, alice(), "leave").await;
        assert_eq!(changes(&world, bob(), &still).await, (Vec::new(), vec!["alice".to_owned()]));
        assert_eq!(changes(&world, alice(), &still).await, (Vec::new(), vec!["bob".to_owned()]));
    })
    .await;
}

fn remote_update(stream_id: i64, prev_id: &[i64], device_id: &str) -> RemoteDeviceUpdate {
    let device = OwnDevice { user_id: carol(), user_nid: 0, device_id: device_id.into() };
    let keys = super::identity_keys(device, &Signer::new(Some(device_id)));
    RemoteDeviceUpdate {
        user_id: carol().to_owned(),
        device_id: device_id.into(),
        device_display_name: None,
        stream_id,
        prev_id: prev_id.to_vec(),
        deleted: false,
        keys: Some(raw(keys)),
    }
}

async fn devices_of_carol(world: &World) -> usize {
    let keys = world.e2ee.device_keys_of(Asker::Server, &[carol().to_owned()]).await.unwrap();
    keys.device_keys[carol()].len()
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_of_a_remote_list_follow_each_other_or_make_it_doubtful() {
    on_both_engines(|test| async move {
        let world = World::new(test).await;
        world.device(bob(), "DESK").await;
        world.set_membership(1, bob(), "join").await;
        world.set_membership(1, carol(), "join").await;
        let nid = world.nid(carol()).await;
        let start = world.now();
        world.e2ee.receive_device_list_update(&remote_update(3, &[2], "TOO_EARLY")).await.unwrap();
        assert_eq!(devices_of_carol(&world).await, 0);
        assert_eq!(changes(&world, bob(), &start).await, changed(&["carol"]), "clients ask, and the list is fetched");
        let list = DeviceListOfUser { stream_id: 3, devices: Vec::new(), master_key: None, self_signing_key: None };
        world.e2ee.store_device_list(carol(), list, &world.now()).await.unwrap();
        world.e2ee.receive_device_list_update(&remote_update(4, &[3], "ONE")).await.unwrap();
        world.e2ee.receive_device_list_update(&remote_update(4, &[3], "ONE")).await.unwrap();
        assert_eq!(devices_of_carol(&world).await, 1);
        let current = || async { device_lists::find_remote(&world.db, nid).await.unwrap().unwrap() };
        assert!(current().await.is_current);
        let gone = RemoteDeviceUpdate { deleted: true, keys: None, ..remote_update(5, &[4], "ONE") };
        world.e2ee.receive_device_list_update(&gone).await.unwrap();
        assert_eq!(devices_of_carol(&world).await, 0);
        world.e2ee.receive_device_list_update(&remote_update(9, &[8], "NINE")).await.unwrap();
        assert_eq!((current().await.is_current, current().await.stream_id), (false, 5));
        let other_owner = json!({ "user_id": "@mallory:remote.example" });
        let bad = RemoteDeviceUpdate { keys: Some(raw(other_owner)), ..remote_update(10, &[9], "TEN") };
        world.e2ee.receive_device_list_update(&bad).await.unwrap();
        assert_eq!(devices_of_carol(&world).await, 0);
    })
    .await;
}

#[tokio::test]
async fn each_change_raises_the_stream_id_that_other_servers_see() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::new(sqlite_in(folder.path()).await).await;
    let phone = world.device(alice(), "PHONE").await;
    world.device(alice(), "TABLET").await;
    upload_identity(&world, phone).await;
    upload_identity(&world, phone).await;
    let list = world.e2ee.devices_of(alice()).await.unwrap().unwrap();
    assert_eq!((list.stream_id, list.devices.len()), (2, 2));
    let updates = device_lists::list_updates(&world.db, phone.user_nid, 1).await.unwrap();
    assert_eq!(updates.iter().map(|update| update.device_id.as_str()).collect::<Vec<_>>(), ["PHONE"]);
    assert!(world.e2ee.devices_of(carol()).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remote_list_is_trusted_while_a_room_is_shared_since_it_was_asked_for() {
    on_both_engines(|test| async move {
        let world = World::new(test).await;
        let nid = world.nid(carol()).await;
        let list = || DeviceListOfUser { stream_id: 3, devices: Vec::new(), master_key: None, self_signing_key: None };
        let store = async || world.e2ee.store_device_list(carol(), list(), &world.now()).await.unwrap();
        let is_trusted = async || !device_lists::list_current_remote(&world.db, &[nid]).await.unwrap().is_empty();
        store().await;
        assert!(!is_trusted().await, "nobody here shares a room: no updates come");
        let before_joins = world.now();
        world.set_membership(1, carol(), "join").await;
        world.set_membership(1, bob(), "join").await;
        world.e2ee.store_device_list(carol(), list(), &before_joins).await.unwrap();
        assert!(!is_trusted().await, "asked before the room was shared");
        store().await;
        assert!(is_trusted().await);
        world.set_membership(2, bob(), "join").await;
        assert!(is_trusted().await);
        world.set_membership(1, bob(), "leave").await;
        assert!(!is_trusted().await);
        world.set_membership(1, bob(), "join").await;
        assert!(!is_trusted().await, "updates were missed in between");
    })
    .await;
}
