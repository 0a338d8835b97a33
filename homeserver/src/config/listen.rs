//! `[listen]`: where the edge reaches this shard.

use gatehouse_shared::net::ListenAddr;
use serde::{Deserialize, Serialize};

/// Where the shard listens, beside what `--listen` adds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ListenConfig {
    /// Unix sockets (`unix:/PATH`, made with mode 0600) and private addresses (`ADDRESS:PORT`). The contract's MAC is
    /// checked on both, but an address on a network is readable for whoever can listen on it.
    pub addresses: Vec<ListenAddr>,
}
