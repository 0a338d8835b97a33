//! Accepts connections, speaks TLS, and hands what it reads to the proxy.

pub mod certificates;
pub(crate) mod client_io;
pub mod development_ca;
pub(crate) mod endpoint;
pub(crate) mod header_deadline;
pub(crate) mod tls;
