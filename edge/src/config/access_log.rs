//! `[access_log]`: one line for each request.

use std::path::PathBuf;

use gatehouse_shared::config::Checker;
use serde::{Deserialize, Serialize};

/// One line for each request. Tokens never appear in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessLogConfig {
    /// The file, which lines are added to; it is opened anew on a reload. Left out: the standard output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// `json` or `combined`: one object a line, or what Apache and nginx write.
    #[serde(default)]
    pub format: AccessLogFormat,
    /// `full` or `truncated`: how much of a client's address is written.
    #[serde(default)]
    pub client_address: WrittenAddress,
}

/// How a line looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccessLogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// The combined log format of Apache and nginx.
    Combined,
}

/// How much of a client's address is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WrittenAddress {
    /// All of it.
    #[default]
    Full,
    /// Its network: /24 of IPv4, /48 of IPv6.
    Truncated,
}

impl AccessLogConfig {
    pub(super) fn check(&self, checker: &mut Checker<'_>) {
        let Some(file) = &self.file else { return };
        if !file.is_absolute() {
            checker.reject("access_log.file", "must be an absolute path");
        } else if file.is_dir() {
            checker.reject("access_log.file", "is a folder");
        }
    }
}
