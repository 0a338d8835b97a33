//! The contract between edge and shard: which headers travel, how they are signed, and what comes back.

mod forwarded;
mod routing_key;
mod verdict;

pub use forwarded::{
    CLIENT, ClusterSecret, ContractError, Forwarded, HEADER_PREFIX, HOST, HexMac, MAC, REQUEST_ID, SCHEME, Scheme,
    Signed, TRACEPARENT, verify,
};
pub use routing_key::{RoutingKey, mint_prefix, token_routing_key};
pub use verdict::{ORIGIN, VERDICT, Verdict};

/// The environment variable by which the edge tells the shards that it starts the cluster secret.
pub const SECRET_VARIABLE: &str = "GATEHOUSE_CLUSTER_SECRET";

/// The path on which a shard says whether it takes requests: 200 when it does. It needs no MAC and is never forwarded.
pub const HEALTH_PATH: &str = "/_gatehouse/health";
