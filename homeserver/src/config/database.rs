//! `[database]`: which engine, and how much of it.

use std::path::PathBuf;

use gatehouse_shared::config::{Checker, Secret};
use serde::{Deserialize, Serialize};

/// Where everything is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DatabaseConfig {
    /// The SQLite file. Left out: `gatehouse.db` in the data folder, unless `postgres` is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sqlite: Option<PathBuf>,
    /// A PostgreSQL URL, `postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=require`; needed for more than one shard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub postgres: Option<Secret>,
    /// Connections of this shard: to PostgreSQL, or reading the SQLite file beside its one writer.
    pub connections: usize,
}

impl Default for DatabaseConfig {
    fn default() -> Self {
        Self { sqlite: None, postgres: None, connections: 8 }
    }
}

impl DatabaseConfig {
    pub(super) fn check(&self, checker: &mut Checker<'_>) {
        if self.sqlite.is_some() && self.postgres.is_some() {
            checker.reject("database.postgres", "give either `sqlite` or `postgres`, not both");
        }
        if let Some(url) = &self.postgres
            && let Err(error) = url.expose().parse::<tokio_postgres::Config>()
        {
            checker.reject("database.postgres", error);
        }
        if !(2..=1000).contains(&self.connections) {
            checker.reject("database.connections", "must be between 2 and 1000");
        }
    }
}
