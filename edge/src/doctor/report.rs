//! What the doctor tells: for a person as a table with the findings below it, for a machine as JSON.

use std::fmt::Write as _;

use serde::Serialize;

use super::discovery::Route;
use super::finding::{Finding, Severity, Verdict};

/// Everything that was found out about a server.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The name that was asked about.
    pub server_name: String,
    /// Whether no check found an error.
    pub ok: bool,
    /// Findings that keep somebody away.
    pub errors: usize,
    /// Findings that will, or that keep few away.
    pub warnings: usize,
    /// Where other servers connect; `None` when the name is none.
    pub route: Option<RouteTold>,
    /// The checks in order.
    pub checks: Vec<Verdict>,
}

/// Where other servers connect.
#[derive(Debug, Clone, Serialize)]
pub struct RouteTold {
    /// The step of the specification's "Resolving server names" that decides.
    pub step: &'static str,
    /// What the `Host` header says.
    pub host: String,
    /// The name that the certificate must hold.
    pub certificate: String,
    /// `HOST:PORT`, in order of trial.
    pub targets: Vec<String>,
}

impl RouteTold {
    pub(crate) fn new(route: &Route) -> Self {
        Self {
            step: route.step,
            host: route.host_header.clone(),
            certificate: route.tls_host.clone(),
            targets: route.targets.iter().map(|target| format!("{}:{}", target.host, target.port)).collect(),
        }
    }
}

impl Report {
    pub(crate) fn new(server_name: &str, route: Option<RouteTold>, checks: Vec<Verdict>) -> Self {
        let count = |severity| {
            let findings = checks.iter().flat_map(|verdict| &verdict.findings);
            findings.filter(|finding| finding.severity == severity).count()
        };
        let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
        Self { server_name: server_name.to_owned(), ok: errors == 0, errors, warnings, route, checks }
    }

    /// Whether a script should go on: no errors, nor warnings where `strict`.
    pub fn is_fine(&self, strict: bool) -> bool {
        self.ok && (!strict || self.warnings == 0)
    }

    /// As a person reads it.
    pub fn to_text(&self) -> String {
        let mut text = format!("{}\n\n", self.server_name);
        for verdict in &self.checks {
            let _ = writeln!(text, "  {:7}  {:17}  {}", label(verdict.worst()), verdict.check, verdict.summary);
        }
        let findings: Vec<&Finding> = self.checks.iter().flat_map(|verdict| &verdict.findings).collect();
        for severity in [Severity::Error, Severity::Warning, Severity::Note] {
            for finding in findings.iter().filter(|finding| finding.severity == severity) {
                text.push_str(&told(finding));
            }
        }
        let _ = writeln!(text, "\n{} errors, {} warnings", self.errors, self.warnings);
        text
    }
}

fn label(severity: Option<Severity>) -> &'static str {
    match severity {
        Some(Severity::Error) => "error",
        Some(Severity::Warning) => "warning",
        Some(Severity::Note) => "note",
        None => "ok",
    }
}

fn told(finding: &Finding) -> String {
    let Finding { id, severity, at, seen, why, mend } = finding;
    let severity = label(Some(*severity));
    format!("\n{severity}: {id}\n  at    {at}\n  seen  {seen}\n  why   {why}\n  mend  {}: {}\n", mend.file, mend.line)
}

#[cfg(test)]
mod tests {
    use super::super::finding::Mend;
    use super::*;

    fn report(severity: Severity) -> Report {
        let finding = Finding {
            id: "srv-alias",
            severity,
            at: "_matrix-fed._tcp.example.org".to_owned(),
            seen: "an alias".to_owned(),
            why: "it is refused",
            mend: Mend::zone("x"),
        };
        let fine = Verdict::new("dns", "192.0.2.1", Vec::new());
        Report::new("example.org", None, vec![fine, Verdict::new("srv", "one", vec![finding])])
    }

    #[test]
    fn a_person_reads_checks_first_and_findings_with_their_mend_below() {
        let text = report(Severity::Error).to_text();
        assert!(
            text.contains("  ok       dns                192.0.2.1\n  error    srv                one\n"),
            "{text}"
        );
        assert!(text.contains("error: srv-alias\n  at    _matrix-fed._tcp.example.org\n"), "{text}");
        assert!(text.ends_with("  mend  DNS zone: x\n\n1 errors, 0 warnings\n"), "{text}");
    }

    #[test]
    fn warnings_stop_a_script_only_when_it_is_strict() {
        assert!(!report(Severity::Error).is_fine(false));
        assert!(report(Severity::Warning).is_fine(false));
        assert!(!report(Severity::Warning).is_fine(true));
        assert!(report(Severity::Note).is_fine(true));
    }
}
