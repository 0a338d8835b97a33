//! The seam to other servers: keys of their users are fetched and claimed here.
//!
//! Lists of remote users' devices are kept (see `device_lists`), so a query asks another server only about users whose
//! list was never fetched or missed an update.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use ruma::OwnedUserId;
use serde_json::{Value as JsonValue, json};

use super::{
    E2ee,
    one_time_keys::{ClaimedKeys, WantedKeys},
};
use crate::storage::{DbError, device_lists};

impl E2ee {
    /// Fetches the device lists of those of `users` whose stored list may be old, and stores them. Returns, by server,
    /// why its users' lists could not be fetched.
    pub(super) async fn bring_up_to_date(
        &self,
        users: &[OwnedUserId],
        timeout: Duration,
    ) -> Result<BTreeMap<String, JsonValue>, DbError> {
        if users.is_empty() {
            return Ok(BTreeMap::new());
        }
        let borrowed: Vec<&ruma::UserId> = users.iter().map(AsRef::as_ref).collect();
        let nids = self.parts.names.nids(&borrowed).await?;
        let current: BTreeSet<i64> =
            device_lists::list_current_remote(&self.parts.db, &nids).await?.into_iter().collect();
        let old: Vec<&OwnedUserId> =
            users.iter().zip(&nids).filter(|(_, nid)| !current.contains(nid)).map(|(user, _)| user).collect();
        Ok(self.fetch_device_lists(&old, timeout).await)
    }

    /// SEAM: asks the servers of `users` for their device lists, and hands each to [`E2ee::store_device_list`].
    async fn fetch_device_lists(&self, users: &[&OwnedUserId], _timeout: Duration) -> BTreeMap<String, JsonValue> {
        users.iter().map(|user_id| (user_id.server_name().to_string(), unreachable())).collect()
    }

    /// SEAM: claims keys from the servers of the wanted users.
    pub(super) async fn claim_remote_keys(&self, wanted: WantedKeys, _timeout: Duration) -> ClaimedKeys {
        let failures = wanted.keys().map(|user_id| (user_id.server_name().to_string(), unreachable())).collect();
        ClaimedKeys { failures, ..ClaimedKeys::default() }
    }
}

fn unreachable() -> JsonValue {
    json!({ "errcode": "M_UNKNOWN", "error": "The server cannot be reached" })
}
