//! `[federation]`: how other servers are met.

use std::{collections::BTreeMap, path::PathBuf};

use gatehouse_shared::{
    config::{Checker, ConfigError},
    servers::ServerPolicy,
};
use ipnet::IpNet;
use ruma::OwnedServerName;
use serde::{Deserialize, Serialize};

/// Other servers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FederationConfig {
    /// Whether other servers are called and answered at all.
    pub enabled: bool,
    /// The admission policy, whose table `[servers]` says which servers are called; the edge refuses by the same table.
    /// Left out: all are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<PathBuf>,
    /// The file with the key that signs this server's events and requests, one line as Synapse writes it; made when it
    /// is not there. Left out: `signing.key` in the data folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signing_key: Option<PathBuf>,
    /// Keys that this server signed with before, by key id (`ed25519:a_AbCd`), so that events signed with them stay valid.
    pub old_signing_keys: BTreeMap<String, OldSigningKey>,
    /// PEM file with certificate authorities that are trusted beside the system's, for networks of one's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Private and loopback ranges in which other servers may be; everything private is refused otherwise.
    pub allowed_ranges: Vec<IpNet>,
    /// Servers that are asked for the keys of servers which do not answer themselves.
    pub trusted_key_servers: Vec<OwnedServerName>,
}

/// A key that this server no longer signs with.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OldSigningKey {
    /// The public key in unpadded base64.
    pub key: String,
    /// When it was last used, in milliseconds since the Unix epoch.
    pub expired_ts: u64,
}

impl Default for FederationConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            policy: None,
            signing_key: None,
            old_signing_keys: BTreeMap::new(),
            ca_file: None,
            allowed_ranges: Vec::new(),
            trusted_key_servers: Vec::new(),
        }
    }
}

impl FederationConfig {
    pub(super) fn check(&self, checker: &mut Checker<'_>) {
        if let Some(path) = &self.ca_file
            && let Err(error) = std::fs::metadata(path)
        {
            checker.reject("federation.ca_file", format_args!("cannot read {}: {error}", path.display()));
        }
        if let Some(path) = &self.policy
            && let Err(error) = ServerPolicy::load(path)
        {
            let reason = match &error {
                ConfigError::Read { source, .. } => format!(": {source}"),
                ConfigError::Mistakes { .. } => String::new(),
            };
            checker.reject("federation.policy", format_args!("{error}{reason}"));
        }
    }
}
