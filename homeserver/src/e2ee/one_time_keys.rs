//! Claiming one-time keys of users' devices.

use std::{collections::BTreeMap, time::Duration};

use ruma::{OneTimeKeyAlgorithm, OwnedDeviceId, OwnedOneTimeKeyId, OwnedUserId, encryption::OneTimeKey, serde::Raw};
use serde_json::Value as JsonValue;

use super::{E2ee, is_storable};
use crate::{
    storage::{
        DbError,
        one_time_keys::{self, Claim, StoredKey},
    },
    stream::{Change, Write},
};

/// Which devices' keys are wanted.
pub type WantedKeys = BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, OneTimeKeyAlgorithm>>;

/// One key for each device.
pub type KeysOfDevices = BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, BTreeMap<OwnedOneTimeKeyId, Raw<OneTimeKey>>>>;

/// Keys that were given out; devices without any are missing.
#[derive(Clone, Debug, Default)]
pub struct ClaimedKeys {
    pub one_time_keys: KeysOfDevices,
    /// By server name, why it could not be asked.
    pub failures: BTreeMap<String, JsonValue>,
}

impl E2ee {
    /// Gives out a one-time key (or fallback key) of each wanted device, here and on other servers, which are waited
    /// for at most `timeout`.
    ///
    /// # Errors
    /// Those of the database; another server's failure is a part of the answer.
    pub async fn claim_keys(&self, wanted: WantedKeys, timeout: Duration) -> Result<ClaimedKeys, DbError> {
        let (local, remote): (WantedKeys, WantedKeys) =
            wanted.into_iter().partition(|(user_id, _)| self.is_local(user_id));
        let mut claimed = ClaimedKeys { one_time_keys: self.claim_local_keys(local).await?, failures: BTreeMap::new() };
        if !remote.is_empty() {
            let answer = self.claim_remote_keys(remote, timeout).await;
            claimed.one_time_keys.extend(answer.one_time_keys);
            claimed.failures.extend(answer.failures);
        }
        Ok(claimed)
    }

    /// Gives out keys of local users' devices. Users of other servers are passed over.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn claim_local_keys(&self, wanted: WantedKeys) -> Result<KeysOfDevices, DbError> {
        let mut users = BTreeMap::new();
        let mut claims = Vec::new();
        for (user_id, devices) in wanted {
            if !self.is_local(&user_id) {
                continue;
            }
            let Some(user_nid) = self.parts.names.find(&user_id).await? else { continue };
            users.insert(user_nid, user_id);
            for (device_id, algorithm) in devices {
                let claim = Claim {
                    user_nid,
                    device_id: device_id.as_str().to_owned(),
                    algorithm: algorithm.as_str().to_owned(),
                };
                if is_storable(&claim.device_id) && is_storable(&claim.algorithm) {
                    claims.push(claim);
                }
            }
        }
        if claims.is_empty() {
            return Ok(KeysOfDevices::new());
        }
        let given = one_time_keys::claim(&self.parts.db, claims).await?;
        self.tell_owners(&given).await;
        let mut keys = KeysOfDevices::new();
        for (claim, key) in given {
            let Some(user_id) = users.get(&claim.user_nid) else { continue };
            let (key_id, key) = read_stored(&key)?;
            keys.entry(user_id.clone()).or_default().entry(claim.device_id.into()).or_default().insert(key_id, key);
        }
        Ok(keys)
    }

    /// The counts that the owners' syncs show have changed.
    async fn tell_owners(&self, given: &[(Claim, StoredKey)]) {
        let mut owners: Vec<i64> = given.iter().map(|(claim, _)| claim.user_nid).collect();
        owners.sort_unstable();
        owners.dedup();
        if owners.is_empty() {
            return;
        }
        let changes = owners.into_iter().map(|user| Change::User { user }).collect();
        // The keys are given already; the next sync shows the counts in any case.
        if let Err(error) = self.parts.lane.commit(Write { changes, ..Write::default() }).await {
            tracing::warn!(%error, "owners of claimed keys are not woken");
        }
    }
}

fn read_stored(key: &StoredKey) -> Result<(OwnedOneTimeKeyId, Raw<OneTimeKey>), DbError> {
    let corrupt = |what: &str| DbError::Corrupt(format!("one_time_keys: {what}"));
    let key_id =
        OwnedOneTimeKeyId::try_from(format!("{}:{}", key.algorithm, key.key_id)).map_err(|_| corrupt("a key's id"))?;
    let json = Raw::from_json_string(key.json.clone()).map_err(|_| corrupt("a key's JSON"))?;
    Ok((key_id, json))
}
