//! Fetches the device lists of other servers' users, and claims their devices' keys.
//!
//! Fetched lists are kept and followed (see `device_lists`), so a query asks another server only about users whose list
//! was never fetched, missed an update, or is not followed because no local user shares a room with them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use ruma::{
    OwnedServerName, OwnedUserId, ServerName,
    api::federation::{device::get_devices, keys::claim_keys},
};
use serde_json::{Value as JsonValue, json};

use super::{
    DeviceListOfUser, E2ee,
    one_time_keys::{ClaimedKeys, KeysOfDevices, WantedKeys},
};
use crate::{
    remote::{Blame, FederationClient, Patience, RequestError},
    storage::{DbError, device_lists},
    stream::CommitError,
};

/// Servers that one request asks at the same time.
const ASKED_AT_A_TIME: usize = 32;

/// By server name, why it could not be asked.
type Failures = BTreeMap<String, JsonValue>;

/// Why a user's device list could not be fetched.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("other servers are not asked")]
    NoClient,
    #[error("the server did not answer in time")]
    TooLate,
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl E2ee {
    /// Lets queries and claims ask other servers.
    #[must_use]
    pub fn asking(mut self, client: FederationClient) -> Self {
        self.client = Some(client);
        self
    }

    /// Fetches the device lists of those of `users` whose stored list may be old, and stores them. Returns, by server,
    /// why its users' lists could not be fetched.
    pub(super) async fn bring_up_to_date(&self, users: &[OwnedUserId], timeout: Duration) -> Result<Failures, DbError> {
        if users.is_empty() {
            return Ok(Failures::new());
        }
        // A user who was never seen gets no number for being asked about.
        let mut nids = Vec::with_capacity(users.len());
        for user_id in users {
            nids.push(self.parts.names.find(user_id).await?);
        }
        let seen: Vec<i64> = nids.iter().flatten().copied().collect();
        let current: BTreeSet<i64> =
            device_lists::list_current_remote(&self.parts.db, &seen).await?.into_iter().collect();
        let mut old: BTreeMap<OwnedServerName, Vec<OwnedUserId>> = BTreeMap::new();
        for (user_id, nid) in users.iter().zip(&nids) {
            if !nid.is_some_and(|nid| current.contains(&nid)) {
                old.entry(user_id.server_name().to_owned()).or_default().push(user_id.clone());
            }
        }
        let asked = stream::iter(old).map(|(server, users)| async move {
            let fetched = tokio::time::timeout(timeout, self.fetch_device_lists(&server, &users)).await;
            (server, fetched.unwrap_or(Err(FetchError::TooLate)))
        });
        let answers: Vec<_> = asked.buffer_unordered(ASKED_AT_A_TIME).collect().await;
        let failed = answers.into_iter().filter_map(|(server, result)| Some((server, result.err()?)));
        Ok(failed.map(|(server, error)| failure(&server, &error)).collect())
    }

    /// Asks a server for the lists of its users, one after the other. A user whom the server does not know has none.
    async fn fetch_device_lists(&self, server: &ServerName, users: &[OwnedUserId]) -> Result<(), FetchError> {
        let client = self.client.as_ref().ok_or(FetchError::NoClient)?;
        for user_id in users {
            let asked_at = self.parts.stream.positions();
            let request = get_devices::v1::Request::new(user_id.clone());
            match client.send(server, request, Patience::Brief).await {
                Ok(answer) if answer.user_id == *user_id => {
                    self.store_device_list(user_id, to_list(answer), &asked_at).await?;
                }
                Ok(_) => tracing::debug!(user.id = %user_id, "a server answered with another user's devices"),
                Err(error) if error.blame() == Blame::Peer => {
                    tracing::debug!(user.id = %user_id, %error, "a server does not tell a user's devices");
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Claims keys from the servers of the wanted users.
    pub(super) async fn claim_remote_keys(&self, wanted: WantedKeys, timeout: Duration) -> ClaimedKeys {
        let mut by_server: BTreeMap<OwnedServerName, WantedKeys> = BTreeMap::new();
        for (user_id, devices) in wanted {
            by_server.entry(user_id.server_name().to_owned()).or_default().insert(user_id, devices);
        }
        let asked = stream::iter(by_server).map(|(server, wanted)| async move {
            let claimed = tokio::time::timeout(timeout, self.claim_from(&server, wanted)).await;
            (server, claimed.unwrap_or(Err(FetchError::TooLate)))
        });
        let answers: Vec<_> = asked.buffer_unordered(ASKED_AT_A_TIME).collect().await;
        let mut all = ClaimedKeys::default();
        for (server, result) in answers {
            match result {
                Ok(keys) => all.one_time_keys.extend(keys),
                Err(error) => all.failures.extend([failure(&server, &error)]),
            }
        }
        all
    }

    async fn claim_from(&self, server: &ServerName, wanted: WantedKeys) -> Result<KeysOfDevices, FetchError> {
        let client = self.client.as_ref().ok_or(FetchError::NoClient)?;
        let answer = client.send(server, claim_keys::v1::Request::new(wanted.clone()), Patience::Brief).await?;
        let mut keys = answer.one_time_keys;
        // A server speaks for the devices that it was asked about.
        keys.retain(|user_id, devices| {
            wanted.get(user_id).is_some_and(|wanted| {
                devices.retain(|device_id, _| wanted.contains_key(device_id));
                !devices.is_empty()
            })
        });
        Ok(keys)
    }
}

fn to_list(answer: get_devices::v1::Response) -> DeviceListOfUser {
    let devices = answer.devices.into_iter();
    DeviceListOfUser {
        stream_id: i64::from(answer.stream_id),
        devices: devices.map(|device| (device.device_id, device.device_display_name, Some(device.keys))).collect(),
        master_key: answer.master_key,
        self_signing_key: answer.self_signing_key,
    }
}

fn failure(server: &ServerName, error: &FetchError) -> (String, JsonValue) {
    tracing::debug!(server.name = %server, %error, "keys of another server's users are missing");
    let message = match error {
        FetchError::TooLate => "The server did not answer in time",
        _ => "The server cannot be asked at the moment",
    };
    (server.to_string(), json!({ "errcode": "M_UNKNOWN", "error": message }))
}
