//! Real processes for tests: a PostgreSQL of one's own, the edge with its shards, Synapse, and clients. Nothing is mocked.
//!
//! A test target takes this as the package `gatehouse-test-support`. Every process that is started here ends when the
//! test process ends, however that happens: its keeper reads a pipe that only the test process holds.

pub mod client;
pub mod disk;
pub mod edge;
pub mod keeper;
pub mod postgres;
pub mod script;
pub mod synapse;
pub mod tls;

mod chance;
mod ports;
