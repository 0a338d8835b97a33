//! Replaces the running edge by a new process of its program without refusing anybody.
//!
//! The running edge starts the program anew with one end of a socket pair as its standard input, and offers its listening
//! sockets over it. The new process reads and checks its configuration, prepares everything, and says that it is ready, or
//! why it is not; then the old one goes on as if nothing had been. Once it is ready, it is told to go, along with the
//! lifelines of the running shards, all bans and what the jails have counted. From then on it accepts, and the old one finishes what it began and ends;
//! until then each tells the other whom it bans.
//!
//! A pair that only these two processes hold needs no path, hence no permissions.

use serde::{Deserialize, Serialize};

use crate::bans::Legacy;

mod channel;
mod companion;
pub(crate) mod predecessor;
pub(crate) mod successor;

/// The first word, from the old process.
#[derive(Debug, Serialize, Deserialize)]
struct Offer {
    /// One descriptor comes with each.
    listeners: Vec<Offered>,
}

/// A listening socket. The address is the configured one: port 0 is found again by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Offered {
    /// The configuration's key, such as `listen.https`.
    pub(crate) key: String,
    /// What the configuration says under it.
    pub(crate) address: String,
}

/// The second word, from the new process.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    /// Everything is prepared.
    Ready {
        /// Its version.
        version: String,
    },
    /// It cannot serve.
    Failed {
        /// The reason, for the operator.
        message: String,
    },
}

/// The third and last word, from the old process, which accepts nothing any more.
#[derive(Debug, Serialize, Deserialize)]
struct Go {
    /// Two descriptors come with each: the shard's pipe and its process.
    shards: Vec<RunningShard>,
    /// Who is banned, and who is on the way there.
    #[serde(default, rename = "kept")]
    bans: Legacy,
}

#[derive(Debug, Serialize, Deserialize)]
struct RunningShard {
    address: String,
    process_id: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_of_the_version_before_is_understood() {
        let ban = r#"{"offender":{"prefix":"192.0.2.1/32"},"jail":"operator","since_ms":1,"until_ms":null}"#;
        let go: Go = serde_json::from_str(&format!(r#"{{"shards":[],"kept":{{"bans":[{ban}],"past":[]}}}}"#)).unwrap();
        let said = serde_json::to_value(&go).unwrap();
        assert_eq!(said["kept"]["bans"][0]["jail"], "operator");
        assert_eq!(said["kept"]["counted"], serde_json::json!([]));
    }
}
