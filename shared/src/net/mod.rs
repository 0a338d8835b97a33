//! Addresses: whose they are, and where to listen.

pub mod client_ip;
pub mod listen_addr;

pub use listen_addr::ListenAddr;
