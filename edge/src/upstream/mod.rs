//! The shards behind the edge: which are healthy, which one serves a key, and what each request tells it.

pub(crate) mod backend;
pub(crate) mod connect_error;
pub(crate) mod headers;
pub(crate) mod health;
mod idle_links;
pub(crate) mod link;
pub(crate) mod pool;
pub(crate) mod retry_budget;
pub(crate) mod shard;
pub(crate) mod shard_process;
pub(crate) mod shard_tls;
pub(crate) mod supervise;
pub(crate) mod tls;
