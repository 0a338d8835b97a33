//! Decides what a user's presence is when devices say with their syncs what they think it is (`set_presence`).
//!
//! Only who says something is heard: a sync that leaves the parameter out changes nothing, so that syncing stays a read.

use std::{collections::HashMap, time::Duration};

use ruma::presence::PresenceState;

use super::{Ephemeral, PresenceError};
use crate::storage::presence;

/// Users whose devices are remembered; past it all are forgotten, and looked up when they say something again.
const USERS_REMEMBERED: usize = 10_000;

/// How long what a device said counts: one that is gone without a word does not keep its user online.
const HEARD_FOR: Duration = Duration::from_secs(300);

/// What the devices of each user said last, and when, in milliseconds since the Unix epoch.
pub(super) type Devices = HashMap<i64, HashMap<String, (PresenceState, u64)>>;

impl Ephemeral {
    /// Notes what a device says with a sync. The user is as present as the most present device; nothing is written unless
    /// that changes something.
    ///
    /// # Errors
    /// See [`PresenceError`].
    pub async fn set_presence_of_device(
        &self,
        user_nid: i64,
        device_id: &str,
        state: &PresenceState,
    ) -> Result<(), PresenceError> {
        if rank(state) == 0 && *state != PresenceState::Offline {
            return Err(PresenceError::State);
        }
        let Some(wanted) = self.note_device(user_nid, device_id, state) else { return Ok(()) };
        let set = self.set_unless_it_is(user_nid, &wanted).await;
        if set.is_err() {
            // The next sync tries again.
            self.shared.devices.lock().remove(&user_nid);
        }
        set
    }

    /// What the user's presence has to be, if what the device says may have changed it.
    fn note_device(&self, user_nid: i64, device_id: &str, state: &PresenceState) -> Option<PresenceState> {
        let mut users = self.shared.devices.lock();
        if users.len() >= USERS_REMEMBERED && !users.contains_key(&user_nid) {
            users.clear();
        }
        let devices = users.entry(user_nid).or_default();
        let most = |devices: &HashMap<String, (PresenceState, u64)>| {
            devices.values().map(|(state, _)| state).max_by_key(|state| rank(state)).cloned()
        };
        let before = most(devices);
        let now_ms = self.parts().clock.now_ms();
        devices.retain(|_, (_, heard_ms)| u128::from(now_ms.saturating_sub(*heard_ms)) < HEARD_FOR.as_millis());
        devices.insert(device_id.to_owned(), (state.clone(), now_ms));
        most(devices).filter(|after| before.as_ref() != Some(after))
    }

    async fn set_unless_it_is(&self, user_nid: i64, state: &PresenceState) -> Result<(), PresenceError> {
        let row = presence::find(&self.parts().db, user_nid).await?;
        let known = row.as_ref().map_or(PresenceState::Offline.as_str(), |row| &row.presence);
        if known == state.as_str() {
            return Ok(());
        }
        self.set_presence(user_nid, state, row.as_ref().and_then(|row| row.status_msg.as_deref())).await
    }
}

/// How present a state is.
fn rank(state: &PresenceState) -> u8 {
    match state {
        PresenceState::Online => 2,
        PresenceState::Unavailable => 1,
        _ => 0,
    }
}
