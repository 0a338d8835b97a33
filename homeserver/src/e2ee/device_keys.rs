//! Uploading keys of a device, and asking for the keys of users.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedDeviceId, OwnedOneTimeKeyId, OwnedUserId,
    encryption::{CrossSigningKey, DeviceKeys, OneTimeKey},
    serde::Raw,
};
use serde_json::{Map, Value as JsonValue, json};

use super::{Asker, E2ee, OwnDevice, is_storable, signatures::same_apart_from_signatures};
use crate::{
    storage::{
        DbError, Stmt, device_keys, device_lists,
        one_time_keys::{self, StoredKey},
    },
    stream::{Change, CommitError, Write},
};

/// What a device uploads; every part may be missing.
#[derive(Clone, Debug, Default)]
pub struct KeyUpload {
    pub device_keys: Option<Raw<DeviceKeys>>,
    pub one_time_keys: BTreeMap<OwnedOneTimeKeyId, Raw<OneTimeKey>>,
    pub fallback_keys: BTreeMap<OwnedOneTimeKeyId, Raw<OneTimeKey>>,
}

/// Why an upload was refused.
#[derive(Debug, thiserror::Error)]
pub enum UploadKeysError {
    #[error("the device keys have the wrong shape")]
    DeviceKeys(#[source] serde_json::Error),
    #[error("the device keys name another user or device")]
    WrongOwner,
    #[error("the key {0} has the wrong shape")]
    OneTimeKey(String),
    #[error("One time key {0} already exists with another value")]
    Exists(String),
    #[error("the device is logged out")]
    NoDevice,
    #[error(transparent)]
    Commit(CommitError),
    #[error(transparent)]
    Db(#[from] DbError),
}

impl From<CommitError> for UploadKeysError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Conflict => Self::NoDevice,
            error => Self::Commit(error),
        }
    }
}

/// Keys of users, as far as the asker may see them.
#[derive(Clone, Debug, Default)]
pub struct QueriedKeys {
    pub device_keys: BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, Raw<DeviceKeys>>>,
    pub master_keys: BTreeMap<OwnedUserId, Raw<CrossSigningKey>>,
    pub self_signing_keys: BTreeMap<OwnedUserId, Raw<CrossSigningKey>>,
    pub user_signing_keys: BTreeMap<OwnedUserId, Raw<CrossSigningKey>>,
    /// By server name, why it could not be asked.
    pub failures: BTreeMap<String, JsonValue>,
}

impl E2ee {
    /// Stores a device's identity keys, one-time keys and fallback keys; the number of one-time keys that it has then,
    /// by algorithm.
    ///
    /// # Errors
    /// See [`UploadKeysError`].
    pub async fn upload_keys(
        &self,
        device: OwnDevice<'_>,
        upload: KeyUpload,
    ) -> Result<BTreeMap<String, i64>, UploadKeysError> {
        let device_id = device.device_id.as_str();
        let mut write = Write {
            guard: Some(device_keys::device_exists(device.user_nid, device_id).into()),
            changes: vec![Change::User { user: device.user_nid }],
            ..Write::default()
        };
        if let Some(keys) = &upload.device_keys {
            let keys = read_device_keys(device, keys)?;
            if device_keys::find(&self.parts.db, device.user_nid, device_id).await?.as_deref() != Some(&keys) {
                write.statements.push(device_keys::upsert(device.user_nid, device_id, &keys));
                write.statements.extend(device_lists::device_changed(device.user_nid, device_id));
                write.changes.push(Change::Devices { user: device.user_nid });
            }
        }
        write.statements.extend(self.new_one_time_keys(device, &upload.one_time_keys).await?);
        for (key_id, key) in &upload.fallback_keys {
            let key = read_one_time_key(key_id, key)?;
            write.statements.push(one_time_keys::upsert_fallback(device.user_nid, device_id, &key));
        }
        if !write.statements.is_empty() {
            self.parts.lane.commit(write).await?;
        }
        let counts = one_time_keys::counts(device.user_nid, device_id);
        Ok(one_time_keys::read_counts(&self.parts.db.query(counts.sql, counts.params).await?)?)
    }

