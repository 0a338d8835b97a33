//! Accepts connections, speaks TLS, and hands what it reads to the proxy.

pub(crate) mod application;
pub mod certificate;
pub mod certificates;
pub mod client_certificates;
pub(crate) mod client_io;
mod client_tls;
pub mod development_ca;
pub(crate) mod endpoint;
mod gathered;
mod http1;
mod http2;
mod pingora_session;
pub(crate) mod pipe;
pub mod proxy_protocol;
#[cfg(test)]
mod test_server;
pub(crate) mod tickets;
pub(crate) mod tls;
mod tls_session;
