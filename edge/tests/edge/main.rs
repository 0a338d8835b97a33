//! The edge as a process, between real clients over TLS and real shards over Unix sockets.

mod bans;
mod bodies;
mod client;
mod commands;
mod control;
mod doctor;
mod documents;
mod double;
mod edge;
mod headers;
mod layers;
mod lifetime;
mod limits;
mod load;
mod nonsense;
mod paths;
mod policy;
mod proxy_protocol;
mod reload;
mod retries;
mod slow_clients;
mod supervision;
mod telemetry;
mod tls;
mod upgrade;
mod waiting;