    /// What stores those of `keys` that are not stored yet.
    async fn new_one_time_keys(
        &self,
        device: OwnDevice<'_>,
        keys: &BTreeMap<OwnedOneTimeKeyId, Raw<OneTimeKey>>,
    ) -> Result<Vec<Stmt>, UploadKeysError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let device_id = device.device_id.as_str();
        let keys = keys.iter().map(|(key_id, key)| read_one_time_key(key_id, key)).collect::<Result<Vec<_>, _>>()?;
        let names: Vec<&str> = keys.iter().map(|key| key.key_id.as_str()).collect();
        let stored = one_time_keys::list(&self.parts.db, device.user_nid, device_id, &names).await?;
        let mut statements = Vec::with_capacity(keys.len());
        for key in keys {
            match stored.iter().find(|stored| stored.algorithm == key.algorithm && stored.key_id == key.key_id) {
                None => statements.push(one_time_keys::insert(device.user_nid, device_id, &key)),
                Some(stored) if is_same_key(&stored.json, &key.json) => {}
                Some(_) => return Err(UploadKeysError::Exists(format!("{}:{}", key.algorithm, key.key_id))),
            }
        }
        Ok(statements)
    }

    /// The identity keys of users' devices and the users' cross-signing keys, with the signatures on them that the
    /// asker may see. An empty list of devices means all of them. Other servers are asked for at most `timeout`.
    ///
    /// # Errors
    /// Those of the database; another server's failure is a part of the answer.
    pub async fn query_keys(
        &self,
        asker: Asker<'_>,
        wanted: &BTreeMap<OwnedUserId, Vec<OwnedDeviceId>>,
        timeout: Duration,
    ) -> Result<QueriedKeys, DbError> {
        let (local, remote): (Vec<_>, Vec<_>) = wanted.keys().cloned().partition(|user_id| self.is_local(user_id));
        let failures = match asker {
            Asker::Local { .. } => self.bring_up_to_date(&remote, timeout).await?,
            // A server answers for its own users only.
            Asker::Server => BTreeMap::new(),
        };
        let mut known: Vec<OwnedUserId> = local;
        if matches!(asker, Asker::Local { .. }) {
            known.extend(remote.into_iter().filter(|user_id| !failures.contains_key(user_id.server_name().as_str())));
        }
        let mut answer = self.device_keys_of(asker, &known).await?;
        for (user_id, devices) in &mut answer.device_keys {
            if let Some(only) = wanted.get(user_id).filter(|only| !only.is_empty()) {
                devices.retain(|device_id, _| only.contains(device_id));
            }
        }
        answer.failures = failures;
        Ok(answer)
    }

    /// What this server has stored of users' keys; asks nobody. User-signing keys are shown to their user only.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn device_keys_of(&self, asker: Asker<'_>, users: &[OwnedUserId]) -> Result<QueriedKeys, DbError> {
        let mut answer = QueriedKeys::default();
        let mut by_nid = HashMap::new();
        for user_id in users {
            answer.device_keys.insert(user_id.clone(), BTreeMap::new());
            if let Some(user_nid) = self.parts.names.find(user_id).await? {
                by_nid.insert(user_nid, user_id.clone());
            }
        }
        if by_nid.is_empty() {
            return Ok(answer);
        }
        let asker_nid = match asker {
            Asker::Local { user_nid, .. } => Some(user_nid),
            Asker::Server => None,
        };
        let nids: Vec<i64> = by_nid.keys().copied().collect();
        let mut snapshot = self.parts.db.snapshot().await?;
        let rows = device_keys::keys_of_users(&mut snapshot, &nids, asker_nid).await?;
        drop(snapshot);
        let signatures = AddedSignatures::new(&rows.signatures, &by_nid, asker);
        for row in rows.devices {
            let (Some(user_id), Some(json)) = (by_nid.get(&row.user_nid), &row.json) else { continue };
            let mut keys = signatures.merge_into(json, user_id, row.user_nid, &row.device_id)?;
            if let (Asker::Local { .. }, Some(name)) = (asker, row.display_name) {
                keys.insert("unsigned".to_owned(), json!({ "device_display_name": name }));
            }
            answer.device_keys.entry(user_id.clone()).or_default().insert(row.device_id.into(), to_raw(keys)?);
        }
        for row in rows.cross_signing {
            let Some(user_id) = by_nid.get(&row.user_nid) else { continue };
            let map = match row.key_usage.as_str() {
                "master" => &mut answer.master_keys,
                "self_signing" => &mut answer.self_signing_keys,
                "user_signing" if asker_nid == Some(row.user_nid) => &mut answer.user_signing_keys,
                _ => continue,
            };
            let key = signatures.merge_into(&row.json, user_id, row.user_nid, &row.public_key)?;
            map.insert(user_id.clone(), to_raw(key)?);
        }
        Ok(answer)
    }
}

/// A signature, and whose it is.
type SignatureBy<'a> = (Arc<str>, &'a device_keys::KeySignatureRow);

