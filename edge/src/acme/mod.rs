//! Orders certificates from authorities by ACME (RFC 8555) and keeps them renewed.
//!
//! `keeper` decides when and from whom, by `renewal` and `attempts`, which are pure; `order` does it; `challenge` answers
//! the authority's questions; `store` keeps what must outlive the process.

mod account;
mod attempts;
pub(crate) mod challenge;
mod http_client;
pub(crate) mod keeper;
mod order;
mod renewal;
pub(crate) mod store;
