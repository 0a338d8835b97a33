//! Other projects' clients and servers against the real thing: the edge, its shards, their databases, over TLS.
//!
//! `setup.sh` beside this file installs those projects first.

mod clients;
mod federation;
mod registration;
