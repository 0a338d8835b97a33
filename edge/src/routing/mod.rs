//! Decides where a request goes: to a document of the edge's own, to a configured route, to a shard and by which key, or
//! nowhere. No I/O.

pub(crate) mod accept;
pub(crate) mod admin_gate;
pub(crate) mod listener_role;
pub(crate) mod redirection;
pub(crate) mod route_table;
pub(crate) mod routes;
pub(crate) mod routing_key;
pub(crate) mod security_headers;
pub(crate) mod well_known;
