//! One shard of a Gatehouse homeserver. docs/architecture.md says which room may use which.

pub mod accounts;
pub mod api;
pub mod app;
pub mod command;
pub mod config;
pub mod e2ee;
pub mod ephemeral;
pub mod federation;
pub mod media;
pub mod membership;
pub mod moderation;
pub mod remote;
pub mod rooms;
pub mod rules;
pub mod server;
pub mod storage;
pub mod stream;