/// Signatures that came after the keys they sign, by the key.
struct AddedSignatures<'a> {
    asker: Asker<'a>,
    by_key: HashMap<(i64, &'a str), Vec<SignatureBy<'a>>>,
}

impl<'a> AddedSignatures<'a> {
    fn new(
        rows: &'a [device_keys::KeySignatureRow],
        names: &HashMap<i64, OwnedUserId>,
        asker: Asker<'a>,
    ) -> AddedSignatures<'a> {
        let mut by_key: HashMap<_, Vec<_>> = HashMap::new();
        for row in rows {
            let signer: Arc<str> = match (asker, names.get(&row.signer_nid)) {
                (_, Some(name)) => name.as_str().into(),
                (Asker::Local { user_id, user_nid }, None) if user_nid == row.signer_nid => user_id.as_str().into(),
                _ => continue,
            };
            by_key.entry((row.target_nid, row.target_key.as_str())).or_default().push((signer, row));
        }
        Self { asker, by_key }
    }

    /// The key with its signatures: its owner's and the asker's, no others, so that nobody learns whom others verified.
    fn merge_into(
        &self,
        json: &str,
        owner: &OwnedUserId,
        owner_nid: i64,
        key: &str,
    ) -> Result<Map<String, JsonValue>, DbError> {
        let mut object: Map<String, JsonValue> =
            serde_json::from_str(json).map_err(|error| DbError::Corrupt(format!("a key of {owner}: {error}")))?;
        let mut signatures = match object.remove("signatures") {
            Some(JsonValue::Object(signatures)) => signatures,
            _ => Map::new(),
        };
        let asker = match self.asker {
            Asker::Local { user_id, .. } => Some(user_id.as_str()),
            Asker::Server => None,
        };
        signatures.retain(|signer, _| signer == owner.as_str() || Some(signer.as_str()) == asker);
        for (signer, row) in self.by_key.get(&(owner_nid, key)).into_iter().flatten() {
            let of_signer = signatures.entry(signer.as_ref()).or_insert_with(|| JsonValue::Object(Map::new()));
            if let JsonValue::Object(of_signer) = of_signer {
                of_signer.insert(row.key_id.clone(), row.signature.clone().into());
            }
        }
        object.insert("signatures".to_owned(), JsonValue::Object(signatures));
        Ok(object)
    }
}

fn to_raw<T>(object: Map<String, JsonValue>) -> Result<Raw<T>, DbError> {
    Raw::from_json_string(JsonValue::Object(object).to_string())
        .map_err(|error| DbError::Corrupt(format!("a key: {error}")))
}

/// The canonical text of a device's identity keys, without what is not signed.
fn read_device_keys(device: OwnDevice<'_>, keys: &Raw<DeviceKeys>) -> Result<String, UploadKeysError> {
    let typed: DeviceKeys = keys.deserialize().map_err(UploadKeysError::DeviceKeys)?;
    if typed.user_id != device.user_id || typed.device_id != device.device_id {
        return Err(UploadKeysError::WrongOwner);
    }
    let mut object: CanonicalJsonObject =
        serde_json::from_str(keys.json().get()).map_err(UploadKeysError::DeviceKeys)?;
    object.remove("unsigned");
    serde_json::to_string(&object).map_err(UploadKeysError::DeviceKeys)
}

fn read_one_time_key(key_id: &OwnedOneTimeKeyId, key: &Raw<OneTimeKey>) -> Result<StoredKey, UploadKeysError> {
    let refused = || UploadKeysError::OneTimeKey(key_id.to_string());
    let value: CanonicalJsonValue = serde_json::from_str(key.json().get()).map_err(|_| refused())?;
    let has_shape = match &value {
        CanonicalJsonValue::String(_) => true,
        CanonicalJsonValue::Object(object) => matches!(object.get("key"), Some(CanonicalJsonValue::String(_))),
        _ => false,
    };
    let (algorithm, name) = key_id.as_str().split_once(':').ok_or_else(refused)?;
    if !has_shape || name.is_empty() || !is_storable(key_id.as_str()) {
        return Err(refused());
    }
    let json = serde_json::to_string(&value).map_err(|_| refused())?;
    Ok(StoredKey { algorithm: algorithm.to_owned(), key_id: name.to_owned(), json })
}

fn is_same_key(stored: &str, uploaded: &str) -> bool {
    if stored == uploaded {
        return true;
    }
    match (serde_json::from_str(stored), serde_json::from_str(uploaded)) {
        (Ok(stored), Ok(uploaded)) => same_apart_from_signatures(&stored, &uploaded),
        _ => false,
    }
}
