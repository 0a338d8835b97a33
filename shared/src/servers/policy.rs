//! `[servers]`: which other servers may talk to this one.

use serde::{Deserialize, Serialize};

use crate::config::Checker;

/// Which other servers may talk to this one. `*.example.org` stands for every name below `example.org`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerPolicy {
    /// The only server names that may; empty: all that are not denied.
    pub allow: Vec<String>,
    /// Server names that may not.
    pub deny: Vec<String>,
}

impl ServerPolicy {
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
