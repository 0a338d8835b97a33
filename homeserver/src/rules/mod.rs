//! Decides what a room's rules say about events: no I/O, no clock, no chance; events in, verdicts out.
//!
//! ruma's crates decide wherever they can. What is written here is what they leave to a server: the stored form of an
//! event, its checks on receipt, state resolution of room version 1, visibility, and push rules fit for a hot path.
//!
//! Known limit: numbers. ruma's canonical JSON holds integers of ±(2^53 - 1) only, which is the specification from room
//! version 6 on. Room versions 1 to 5 never said what floats and larger integers look like when signed; events that
//! hold them are refused in every version.

pub mod auth;
pub mod canonical;
pub mod membership;
pub mod pdu;
pub mod power;
pub mod push;
pub mod redaction;
pub mod resolve;
pub mod room_version;
pub mod server_acl;
pub mod signatures;
pub mod stripped_state;
#[cfg(test)]
mod testing;
pub mod visibility;
