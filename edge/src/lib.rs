//! Gatehouse's front door: the only process that is exposed.
//!
//! `listener → admission → routing → upstream`; `proxy` calls the last three, and they never call each other.

mod access_log;
mod acme;
mod admission;
mod answer_head;
mod bans;
mod certificate_metrics;
mod certs;
mod chance;
pub mod command;
pub mod config;
mod content;
mod control;
mod conversation;
mod dev;
pub mod doctor;
mod ending;
mod exchange;
mod front;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod gate;
mod header_deadline;
mod http1;
mod http2;
pub mod listener;
mod live;
mod loop_lag;
mod metrics;
mod pace;
mod private_file;
mod proxy;
mod redirect;
mod refusal;
mod reload;
mod reply;
mod routed;
mod routing;
pub mod server;
mod server_name;
mod shedding;
mod status;
pub mod supply;
mod systemd;
pub mod upgrade;
mod upstream;
mod workers;
