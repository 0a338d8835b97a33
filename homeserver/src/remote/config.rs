//! What the operator decides about calls to other servers.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use ipnet::IpNet;
use ruma::OwnedServerName;

/// How other servers are called.
#[derive(Clone, Debug, Default)]
pub struct RemoteConfig {
    /// Whether other servers are called at all.
    pub is_enabled: bool,
    /// PEM files of certificate authorities that are trusted for other servers, beside those of the operating system.
    pub extra_ca_files: Vec<PathBuf>,
    /// Address ranges that may be called although they are private, loopback or otherwise not of the public internet.
    pub allowed_private_addresses: Vec<IpNet>,
    /// Servers that are asked for the keys of servers which do not answer themselves.
    pub trusted_key_servers: Vec<OwnedServerName>,
    /// DNS servers (`address:port`) to ask instead of the operating system's.
    pub name_servers: Vec<SocketAddr>,
    /// Keys that this server signed with before, by key id (`ed25519:a_AbCd`): events signed with them stay valid.
    pub old_signing_keys: BTreeMap<String, OldSigningKey>,
}

/// A key that this server no longer signs with.
#[derive(Clone, Debug)]
pub struct OldSigningKey {
    /// The public key in unpadded base64.
    pub key: String,
    /// When it was last used, in milliseconds since the Unix epoch.
    pub expired_ts: u64,
}
