//! The HTTP interface of a shard, page by page of the specification, on both engines.
//!
//! Each test talks to a whole shard (`App`) in this process, through its router, as the edge would.

#[macro_use]
mod harness;

mod admin;
mod bad_input;
mod client;
mod database_away;
mod denied_servers;
mod federation;
mod gate;
mod layers;
mod peer;
mod process;
mod rooms;
mod spec_coverage;
