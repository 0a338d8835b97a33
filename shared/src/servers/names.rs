//! Which server names a list means.

use std::collections::HashSet;

use super::ServerPolicy;

/// Which other servers may talk to this one, and are talked to.
#[derive(Debug, Default)]
pub struct ServerNames {
    allow: NameSet,
    deny: NameSet,
}

impl ServerNames {
    /// Ready to decide what the policy says.
    pub fn new(policy: &ServerPolicy) -> Self {
        Self { allow: NameSet::new(&policy.allow), deny: NameSet::new(&policy.deny) }
    }

    /// Whether the server of this name may, however the name is spelled.
    pub fn may_talk(&self, name: &str) -> bool {
        if self.allow.is_empty() && self.deny.is_empty() {
            return true;
        }
        let name = name.to_ascii_lowercase();
        !self.deny.contains(&name) && (self.allow.is_empty() || self.allow.contains(&name))
    }
}

#[derive(Debug, Default)]
struct NameSet {
    exact: HashSet<String>,
    /// Without the `*.`.
    below: HashSet<String>,
}

impl NameSet {
    fn new(patterns: &[String]) -> Self {
        let mut set = Self::default();
        for pattern in patterns {
            let pattern = pattern.to_ascii_lowercase();
            match pattern.strip_prefix("*.") {
                Some(below) => set.below.insert(below.to_owned()),
                None => set.exact.insert(pattern),
            };
        }
        set
    }

    fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.below.is_empty()
    }

    /// `name` is in lower case. A port belongs to the name; one below a domain counts with any port. A dot at the end of
    /// a host means the same host.
    fn contains(&self, name: &str) -> bool {
        let host = if name.starts_with('[') { name } else { name.split(':').next().unwrap_or(name) };
        let host = host.strip_suffix('.').unwrap_or(host);
        let mut parents = host.match_indices('.').filter_map(|(dot, _)| host.get(dot + 1..));
        self.exact.contains(name) || self.exact.contains(host) || parents.any(|parent| self.below.contains(parent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(allow: &[&str], deny: &[&str]) -> ServerNames {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        ServerNames::new(&ServerPolicy { allow: owned(allow), deny: owned(deny) })
    }

    #[test]
    fn a_denied_server_is_denied_however_it_spells_itself() {
        let names = names(&[], &["evil.example", "*.spam.example"]);
        for name in [
            "evil.example",
            "EVIL.example",
            "evil.example:8448",
            "evil.example.",
            "a.spam.example",
            "b.a.spam.example.:1",
        ] {
            assert!(!names.may_talk(name), "{name}");
        }
        for name in ["good.example", "notevil.example", "spam.example", "a.evil.example", "[::1]:8448"] {
            assert!(names.may_talk(name), "{name}");
        }
    }

    #[test]
    fn where_some_are_allowed_the_others_are_not() {
        let names = names(&["friend.example", "*.family.example"], &["black.family.example"]);
        assert!(names.may_talk("friend.example") && names.may_talk("x.family.example"));
        assert!(!names.may_talk("stranger.example") && !names.may_talk("black.family.example"));
    }
}
