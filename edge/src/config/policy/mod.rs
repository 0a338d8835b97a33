//! The admission policy, a file of its own: how much each kind of request may cost, and what ends in a ban.

use std::collections::BTreeMap;
use std::path::Path;

use gatehouse_shared::config::{Checker, ConfigError, load_checked};
use gatehouse_shared::servers::ServerPolicy;
use serde::{Deserialize, Serialize};

mod addresses;
mod classes;
mod connections;
mod jails;

pub use addresses::AddressPolicy;
pub use classes::{ClassPolicy, ClassesPolicy, Limit};
pub use connections::ConnectionPolicy;
pub use jails::{Counts, Feed, JailPolicy};

/// Everything that a policy file holds. What is left out has the value that `conf/policy.toml` shows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Which addresses are one client, and which are treated specially.
    pub addresses: AddressPolicy,
    /// Which other servers may talk to this one.
    pub servers: ServerPolicy,
    /// Connections and the pace of bodies.
    pub connections: ConnectionPolicy,
    /// What each class of requests may cost.
    pub classes: ClassesPolicy,
    /// The jails by name. A file that names any has those that it names and no others.
    pub jails: Jails,
}

/// The jails by name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Jails(pub BTreeMap<String, JailPolicy>);

impl Default for Jails {
    fn default() -> Self {
        Self(jails::built_in())
    }
}

impl Policy {
    /// Reads and checks the policy at `path`.
    ///
    /// # Errors
    /// When the file cannot be read, or with every mistake in it.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        load_checked(path, Self::check)
    }

    /// Reads and checks a policy that is in memory.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn parse(text: &str) -> Result<Self, Vec<gatehouse_shared::config::Mistake>> {
        gatehouse_shared::config::parse_checked(text, Self::check)
    }

    fn check(&self, checker: &mut Checker<'_>) {
        self.addresses.check(checker);
        self.servers.check(checker);
        self.connections.check(checker);
        self.classes.check(checker);
        for (name, jail) in &self.jails.0 {
            jail.check(name, checker);
        }
    }
}

#[cfg(test)]
mod tests;
