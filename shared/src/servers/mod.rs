//! Which other servers this one has to do with: the table `[servers]` of an admission policy. The edge refuses what comes
//! from the others, and the homeserver sends nothing to them.

mod names;
mod policy;

pub use names::ServerNames;
pub use policy::ServerPolicy;
