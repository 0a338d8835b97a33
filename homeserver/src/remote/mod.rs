//! How other servers are called: where they are, which keys they sign with, which of them are dead. Knows no rooms.

pub mod client;
pub mod config;
pub mod destinations;
pub mod discovery;
mod dns;
pub mod key_ring;
pub mod signing_key;
#[cfg(test)]
pub(crate) mod testing;
pub mod x_matrix;

pub use self::{
    client::{Blame, FederationClient, Patience, RequestError},
    config::RemoteConfig,
    destinations::Destinations,
    discovery::Discovery,
    key_ring::KeyRing,
    signing_key::SigningKey,
    x_matrix::{RequestAuth, RequestAuthError},
};
