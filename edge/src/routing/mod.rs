//! Decides where a request goes: to a document of the edge's own, to a shard and by which key, or nowhere. No I/O.

pub(crate) mod route_table;
pub(crate) mod routing_key;
pub(crate) mod well_known;
