//! Gatehouse's front door: the only process that is exposed.
//!
//! `listener → admission → routing → upstream`; `proxy` calls the last three, and they never call each other.

mod admission;
mod chance;
pub mod command;
pub mod config;
mod control;
mod dev;
pub mod doctor;
mod exchange;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod header_deadline;
pub mod listener;
mod live;
mod metrics;
mod proxy;
mod redirect;
mod refusal;
mod reload;
mod reply;
mod routing;
pub mod server;
mod server_name;
mod status;
mod systemd;
pub mod upgrade;
mod upstream;
