//! The shards behind the edge: which are healthy, which one serves a key, and what each request tells it.

pub(crate) mod connect_error;
pub(crate) mod headers;
pub(crate) mod health;
pub(crate) mod pool;
pub(crate) mod shard_process;
pub(crate) mod supervise;
