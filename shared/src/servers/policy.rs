//! `[servers]`: which other servers this one has to do with.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::config::{Checker, ConfigError, load_checked};

/// Which other servers may talk to this one, and are talked to. `*.example.org` stands for every name below
/// `example.org`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerPolicy {
    /// The only server names that may; empty: all that are not denied.
    pub allow: Vec<String>,
    /// Server names that may not.
    pub deny: Vec<String>,
}

impl ServerPolicy {
    /// Reads and checks the table `[servers]` of the admission policy at `path`, and nothing else of it.
    ///
    /// # Errors
    /// When the file cannot be read or is not TOML, or with every mistake in the table.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        #[derive(Deserialize)]
        struct Policy {
            #[serde(default)]
            servers: ServerPolicy,
        }
        load_checked(path, |policy: &Policy, checker| policy.servers.check(checker)).map(|policy| policy.servers)
    }

    /// Rejects what is no pattern.
    pub fn check(&self, checker: &mut Checker<'_>) {
        for (key, patterns) in [("servers.allow", &self.allow), ("servers.deny", &self.deny)] {
            for (index, pattern) in patterns.iter().enumerate() {
                let name = pattern.strip_prefix("*.").unwrap_or(pattern);
                let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']');
                if name.is_empty() || !name.bytes().all(fits) {
                    checker.reject(&format!("{key}[{index}]"), "is neither a server name nor `*.` before one");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_policy_the_servers_are_read_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policy.toml");
        let load = |text: &str| {
            std::fs::write(&path, text).unwrap();
            ServerPolicy::load(&path)
        };
        assert_eq!(
            load("[classes.login]\nclient = { burst = 1, per_second = 1.0 }\n").unwrap(),
            ServerPolicy::default()
        );
        let read = load("[servers]\ndeny = [\"*.evil.example\"]\n[jails.x]\nfeeds = []\n").unwrap();
        assert_eq!(read.deny, ["*.evil.example"]);
        let error = load("[servers]\nallow = [\"good.example\", \"ev*il\"]\n").unwrap_err();
        assert_eq!(
            error.mistakes().iter().map(|mistake| mistake.key.as_str()).collect::<Vec<_>>(),
            ["servers.allow[1]"]
        );
        assert!(load("[servers]\nblock = []\n").is_err());
    }
}
