use std::collections::BTreeMap;

use ruma::{UserId, encryption::CrossSigningKey, serde::Raw};
use serde_json::{Value as JsonValue, json, value::to_raw_value};

use super::{Signer, World, alice, bob, device, identity_keys, raw, upload_identity};
use crate::{
    e2ee::{Asker, OwnDevice, SigningKeys, UploadSignaturesError, UploadSigningKeysError},
    storage::testing::{on_both_engines, sqlite_in},
};

/// A user's cross-signing keys.
struct Identity {
    master: Signer,
    self_signing: Signer,
    user_signing: Signer,
}

impl Identity {
    fn new() -> Self {
        Self { master: Signer::new(None), self_signing: Signer::new(None), user_signing: Signer::new(None) }
    }

    fn keys(&self, user_id: &UserId) -> SigningKeys {
        let signed = |usage, key: &Signer| Some(raw(self.master.sign(user_id, key_json(user_id, usage, key))));
        SigningKeys {
            master_key: Some(raw(key_json(user_id, "master", &self.master))),
            self_signing_key: signed("self_signing", &self.self_signing),
            user_signing_key: signed("user_signing", &self.user_signing),
        }
    }
}

fn key_json(user_id: &UserId, usage: &str, key: &Signer) -> JsonValue {
    json!({
        "user_id": user_id,
        "usage": [usage],
        "keys": { format!("ed25519:{}", key.public_key): key.public_key },
    })
}

async fn publish(world: &World, device: OwnDevice<'_>) -> Identity {
    let identity = Identity::new();
    world.e2ee.upload_signing_keys(device, &identity.keys(device.user_id)).await.unwrap();
    identity
}

async fn sign(
    world: &World,
    device: OwnDevice<'_>,
    target: &UserId,
    key: &str,
    object: JsonValue,
) -> Option<UploadSignaturesError> {
    let keys = BTreeMap::from([(key.to_owned(), to_raw_value(&object).unwrap())]);
    let signed = BTreeMap::from([(target.to_owned(), keys)]);
    let mut failures = world.e2ee.upload_signatures(device, &signed).await.unwrap();
    failures.remove(target).and_then(|mut keys| keys.remove(key))
}

fn signers<T>(key: &Raw<T>) -> Vec<String> {
    let key: JsonValue = serde_json::from_str(key.json().get()).unwrap();
    key["signatures"].as_object().unwrap().keys().cloned().collect()
}

#[tokio::test]
async fn only_new_keys_after_the_first_need_authentication() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::new(sqlite_in(folder.path()).await).await;
    let device = world.device(alice(), "PHONE").await;
    let identity = Identity::new();
    let keys = identity.keys(alice());
    assert!(!world.e2ee.needs_interactive_auth(device, &keys).await.unwrap(), "the first keys");
    world.e2ee.upload_signing_keys(device, &keys).await.unwrap();
    assert!(!world.e2ee.needs_interactive_auth(device, &keys).await.unwrap(), "the same keys");
    let same_master = SigningKeys { self_signing_key: Identity::new().keys(alice()).self_signing_key, ..keys.clone() };
    assert!(world.e2ee.needs_interactive_auth(device, &same_master).await.unwrap());
    assert!(world.e2ee.needs_interactive_auth(device, &Identity::new().keys(alice())).await.unwrap());
    let without_master = SigningKeys { master_key: None, ..keys };
    assert!(world.e2ee.needs_interactive_auth(device, &without_master).await.unwrap());
}

