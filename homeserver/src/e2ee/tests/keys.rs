use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use ruma::{OneTimeKeyAlgorithm, OwnedOneTimeKeyId, UserId, encryption::OneTimeKey, serde::Raw};
use serde_json::json;

use super::{World, alice, all_devices_of, bob, carol, device, identity_keys, raw, upload_identity};
use crate::{
    e2ee::{Asker, E2ee, KeyUpload, OwnDevice, UploadKeysError, WantedKeys},
    storage::{
        one_time_keys,
        testing::{on_both_engines, sqlite_in},
    },
};

const TIMEOUT: Duration = Duration::from_secs(1);

fn one_time_keys(names: &[&str]) -> BTreeMap<OwnedOneTimeKeyId, Raw<OneTimeKey>> {
    let key = |name: &&str| {
        let key_id = OwnedOneTimeKeyId::try_from(format!("signed_curve25519:{name}")).unwrap();
        (key_id, raw(json!({ "key": format!("public-{name}"), "signatures": {} })))
    };
    names.iter().map(key).collect()
}

async fn upload(world: &World, device: OwnDevice<'_>, one_time: &[&str], fallback: &[&str]) -> i64 {
    let upload =
        KeyUpload { device_keys: None, one_time_keys: one_time_keys(one_time), fallback_keys: one_time_keys(fallback) };
    world.e2ee.upload_keys(device, upload).await.unwrap()["signed_curve25519"]
}

fn wanted(user_id: &UserId, device_id: &str) -> WantedKeys {
    let devices = BTreeMap::from([(device_id.into(), OneTimeKeyAlgorithm::SignedCurve25519)]);
    WantedKeys::from([(user_id.to_owned(), devices)])
}

