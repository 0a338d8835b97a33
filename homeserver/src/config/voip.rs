//! `[voip]`: the TURN server through which calls go where they cannot go directly.

use gatehouse_shared::config::{Checker, Secret};
use serde::{Deserialize, Serialize};

/// The TURN server through which calls go where they cannot go directly.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VoipConfig {
    /// Addresses of the TURN server. Empty: clients are told of none.
    pub turn_uris: Vec<String>,
    /// The secret that the TURN server shares with this server (coturn's `static-auth-secret`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turn_shared_secret: Option<Secret>,
    /// How long a client may use the credentials that it is given, in seconds.
    pub turn_lifetime_seconds: u64,
}

impl Default for VoipConfig {
    fn default() -> Self {
        Self { turn_uris: Vec::new(), turn_shared_secret: None, turn_lifetime_seconds: 3600 }
    }
}

impl VoipConfig {
    pub(super) fn check(&self, checker: &mut Checker<'_>) {
        for (index, uri) in self.turn_uris.iter().enumerate() {
            if !["turn:", "turns:", "stun:", "stuns:"].iter().any(|scheme| uri.starts_with(scheme)) {
                checker.reject(&format!("voip.turn_uris[{index}]"), "must begin with turn:, turns:, stun: or stuns:");
            }
        }
        if !self.turn_uris.is_empty() && self.turn_shared_secret.is_none() {
            checker.reject("voip.turn_uris", "a TURN server needs `turn_shared_secret`");
        }
        if self.turn_lifetime_seconds == 0 {
            checker.reject("voip.turn_lifetime_seconds", "must be at least 1 second");
        }
    }
}