#[tokio::test]
async fn keys_that_the_master_key_did_not_sign_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::new(sqlite_in(folder.path()).await).await;
    let device = world.device(alice(), "PHONE").await;
    let (identity, other) = (Identity::new(), Identity::new());
    let mut keys = identity.keys(alice());
    let only_self_signing = SigningKeys { master_key: None, user_signing_key: None, ..keys.clone() };
    let error = world.e2ee.upload_signing_keys(device, &only_self_signing).await.unwrap_err();
    assert!(matches!(error, UploadSigningKeysError::NoMasterKey));
    keys.self_signing_key = other.keys(alice()).self_signing_key;
    let error = world.e2ee.upload_signing_keys(device, &keys).await.unwrap_err();
    assert!(matches!(error, UploadSigningKeysError::Signature("self_signing")));
    let stolen = SigningKeys { master_key: identity.keys(bob()).master_key, ..SigningKeys::default() };
    let error = world.e2ee.upload_signing_keys(device, &stolen).await.unwrap_err();
    assert!(matches!(error, UploadSigningKeysError::Key { .. }));
    let wrong_usage: Raw<CrossSigningKey> = raw(key_json(alice(), "self_signing", &identity.master));
    let wrong_usage = SigningKeys { master_key: Some(wrong_usage), ..SigningKeys::default() };
    let error = world.e2ee.upload_signing_keys(device, &wrong_usage).await.unwrap_err();
    assert!(matches!(error, UploadSigningKeysError::Key { .. }));
    let named = world.device(alice(), Box::leak(other.master.public_key.clone().into_boxed_str())).await;
    let error = world.e2ee.upload_signing_keys(named, &other.keys(alice())).await.unwrap_err();
    assert!(matches!(error, UploadSigningKeysError::NamedLikeDevice("master")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_is_shown_to_the_signer_and_to_nobody_else() {
    on_both_engines(|test| async move {
        let world = World::new(test).await;
        let (phone, desk) = (world.device(alice(), "PHONE").await, world.device(bob(), "DESK").await);
        let (alices, bobs) = (publish(&world, phone).await, publish(&world, desk).await);
        let bobs_master = key_json(bob(), "master", &bobs.master);
        let signed = alices.user_signing.sign(alice(), bobs_master);
        assert!(sign(&world, phone, bob(), &bobs.master.public_key, signed).await.is_none());
        let as_alice = Asker::Local { user_id: alice(), user_nid: phone.user_nid };
        let as_bob = Asker::Local { user_id: bob(), user_nid: desk.user_nid };
        let users = [bob().to_owned()];
        let seen = world.e2ee.device_keys_of(as_alice, &users).await.unwrap();
        assert_eq!(signers(&seen.master_keys[bob()]), [alice().as_str()]);
        assert!(seen.user_signing_keys.is_empty(), "another user's user-signing key is hidden");
        for other in [as_bob, Asker::Server] {
            let seen = world.e2ee.device_keys_of(other, &users).await.unwrap();
            assert!(signers(&seen.master_keys[bob()]).is_empty());
        }
        let seen = world.e2ee.device_keys_of(as_bob, &users).await.unwrap();
        assert_eq!(seen.user_signing_keys.len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn own_devices_and_master_keys_are_signed_and_everybody_sees_it() {
    on_both_engines(|test| async move {
        let world = World::new(test).await;
        let phone = world.device(alice(), "PHONE").await;
        let device_key = upload_identity(&world, phone).await;
        let identity = publish(&world, phone).await;
        let device_signed = identity.self_signing.sign(alice(), identity_keys(phone, &device_key));
        assert!(sign(&world, phone, alice(), "PHONE", device_signed).await.is_none());
        let master = device_key.sign(alice(), key_json(alice(), "master", &identity.master));
        assert!(sign(&world, phone, alice(), &identity.master.public_key, master).await.is_none());
        let seen = world.e2ee.device_keys_of(Asker::Server, &[alice().to_owned()]).await.unwrap();
        let keys = seen.device_keys[alice()][device("PHONE")].deserialize().unwrap();
        let by_alice = keys.signatures.get(alice()).unwrap();
        let names: Vec<&str> = by_alice.keys().map(|key_id| key_id.as_str()).collect();
        assert!(names.contains(&format!("ed25519:{}", identity.self_signing.public_key).as_str()));
        assert!(names.contains(&"ed25519:PHONE"));
        assert_eq!(signers(&seen.master_keys[alice()]), [alice().as_str()]);
    })
    .await;
}

#[tokio::test]
async fn signatures_that_are_wrong_or_on_other_keys_are_refused_one_by_one() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::new(sqlite_in(folder.path()).await).await;
    let (phone, desk) = (world.device(alice(), "PHONE").await, world.device(bob(), "DESK").await);
    let device_key = upload_identity(&world, phone).await;
    let (alices, bobs) = (publish(&world, phone).await, publish(&world, desk).await);
    let keys = identity_keys(phone, &device_key);
    let mut forged = alices.self_signing.sign(alice(), keys.clone());
    forged["algorithms"] = json!(["another"]);
    let refused = sign(&world, phone, alice(), "PHONE", forged).await;
    assert!(matches!(refused, Some(UploadSignaturesError::NotTheKey)), "{refused:?}");
    let by_stranger = bobs.self_signing.sign(alice(), keys.clone());
    let refused = sign(&world, phone, alice(), "PHONE", by_stranger).await;
    assert!(matches!(refused, Some(UploadSignaturesError::Signature(_))), "{refused:?}");
    let refused = sign(&world, phone, alice(), "NONE", alices.self_signing.sign(alice(), keys)).await;
    assert!(matches!(refused, Some(UploadSignaturesError::NotFound)), "{refused:?}");
    let not_master = key_json(bob(), "self_signing", &bobs.self_signing);
    let signed = alices.user_signing.sign(alice(), not_master);
    let refused = sign(&world, phone, bob(), &bobs.self_signing.public_key, signed).await;
    assert!(matches!(refused, Some(UploadSignaturesError::NotFound)), "{refused:?}");
    let refused = sign(&world, phone, bob(), &bobs.master.public_key, json!([1])).await;
    assert!(matches!(refused, Some(UploadSignaturesError::Shape)), "{refused:?}");
}
