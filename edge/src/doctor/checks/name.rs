//! Whether the server name is one, and one that others can use.

use super::super::finding::{Finding, Mend, Severity, Verdict};
use super::super::observed::Observed;
use crate::server_name::{Host, ServerName, ServerNameError};

const CHECK: &str = "name";
const CHANGE: &str =
    "[server] name = \"example.org\"   # and server_name in homeserver.toml; only before there are users";

/// The verdict on what is no server name; nothing else can be looked at then.
pub(crate) fn refuse(text: &str, error: ServerNameError) -> Verdict {
    let finding = Finding {
        id: "name-invalid",
        severity: Severity::Error,
        at: super::quoted(text),
        seen: error.to_string(),
        why: "other servers refuse every user id and event that bears this name",
        mend: Mend::edge(CHANGE),
    };
    Verdict::new(CHECK, "is not a server name", vec![finding])
}

pub(super) fn judge(observed: &Observed) -> Verdict {
    let name = &observed.name;
    let mut findings: Vec<Finding> =
        [letters(name), literal(name), labels(name), lonely(name)].into_iter().flatten().collect();
    if let Some(expected) = &observed.expected
        && expected.server_name != name.as_str()
    {
        findings.push(Finding {
            id: "name-not-configured",
            severity: Severity::Error,
            at: name.to_string(),
            seen: format!("the configuration is of {}", super::quoted(&expected.server_name)),
            why: "the edge publishes documents for another server than the one that is asked for",
            mend: Mend::edge(format!("[server] name = \"{name}\"   # or ask for {}", expected.server_name)),
        });
    }
    Verdict::new(CHECK, "follows the grammar", findings)
}

fn letters(name: &ServerName) -> Option<Finding> {
    let capital = name.as_str().bytes().any(|byte| byte.is_ascii_uppercase()) && matches!(name.host, Host::Name(_));
    capital.then(|| Finding {
        id: "name-uppercase",
        severity: Severity::Warning,
        at: name.to_string(),
        seen: "there are capital letters in it".to_owned(),
        why: "user ids compare letter by letter, while names of hosts do not, so others take it for a second server",
        mend: Mend::edge(format!("[server] name = \"{}\"", name.as_str().to_ascii_lowercase())),
    })
}

fn literal(name: &ServerName) -> Option<Finding> {
    matches!(name.host, Host::Address(_)).then(|| Finding {
        id: "name-address",
        severity: Severity::Warning,
        at: name.to_string(),
        seen: "it is an address".to_owned(),
        why: "it cannot move to another machine, delegate, or easily get a certificate",
        mend: Mend::edge(CHANGE),
    })
}

fn labels(name: &ServerName) -> Option<Finding> {
    let Host::Name(host) = &name.host else { return None };
    let bad = |label: &str| label.is_empty() || label.len() > 63 || label.starts_with('-') || label.ends_with('-');
    let bad = host.split('.').find(|label| bad(label))?;
    Some(Finding {
        id: "name-label",
        severity: Severity::Error,
        at: name.to_string(),
        seen: format!("its part \"{bad}\" can be in no host name"),
        why: "the DNS cannot hold it (RFC 1123: 1 to 63 letters, digits and inner hyphens)",
        mend: Mend::edge(CHANGE),
    })
}

fn lonely(name: &ServerName) -> Option<Finding> {
    let Host::Name(host) = &name.host else { return None };
    (!host.contains('.')).then(|| Finding {
        id: "name-local",
        severity: Severity::Warning,
        at: name.to_string(),
        seen: "it has no dot".to_owned(),
        why: "no public DNS knows it, so it federates on this network at most",
        mend: Mend::edge(CHANGE),
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{ids, observed};
    use super::*;

    #[test]
    fn names_that_hurt_are_found() {
        for (name, id) in [
            ("Example.org", "name-uppercase"),
            ("192.0.2.1", "name-address"),
            ("-a.example", "name-label"),
            ("a..example", "name-label"),
            ("localhost", "name-local"),
        ] {
            let seen = Observed { name: name.parse().unwrap(), expected: None, ..observed() };
            assert_eq!(ids(&judge(&seen)), [id], "{name}");
        }
        assert!(judge(&observed()).findings.is_empty());
    }

    #[test]
    fn a_configuration_of_another_server_is_found() {
        let mut seen = observed();
        seen.expected.as_mut().unwrap().server_name = "other.example".to_owned();
        assert_eq!(ids(&judge(&seen)), ["name-not-configured"]);
    }
}
