//! Real processes for tests: a PostgreSQL of one's own, the edge with its shards, Synapse. Nothing here is mocked.
//!
//! A test target takes this as the package `gatehouse-test-support`. Every process that is started here ends when the
//! test process ends, however that happens: its keeper reads a pipe that only the test process holds.

pub mod postgres;
