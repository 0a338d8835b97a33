//! What the edge and the homeserver truly share, and nothing else.

pub mod clock;
pub mod config;
pub mod contract;
pub mod hex;
pub mod limits;
pub mod metrics;
pub mod net;
pub mod servers;
pub mod shutdown;
pub mod telemetry;
