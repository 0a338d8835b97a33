//! How an operator speaks with a running edge: commands over a Unix socket, one JSON line each way.

pub(crate) mod client;
pub(crate) mod desk;
pub(crate) mod protocol;
pub(crate) mod socket;
