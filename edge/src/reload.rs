//! Reads the whole configuration again and swaps it as one, on SIGHUP and on the operator's command. A mistake anywhere
//! in it changes nothing.

use std::path::PathBuf;
use std::sync::Arc;

use gatehouse_shared::config::ConfigError;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::signal::unix::Signal;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::access_log::{AccessLog, AccessLogError, Destination};
use crate::config::{self, EdgeConfig, chain_of};
use crate::live::{Current, Live, LiveError};
use crate::supply::{Supply, SupplyError};
use crate::upstream::supervise::Supervised;

/// What takes effect with the next start or upgrade only: sections or single keys.
const FIXED: [&str; 15] = [
    "admission.state_folder",
    "admission.nftables",
    "listen",
    "upstream.shards",
    "upstream.health_interval_ms",
    "upstream.connect_timeout_ms",
    "upstream.slow_start_seconds",
    "upstream.failures",
    "upstream.retry_percent",
    "upstream.retry_burst",
    "upstream.tls",
    "supervise",
    "telemetry",
    "control",
    "limits",
];
/// Exceptions within those.
const NOT_FIXED: [&str; 4] =
    ["limits.max_upload_bytes", "limits.body_idle_seconds", "limits.drain_seconds", "limits.upgrade_drain_seconds"];

/// What a reload came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reloaded {
    /// How many certificates are in use now.
    pub(crate) certificates: usize,
    /// Keys that differ from what the edge was started with, and wait for `gatehouse upgrade`.
    pub(crate) needs_upgrade: Vec<String>,
}

/// Why everything stayed as it was.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReloadError {
    /// The configuration holds mistakes, or cannot be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A certificate cannot be used.
    #[error(transparent)]
    Certificates(#[from] SupplyError),
    /// The access log cannot be opened.
    #[error("cannot open the access log")]
    AccessLog(#[from] AccessLogError),
    /// Something that the configuration asks for cannot be made.
    #[error(transparent)]
    Live(#[from] LiveError),
    /// The edge is being taken down.
    #[error("the edge is stopping")]
    Stopping,
}

/// Knows where the configuration is and what is made from it.
pub(crate) struct Reloader {
    pub(crate) file: PathBuf,
    pub(crate) started_with: Arc<EdgeConfig>,
    pub(crate) live: Current,
    pub(crate) supply: Supply,
    pub(crate) access_log: Arc<AccessLog>,
    /// The shards that are told to read again what is theirs of it.
    pub(crate) supervised: Vec<Supervised>,
    /// One at a time, so that an older configuration never replaces a newer one.
    pub(crate) turn: tokio::sync::Mutex<()>,
}

impl Reloader {
    /// Reads everything, then swaps everything.
    pub(crate) async fn reload(self: &Arc<Self>) -> Result<Reloaded, ReloadError> {
        let _turn = self.turn.lock().await;
        let own = self.clone();
        let reloaded = tokio::task::spawn_blocking(move || own.read_and_swap()).await;
        // It ends early only when the runtime is taken down.
        let reloaded = reloaded.unwrap_or(Err(ReloadError::Stopping))?;
        info!(certificates = reloaded.certificates, "the configuration was read again");
        if !reloaded.needs_upgrade.is_empty() {
            warn!(keys = ?reloaded.needs_upgrade, "these changes wait for `gatehouse upgrade`");
        }
        Ok(reloaded)
    }

    fn read_and_swap(&self) -> Result<Reloaded, ReloadError> {
        let config = Arc::new(config::load(&self.file)?);
        let certificates = self.supply.prepare(&config)?;
        let access_log = Destination::open(config.access_log.as_ref())?;
        let live = Live::prepare(config.clone())?;
        // From here on nothing can fail.
        let certificates = self.supply.apply(certificates);
        self.live.store(Arc::new(live));
        self.access_log.replace(access_log);
        self.supervised.iter().for_each(Supervised::reload);
        let needs_upgrade = fixed_changes(&self.started_with, &config);
        Ok(Reloaded { certificates, needs_upgrade })
    }

    /// Reloads on each SIGHUP until `stop`.
    pub(crate) async fn on_hangup(self: Arc<Self>, mut hangup: Signal, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = hangup.recv() => {}
            }
            if let Err(error) = self.reload().await {
                error!(error = chain_of(&error), "the configuration stays as it was");
            }
        }
    }
}

/// The keys of [`FIXED`] in which two configurations differ.
fn fixed_changes(before: &EdgeConfig, after: &EdgeConfig) -> Vec<String> {
    let mut changed = Vec::new();
    if before.upstream.cluster_secret != after.upstream.cluster_secret {
        // Secrets are not written into values, so that the walk below cannot see these.
        changed.push("upstream.cluster_secret".to_owned());
    }
    if before.admission.shared_database != after.admission.shared_database {
        changed.push("admission.shared_database".to_owned());
    }
    // A configuration that was read can be written; were it not so, nothing would be said.
    let (before, after) = (serde_json::to_value(before), serde_json::to_value(after));
    walk(&before.unwrap_or_default(), &after.unwrap_or_default(), "", &mut changed);
    changed.retain(|key| is_fixed(key));
    changed
}

fn is_fixed(key: &str) -> bool {
    let within =
        |section: &&str| key.strip_prefix(*section).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    matches!(key, "upstream.cluster_secret" | "admission.shared_database")
        || FIXED.iter().any(within) && !NOT_FIXED.contains(&key)
}

fn walk(before: &Value, after: &Value, path: &str, changed: &mut Vec<String>) {
    if before == after {
        return;
    }
    let (Value::Object(before), Value::Object(after)) = (before, after) else {
        changed.push(path.to_owned());
        return;
    };
    let added = after.keys().filter(|key| !before.contains_key(*key));
    for key in before.keys().chain(added) {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        walk(before.get(key).unwrap_or(&Value::Null), after.get(key).unwrap_or(&Value::Null), &path, changed);
    }
}

#[cfg(test)]
mod tests {
    use gatehouse_shared::config::parse_checked;

    use super::*;

    fn config(text: &str) -> EdgeConfig {
        let text = format!(
            "[server]\nname = \"a\"\n[listen]\nhttp = [\"127.0.0.1:1\"]\n[upstream]\ncluster_secret = \"s\"\n{text}"
        );
        parse_checked(&text, |_, _| {}).unwrap()
    }

    #[test]
    fn only_what_a_reload_cannot_change_waits_for_an_upgrade() {
        let before = config("[limits]\nmax_upload_bytes = 1\n");
        let after = config("[limits]\nmax_upload_bytes = 2\nmax_connections = 3\n[telemetry]\nlog_filter = \"warn\"\n");
        assert_eq!(fixed_changes(&before, &after), ["limits.max_connections", "telemetry.log_filter"]);
        assert!(fixed_changes(&before, &before).is_empty());
    }

    #[test]
    fn another_secret_is_noticed_and_not_told() {
        let mut after = config("");
        after.upstream.cluster_secret = gatehouse_shared::config::Secret::new("other");
        assert_eq!(fixed_changes(&config(""), &after), ["upstream.cluster_secret"]);
    }
}
