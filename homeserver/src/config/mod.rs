//! The shard's configuration: one file per section, and the checks that types alone cannot express.

use std::path::{Path, PathBuf};

use gatehouse_shared::{
    config::{Checker, ConfigError, Secret, load_checked},
    contract::ClusterSecret,
    telemetry::TelemetryConfig,
};
use ruma::OwnedServerName;
use serde::{Deserialize, Serialize};

mod database;
mod federation;
mod listen;
mod media;
mod registration;
mod voip;

pub use self::{
    database::DatabaseConfig,
    federation::FederationConfig,
    listen::ListenConfig,
    media::MediaConfig,
    registration::{RegistrationConfig, RegistrationMode},
    voip::VoipConfig,
};

/// Everything that `gatehouse-homeserver run` reads.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The server name: the part of every user id after the colon. It cannot be changed later.
    pub server_name: OwnedServerName,
    /// Folder for what the server keeps beside a database of its own: the signing key, media, and the SQLite file.
    pub data_folder: PathBuf,
    /// The secret that every edge and shard of this cluster holds; at least 32 bytes. Left out: that of the environment's
    /// `GATEHOUSE_CLUSTER_SECRET`, which an edge gives to the shards that it starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_secret: Option<Secret>,
    /// Where everything is kept.
    #[serde(default)]
    pub database: DatabaseConfig,
    /// Where the shard listens.
    #[serde(default)]
    pub listen: ListenConfig,
    /// Who may make accounts.
    #[serde(default)]
    pub registration: RegistrationConfig,
    /// Uploads.
    #[serde(default)]
    pub media: MediaConfig,
    /// The TURN server through which calls go where they cannot go directly.
    #[serde(default)]
    pub voip: VoipConfig,
    /// Other servers.
    #[serde(default)]
    pub federation: FederationConfig,
    /// Logs, traces and metrics.
    #[serde(default)]
    pub telemetry: TelemetryConfig,
}

/// The environment variable with the cluster secret of a shard whose configuration has none.
pub const SECRET_VARIABLE: &str = "GATEHOUSE_CLUSTER_SECRET";

impl Config {
    /// The cluster secret, of the configuration or else of the environment.
    pub fn cluster_secret(&self) -> Option<Secret> {
        self.cluster_secret.clone().or_else(|| std::env::var(SECRET_VARIABLE).ok().map(Secret::new))
    }

    /// The folder for media.
    pub fn media_folder(&self) -> PathBuf {
        self.media.folder.clone().unwrap_or_else(|| self.data_folder.join("media"))
    }

    /// The file with the key that signs this server's events and requests.
    pub fn signing_key(&self) -> PathBuf {
        self.federation.signing_key.clone().unwrap_or_else(|| self.data_folder.join("signing.key"))
    }
}

/// Reads and checks the file at `path`.
///
/// # Errors
/// When it cannot be read, or with every mistake in it.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    load_checked(path, check)
}

fn check(config: &Config, checker: &mut Checker<'_>) {
    if config.cluster_secret.as_ref().is_some_and(|secret| ClusterSecret::new(secret).is_none()) {
        checker.reject("cluster_secret", format_args!("must have at least {} bytes", ClusterSecret::MIN_BYTES));
    }
    config.database.check(checker);
    config.registration.check(checker);
    config.media.check(checker);
    config.voip.check(checker);
    config.federation.check(checker);
}

#[cfg(test)]
mod tests;
