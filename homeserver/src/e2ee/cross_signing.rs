//! Cross-signing: a user's master, self-signing and user-signing keys, and the signatures made with them.

use std::collections::BTreeMap;

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedUserId, UserId,
    encryption::{CrossSigningKey, KeyUsage},
    serde::{Base64, Raw, base64::Standard},
};
use serde_json::value::RawValue;

use super::{
    E2ee, OwnDevice, is_storable,
    signatures::{BadSignature, same_apart_from_signatures, verified_signature},
};
use crate::{
    storage::{
        DbError,
        device_keys::{self, CrossSigningKeyRow, KeySignatureRow},
        device_lists,
    },
    stream::{Change, CommitError, Write},
};

const MASTER: &str = "master";
const SELF_SIGNING: &str = "self_signing";
const USER_SIGNING: &str = "user_signing";

/// Cross-signing keys that a user publishes; each may be missing.
#[derive(Clone, Debug, Default)]
pub struct SigningKeys {
    pub master_key: Option<Raw<CrossSigningKey>>,
    pub self_signing_key: Option<Raw<CrossSigningKey>>,
    pub user_signing_key: Option<Raw<CrossSigningKey>>,
}

/// Why cross-signing keys were refused.
#[derive(Debug, thiserror::Error)]
pub enum UploadSigningKeysError {
    #[error("the {usage} key is not valid: {reason}")]
    Key { usage: &'static str, reason: &'static str },
    #[error("the {0} key is not signed by the master key")]
    Signature(&'static str),
    #[error("the user has no master key")]
    NoMasterKey,
    #[error("the {0} key is named like a device of the user")]
    NamedLikeDevice(&'static str),
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Why one signature, or all of an upload, was refused.
#[derive(Debug, thiserror::Error)]
pub enum UploadSignaturesError {
    #[error("the key has the wrong shape")]
    Shape,
    #[error("there is no such key, or it is not one that this user can sign")]
    NotFound,
    #[error("the key is not the one that was published")]
    NotTheKey,
    #[error(transparent)]
    Signature(#[from] BadSignature),
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error(transparent)]
    Db(#[from] DbError),
}

impl E2ee {
    /// Whether publishing `keys` needs user-interactive authentication: not for a user's first keys, and not for the
    /// same keys again.
    ///
    /// # Errors
    /// See [`UploadSigningKeysError`].
    pub async fn needs_interactive_auth(
        &self,
        device: OwnDevice<'_>,
        keys: &SigningKeys,
    ) -> Result<bool, UploadSigningKeysError> {
        let stored = device_keys::list_cross_signing(&self.parts.db, device.user_nid).await?;
        if !stored.iter().any(|key| key.key_usage == MASTER) {
            return Ok(false);
        }
        let uploaded = parse_all(device.user_id, keys)?;
        let is_known = |key: &NewKey| {
            stored.iter().any(|stored| stored.key_usage == key.usage && stored.public_key == key.public_key)
        };
        Ok(keys.master_key.is_none() || !uploaded.iter().all(is_known))
    }

    /// Publishes a user's cross-signing keys. Authentication, where it is needed, has to be done before.
    ///
    /// # Errors
    /// See [`UploadSigningKeysError`].
    pub async fn upload_signing_keys(
        &self,
        device: OwnDevice<'_>,
        keys: &SigningKeys,
    ) -> Result<(), UploadSigningKeysError> {
        let stored = device_keys::list_cross_signing(&self.parts.db, device.user_nid).await?;
        let uploaded = parse_all(device.user_id, keys)?;
        let uploaded_master = uploaded.iter().find(|key| key.usage == MASTER).map(|key| &key.public_key);
        let stored_master = stored.iter().find(|key| key.key_usage == MASTER).map(|key| &key.public_key);
        let Some(master) = uploaded_master.or(stored_master) else { return Err(UploadSigningKeysError::NoMasterKey) };
        let mut write = Write::default();
        for key in &uploaded {
            if device_keys::is_device(&self.parts.db, device.user_nid, &key.public_key).await? {
                return Err(UploadSigningKeysError::NamedLikeDevice(key.usage));
            }
            if key.usage != MASTER {
                verified_signature(&key.object, device.user_id, master, master)
                    .map_err(|_| UploadSigningKeysError::Signature(key.usage))?;
            }
            let row = key.to_row(device.user_nid)?;
            if !stored.contains(&row) {
                write.statements.push(device_keys::upsert_cross_signing(&row));
            }
        }
        if uploaded_master.is_some() && uploaded_master != stored_master {
            // What the old master key signed is worth nothing under the new one.
            for usage in [SELF_SIGNING, USER_SIGNING] {
                if !uploaded.iter().any(|key| key.usage == usage) {
                    write.statements.push(device_keys::delete_cross_signing(device.user_nid, usage));
                }
            }
        }
        if write.statements.is_empty() {
            return Ok(());
        }
        write.statements.push(device_lists::changed(device.user_nid));
        write.changes.push(Change::Devices { user: device.user_nid });
        self.parts.lane.commit(write).await?;
        Ok(())
    }

    /// Takes signatures on keys: of a user's self-signing key on its devices, of its devices on its master key, and of
    /// its user-signing key on other users' master keys. Returns which were refused, by user and key.
    ///
    /// # Errors
    /// [`UploadSignaturesError::Commit`] or [`UploadSignaturesError::Db`]; anything else is about one signature and
    /// part of the answer.
    pub async fn upload_signatures(
        &self,
        device: OwnDevice<'_>,
        signed: &BTreeMap<OwnedUserId, BTreeMap<String, Box<RawValue>>>,
    ) -> Result<BTreeMap<OwnedUserId, BTreeMap<String, UploadSignaturesError>>, UploadSignaturesError> {
        let own_keys = device_keys::list_cross_signing(&self.parts.db, device.user_nid).await?;
        let mut failures: BTreeMap<OwnedUserId, BTreeMap<String, UploadSignaturesError>> = BTreeMap::new();
        let mut write = Write::default();
        let mut own_keys_signed = false;
        for (target, keys) in signed {
            for (key, object) in keys {
                match self.check_signature(device, &own_keys, target, key, object).await {
                    Ok(row) => {
                        write.statements.push(device_keys::upsert_signature(&row));
                        if row.target_nid == device.user_nid {
                            own_keys_signed = true;
                        } else {
                            write.statements.push(device_lists::user_signed(device.user_nid, row.target_nid));
                        }
                    }
                    Err(error @ (UploadSignaturesError::Commit(_) | UploadSignaturesError::Db(_))) => {
                        return Err(error);
                    }
                    Err(error) => {
                        failures.entry(target.clone()).or_default().insert(key.clone(), error);
                    }
                }
            }
        }
        if write.statements.is_empty() {
            return Ok(failures);
        }
        write.changes.push(Change::User { user: device.user_nid });
        if own_keys_signed {
            write.statements.push(device_lists::changed(device.user_nid));
            write.changes.push(Change::Devices { user: device.user_nid });
        }
        self.parts.lane.commit(write).await?;
        Ok(failures)
    }

    async fn check_signature(
        &self,
        device: OwnDevice<'_>,
        own_keys: &[CrossSigningKeyRow],
        target: &UserId,
        key: &str,
        object: &RawValue,
    ) -> Result<KeySignatureRow, UploadSignaturesError> {
        let object: CanonicalJsonObject =
            serde_json::from_str(object.get()).map_err(|_| UploadSignaturesError::Shape)?;
        if !is_storable(key) {
            return Err(UploadSignaturesError::NotFound);
        }
        let own = |usage: &str| own_keys.iter().find(|key| key.key_usage == usage);
        let (target_nid, stored, signer) = if target != device.user_id {
            let signer = own(USER_SIGNING).ok_or(UploadSignaturesError::NotFound)?.public_key.clone();
            let target_nid = self.parts.names.find(target).await?.ok_or(UploadSignaturesError::NotFound)?;
            let keys = device_keys::list_cross_signing(&self.parts.db, target_nid).await?;
            (target_nid, master_named(keys, key).ok_or(UploadSignaturesError::NotFound)?, (signer.clone(), signer))
        } else if let Some(master) = own(MASTER).filter(|master| master.public_key == key) {
            (device.user_nid, master.json.clone(), self.signing_device(device, &object).await?)
        } else {
            let signer = own(SELF_SIGNING).ok_or(UploadSignaturesError::NotFound)?.public_key.clone();
            let stored = device_keys::find(&self.parts.db, device.user_nid, key).await?;
            (device.user_nid, stored.ok_or(UploadSignaturesError::NotFound)?, (signer.clone(), signer))
        };
        let stored: CanonicalJsonObject =
            serde_json::from_str(&stored).map_err(|error| DbError::Corrupt(format!("a key of {target}: {error}")))?;
        if !same_apart_from_signatures(&stored, &object) {
            return Err(UploadSignaturesError::NotTheKey);
        }
        let (key_name, public_key) = signer;
        Ok(KeySignatureRow {
            target_nid,
            target_key: key.to_owned(),
            signer_nid: device.user_nid,
            signature: verified_signature(&object, device.user_id, &key_name, &public_key)?,
            key_id: format!("ed25519:{key_name}"),
        })
    }

    /// The name and public key of the user's device that signed `object`.
    async fn signing_device(
        &self,
        device: OwnDevice<'_>,
        object: &CanonicalJsonObject,
    ) -> Result<(String, String), UploadSignaturesError> {
        let signatures =
            member(object, "signatures").and_then(|signatures| member(signatures, device.user_id.as_str()));
        for key_id in signatures.into_iter().flatten().map(|(key_id, _)| key_id) {
            let Some(name) = key_id.strip_prefix("ed25519:").filter(|name| is_storable(name)) else { continue };
            let Some(json) = device_keys::find(&self.parts.db, device.user_nid, name).await? else { continue };
            let keys: CanonicalJsonObject = serde_json::from_str(&json)
                .map_err(|error| DbError::Corrupt(format!("device_keys of {}: {error}", device.user_id)))?;
            if let Some(CanonicalJsonValue::String(key)) = member(&keys, "keys").and_then(|keys| keys.get(key_id)) {
                return Ok((name.to_owned(), key.clone()));
            }
        }
        Err(BadSignature.into())
    }

    /// Takes another server's word for its user's cross-signing keys (an `m.signing_key_update` EDU, or part of a
    /// fetched device list). Keys that are not valid are passed over.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn receive_signing_keys(&self, user_id: &UserId, keys: &SigningKeys) -> Result<(), CommitError> {
        let user_nid = self.parts.names.nid(user_id).await.map_err(std::sync::Arc::new)?;
        let rows = remote_rows(user_id, user_nid, keys);
        if rows.is_empty() {
            return Ok(());
        }
        let mut write = Write { changes: vec![Change::Devices { user: user_nid }], ..Write::default() };
        write.statements.extend(rows.iter().map(device_keys::upsert_cross_signing));
        write.statements.push(device_lists::changed(user_nid));
        self.parts.lane.commit(write).await.map(|_| ())
    }
}

/// The valid ones of a remote user's keys, without its user-signing key, which is nobody's business here.
pub(super) fn remote_rows(user_id: &UserId, user_nid: i64, keys: &SigningKeys) -> Vec<CrossSigningKeyRow> {
    let public = SigningKeys { user_signing_key: None, ..keys.clone() };
    let keys = parse_all(user_id, &public).unwrap_or_else(|error| {
        tracing::debug!(user.id = %user_id, %error, "another server sent cross-signing keys that are not valid");
        Vec::new()
    });
    keys.iter().filter_map(|key| key.to_row(user_nid).ok()).collect()
}

/// A cross-signing key as it came in.
struct NewKey {
    usage: &'static str,
    public_key: String,
    object: CanonicalJsonObject,
}

impl NewKey {
    fn to_row(&self, user_nid: i64) -> Result<CrossSigningKeyRow, UploadSigningKeysError> {
        let json = serde_json::to_string(&self.object)
            .map_err(|_| UploadSigningKeysError::Key { usage: self.usage, reason: "no canonical form" })?;
        Ok(CrossSigningKeyRow { user_nid, key_usage: self.usage.to_owned(), public_key: self.public_key.clone(), json })
    }
}

fn parse_all(user_id: &UserId, keys: &SigningKeys) -> Result<Vec<NewKey>, UploadSigningKeysError> {
    let all = [
        (MASTER, KeyUsage::Master, &keys.master_key),
        (SELF_SIGNING, KeyUsage::SelfSigning, &keys.self_signing_key),
        (USER_SIGNING, KeyUsage::UserSigning, &keys.user_signing_key),
    ];
    let present = all.into_iter().filter_map(|(name, usage, key)| Some((name, usage, key.as_ref()?)));
    present.map(|(name, usage, key)| parse(user_id, name, &usage, key)).collect()
}

fn parse(
    user_id: &UserId,
    usage: &'static str,
    expected: &KeyUsage,
    key: &Raw<CrossSigningKey>,
) -> Result<NewKey, UploadSigningKeysError> {
    let refused = |reason| UploadSigningKeysError::Key { usage, reason };
    let typed: CrossSigningKey = key.deserialize().map_err(|_| refused("wrong shape"))?;
    let object: CanonicalJsonObject =
        serde_json::from_str(key.json().get()).map_err(|_| refused("no canonical form"))?;
    if typed.user_id != user_id {
        return Err(refused("another user's key"));
    }
    if !typed.usage.contains(expected) {
        return Err(refused("made for another usage"));
    }
    let (Some((key_id, public_key)), 1) = (typed.keys.first_key_value(), typed.keys.len()) else {
        return Err(refused("not exactly one public key"));
    };
    if key_id.as_str().strip_prefix("ed25519:") != Some(public_key) {
        return Err(refused("the key's id is not its public key"));
    }
    let is_ed25519 = Base64::<Standard>::parse(public_key).is_ok_and(|bytes| bytes.as_bytes().len() == 32);
    if !is_ed25519 || !is_storable(public_key) {
        return Err(refused("no ed25519 public key"));
    }
    Ok(NewKey { usage, public_key: public_key.clone(), object })
}

fn master_named(keys: Vec<CrossSigningKeyRow>, public_key: &str) -> Option<String> {
    keys.into_iter().find(|key| key.key_usage == MASTER && key.public_key == public_key).map(|key| key.json)
}

fn member<'a>(object: &'a CanonicalJsonObject, key: &str) -> Option<&'a CanonicalJsonObject> {
    match object.get(key)? {
        CanonicalJsonValue::Object(object) => Some(object),
        _ => None,
    }
}
