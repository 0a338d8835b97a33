//! What a run measured: one line per part, as a table for people and as JSON for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What one part of a scenario measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Measurement {
    pub(crate) name: String,
    /// Operations that succeeded.
    pub(crate) operations: u64,
    pub(crate) errors: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) first_error: Option<String>,
    pub(crate) seconds: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p95_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
    /// CPU milliseconds per operation, by the name of the process.
    pub(crate) cpu_ms: BTreeMap<String, f64>,
    /// Resident megabytes at the end, by the name of the process.
    pub(crate) rss_mb: BTreeMap<String, f64>,
    /// Bytes that the database grew by per operation, where that was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) bytes_per_operation: Option<f64>,
}

impl Measurement {
    /// Operations per second.
    pub(crate) fn rate(&self) -> f64 {
        if self.seconds > 0.0 { self.operations as f64 / self.seconds } else { 0.0 }
    }

    /// The measurement in one line of text.
    pub(crate) fn line(&self) -> String {
        let mut line = format!(
            "{:<28} {:>8} {:>10.1} {:>9.2} {:>9.2} {:>9.2} {:>6}",
            self.name,
            self.operations,
            self.rate(),
            self.p50_ms,
            self.p95_ms,
            self.p99_ms,
            self.errors,
        );
        let cpu: Vec<String> = self.cpu_ms.iter().map(|(name, cpu)| format!("{name} {cpu:.3}")).collect();
        let rss: Vec<String> = self.rss_mb.iter().map(|(name, rss)| format!("{name} {rss:.0}")).collect();
        let _ = write!(line, "  {:<36} {}", cpu.join(" + "), rss.join(" "));
        if let Some(bytes) = self.bytes_per_operation {
            let _ = write!(line, "  {bytes:.0} bytes each");
        }
        if let Some(error) = &self.first_error {
            let _ = write!(line, "  first error: {error}");
        }
        line
    }
}

/// Why a report could not be read or written.
#[derive(Debug, Error)]
pub(crate) enum ReportError {
    #[error("the report {file}: {source}")]
    File { file: String, source: std::io::Error },
    #[error("the report {file} is not one: {source}")]
    Json { file: String, source: serde_json::Error },
}

/// Everything that was measured on one server.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) label: String,
    pub(crate) measurements: Vec<Measurement>,
}

impl Report {
    pub(crate) fn new(label: &str) -> Self {
        Self { label: label.to_owned(), measurements: Vec::new() }
    }

    pub(crate) fn read(file: &Path) -> Result<Self, ReportError> {
        let name = || file.display().to_string();
        let text = fs::read(file).map_err(|source| ReportError::File { file: name(), source })?;
        serde_json::from_slice(&text).map_err(|source| ReportError::Json { file: name(), source })
    }

    pub(crate) fn write(&self, file: &Path) -> Result<(), ReportError> {
        let name = || file.display().to_string();
        let text = serde_json::to_vec_pretty(self).map_err(|source| ReportError::Json { file: name(), source })?;
        fs::write(file, text).map_err(|source| ReportError::File { file: name(), source })
    }

    /// Adds a measurement, in the place of an earlier one of the same name.
    pub(crate) fn put(&mut self, measurement: Measurement) {
        match self.measurements.iter_mut().find(|present| present.name == measurement.name) {
            Some(present) => *present = measurement,
            None => self.measurements.push(measurement),
        }
    }

    pub(crate) fn find(&self, name: &str) -> Option<&Measurement> {
        self.measurements.iter().find(|measurement| measurement.name == name)
    }

    pub(crate) fn table(&self) -> String {
        let mut table = format!(
            "{}\n{:<28} {:>8} {:>10} {:>9} {:>9} {:>9} {:>6}  {:<36} {}\n",
            self.label, "part", "count", "per s", "p50 ms", "p95 ms", "p99 ms", "errors", "CPU ms each", "RSS MB",
        );
        for measurement in &self.measurements {
            table.push_str(&measurement.line());
            table.push('\n');
        }
        table
    }
}