/// The name of the one key that is given out.
async fn claim(e2ee: &E2ee, user_id: &UserId, device_id: &str) -> Option<String> {
    let claimed = e2ee.claim_keys(wanted(user_id, device_id), TIMEOUT).await.unwrap();
    let devices = claimed.one_time_keys.into_values().next()?;
    let keys = devices.into_values().next()?;
    assert_eq!(keys.len(), 1);
    keys.into_keys().next().map(|key_id| key_id.as_str().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_time_keys_go_in_order_of_upload_and_then_the_fallback_key_again_and_again() {
    on_both_engines(|test| async move {
        let world = World::new(test).await;
        let device = world.device(alice(), "PHONE").await;
        assert_eq!(upload(&world, device, &["zzz"], &["fallback"]).await, 1);
        assert_eq!(upload(&world, device, &["aaa"], &[]).await, 2);
        // The same keys again change nothing.
        assert_eq!(upload(&world, device, &["aaa"], &["fallback"]).await, 2);
        let mut given = Vec::new();
        for _ in 0..4 {
            given.push(claim(&world.e2ee, alice(), "PHONE").await.unwrap());
        }
        let expected = ["zzz", "aaa", "fallback", "fallback"].map(|name| format!("signed_curve25519:{name}"));
        assert_eq!(given, expected);
        let mut snapshot = world.db.snapshot().await.unwrap();
        let nid = device.user_nid;
        let unused = one_time_keys::unused_fallback_key_types(&mut snapshot, nid, "PHONE").await.unwrap();
        let counts = one_time_keys::one_time_key_counts(&mut snapshot, nid, "PHONE").await.unwrap();
        assert_eq!((unused.len(), counts["signed_curve25519"]), (0, 0));
        drop(snapshot);
        upload(&world, device, &[], &["another"]).await;
        let mut snapshot = world.db.snapshot().await.unwrap();
        let unused = one_time_keys::unused_fallback_key_types(&mut snapshot, nid, "PHONE").await.unwrap();
        assert_eq!(unused, ["signed_curve25519"]);
        assert_eq!(claim(&world.e2ee, alice(), "TABLET").await, None);
        assert_eq!(claim(&world.e2ee, bob(), "PHONE").await, None);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_one_time_key_is_given_to_one_claimer_only() {
    on_both_engines(|test| async move {
        let world = World::new(test).await;
        // SQLite has one shard; two domain rooms on it race all the same.
        let other = if world.db.is_shared() { Some(world.another().await) } else { None };
        let device = world.device(alice(), "PHONE").await;
        let names: Vec<String> = (0..30).map(|number| format!("key{number:02}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        upload(&world, device, &names, &["fallback"]).await;
        let claims = (0..40).map(|number| {
            let e2ee = match &other {
                Some(other) if number % 2 == 0 => other.e2ee.clone(),
                _ => world.e2ee.clone(),
            };
            tokio::spawn(async move { claim(&e2ee, alice(), "PHONE").await.unwrap() })
        });
        let given = futures_util::future::join_all(claims.collect::<Vec<_>>()).await;
        let given: Vec<String> = given.into_iter().map(Result::unwrap).collect();
        let fallbacks = given.iter().filter(|key| key.ends_with(":fallback")).count();
        let distinct: BTreeSet<&String> = given.iter().collect();
        assert_eq!((fallbacks, distinct.len()), (10, 31));
    })
    .await;
}

#[tokio::test]
async fn a_one_time_key_cannot_be_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::new(sqlite_in(folder.path()).await).await;
    let device = world.device(alice(), "PHONE").await;
    upload(&world, device, &["a"], &[]).await;
    let mut other = one_time_keys(&["a"]);
    for key in other.values_mut() {
        *key = raw(json!({ "key": "another", "signatures": {} }));
    }
    let upload = KeyUpload { one_time_keys: other, ..KeyUpload::default() };
    let error = world.e2ee.upload_keys(device, upload).await.unwrap_err();
    assert!(matches!(error, UploadKeysError::Exists(name) if name == "signed_curve25519:a"));
}

#[tokio::test]
async fn keys_of_wrong_shape_are_refused_and_nothing_is_stored() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::new(sqlite_in(folder.path()).await).await;
    let device = world.device(alice(), "PHONE").await;
    for bad in [json!(7), json!({}), json!({ "key": 1.5 }), json!(["a"])] {
        let key_id = OwnedOneTimeKeyId::try_from("signed_curve25519:a").unwrap();
        let upload = KeyUpload { one_time_keys: BTreeMap::from([(key_id, raw(bad))]), ..KeyUpload::default() };
        let error = world.e2ee.upload_keys(device, upload).await.unwrap_err();
        assert!(matches!(error, UploadKeysError::OneTimeKey(_)));
    }
    let tablet = world.device(alice(), "TABLET").await;
    let signer = super::Signer::new(Some("TABLET"));
    let stolen = KeyUpload { device_keys: Some(raw(identity_keys(tablet, &signer))), ..KeyUpload::default() };
    assert!(matches!(world.e2ee.upload_keys(device, stolen).await, Err(UploadKeysError::WrongOwner)));
    let keys = world.e2ee.device_keys_of(Asker::Server, &[alice().to_owned()]).await.unwrap();
    assert!(keys.device_keys[alice()].is_empty());
}

#[tokio::test]
async fn a_device_that_is_logged_out_uploads_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::new(sqlite_in(folder.path()).await).await;
    let mut device = world.device(alice(), "PHONE").await;
    device.device_id = "GONE".into();
    let upload = KeyUpload { one_time_keys: one_time_keys(&["a"]), ..KeyUpload::default() };
    assert!(matches!(world.e2ee.upload_keys(device, upload).await, Err(UploadKeysError::NoDevice)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_answers_what_was_uploaded_and_names_servers_that_could_not_be_asked() {
    on_both_engines(|test| async move {
        let world = World::new(test).await;
        let phone = world.device(alice(), "PHONE").await;
        let tablet = world.device(alice(), "TABLET").await;
        let signer = upload_identity(&world, phone).await;
        upload_identity(&world, tablet).await;
        let asker = world.device(bob(), "DESK").await;
        let asker = Asker::Local { user_id: bob(), user_nid: asker.user_nid };
        let keys = world.e2ee.query_keys(asker, &all_devices_of(&[alice(), carol()]), TIMEOUT).await.unwrap();
        assert_eq!(keys.failures.keys().collect::<Vec<_>>(), ["remote.example"]);
        assert_eq!(keys.device_keys[alice()].len(), 2);
        let phone_keys: serde_json::Value =
            serde_json::from_str(keys.device_keys[alice()][device("PHONE")].json().get()).unwrap();
        let mut expected = identity_keys(phone, &signer);
        expected["unsigned"] = json!({ "device_display_name": "A phone" });
        assert_eq!(phone_keys, expected);
        let mut one = all_devices_of(&[alice()]);
        one.get_mut(alice()).unwrap().push("TABLET".into());
        let keys = world.e2ee.query_keys(Asker::Server, &one, TIMEOUT).await.unwrap();
        let devices = &keys.device_keys[alice()];
        assert_eq!(devices.len(), 1);
        assert!(!devices[device("TABLET")].json().get().contains("A phone"), "names are for the server's own users");
    })
    .await;
}
