//! What a finding is: how bad, what was seen, why it matters, and the line that mends it.

use serde::Serialize;

/// How bad a finding is. The order counts: the worst is the greatest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; nothing is wrong.
    Note,
    /// It works, for now or for most.
    Warning,
    /// Somebody cannot reach this server.
    Error,
}

/// A line to write, and the file it belongs into.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mend {
    /// `edge.toml`, `homeserver.toml`, `DNS zone` or `system`.
    pub file: &'static str,
    /// The line itself, or the command.
    pub line: String,
}

impl Mend {
    /// A key of the edge's configuration, with its section.
    pub(crate) fn edge(line: impl Into<String>) -> Self {
        Self { file: "edge.toml", line: line.into() }
    }

    /// A key of the shard's configuration.
    pub(crate) fn homeserver(line: impl Into<String>) -> Self {
        Self { file: "homeserver.toml", line: line.into() }
    }

    /// A record.
    pub(crate) fn zone(line: impl Into<String>) -> Self {
        Self { file: "DNS zone", line: line.into() }
    }

    /// What is neither: a command, or the configuration of something in front.
    pub(crate) fn system(line: impl Into<String>) -> Self {
        Self { file: "system", line: line.into() }
    }
}

/// One thing that is wrong, or worth knowing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// A stable name for scripts, `check-what`.
    pub id: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// Where it was seen: a name, an address, a URL.
    pub at: String,
    /// What was seen.
    pub seen: String,
    /// Why it matters.
    pub why: &'static str,
    /// The line that mends it.
    pub mend: Mend,
}

/// What one check came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The check's name.
    pub check: &'static str,
    /// What was seen in a few words, also when all is well.
    pub summary: String,
    /// What is wrong, the worst first.
    pub findings: Vec<Finding>,
}

impl Verdict {
    pub(crate) fn new(check: &'static str, summary: impl Into<String>, mut findings: Vec<Finding>) -> Self {
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        Self { check, summary: summary.into(), findings }
    }

    /// The worst of its findings.
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }
}
