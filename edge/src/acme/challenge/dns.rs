//! DNS-01: sets the record `_acme-challenge.NAME` by dynamic update or by a command (RFC 8555, section 8.4).

mod hook;
mod update;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gatehouse_shared::clock::Clock;
use tokio::time::{Instant, sleep};

use crate::config::DnsConfig;

/// Why a record cannot be set.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DnsError {
    /// There is no `dns` section.
    #[error("nothing says how records are set (tls.acme.dns)")]
    NotConfigured,
    /// The command does not start.
    #[error("cannot run {program} (tls.acme.dns.hook)")]
    HookStart {
        /// The program.
        program: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The command failed.
    #[error("{program} {action} ended with {status}: {told} (tls.acme.dns.hook)")]
    Hook {
        /// The program.
        program: String,
        /// `present` or `cleanup`.
        action: &'static str,
        /// How it ended.
        status: String,
        /// The end of what it wrote.
        told: String,
    },
    /// The name or the zone is none, or the one is not in the other.
    #[error("{0} does not belong into the zone (tls.acme.dns.rfc2136.zone)")]
    Zone(String),
    /// The key cannot be used.
    #[error("cannot use the key for updates (tls.acme.dns.rfc2136.key)")]
    Key(#[source] BoxedError),
    /// The name server cannot be spoken to.
    #[error("cannot speak to the name server {server}")]
    Exchange {
        /// The server.
        server: String,
        /// The reason.
        source: BoxedError,
    },
    /// The name server refuses.
    #[error("the name server {server} answers {code}")]
    Refused {
        /// The server.
        server: String,
        /// The response code.
        code: String,
    },
    /// A name server does not show the record.
    #[error("the name server {server} does not show {name} within {seconds} s (tls.acme.dns.visible_at)")]
    NotSeen {
        /// The server.
        server: SocketAddr,
        /// The record.
        name: String,
        /// How long it was waited for.
        seconds: u64,
    },
}

type BoxedError = Box<dyn std::error::Error + Send + Sync>;

/// A record that stands until it is deleted.
pub(super) struct DnsRecord {
    config: DnsConfig,
    name: String,
    value: String,
    clock: Arc<dyn Clock>,
}

const LOOK_EVERY: Duration = Duration::from_millis(500);

impl DnsRecord {
    pub(super) async fn set(
        config: &DnsConfig,
        host: &str,
        value: String,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, DnsError> {
        let record = Self { config: config.clone(), name: format!("_acme-challenge.{host}."), value, clock };
        match &config.rfc2136 {
            Some(update) => update::add(update, &record.name, &record.value, record.clock.now()).await?,
            None => hook::run(&config.hook, "present", &record.name, &record.value).await?,
        }
        Ok(record)
    }

    /// Waits until every name server of `visible_at` shows it.
    pub(super) async fn seen(&self) -> Result<(), DnsError> {
        let until = Instant::now() + Duration::from_secs(self.config.visible_seconds);
        for server in &self.config.visible_at {
            while !update::shows(*server, &self.name, &self.value).await {
                if Instant::now() >= until {
                    let (name, seconds) = (self.name.clone(), self.config.visible_seconds);
                    return Err(DnsError::NotSeen { server: *server, name, seconds });
                }
                sleep(LOOK_EVERY).await;
            }
        }
        Ok(())
    }

    pub(super) async fn delete(&self) -> Result<(), DnsError> {
        match &self.config.rfc2136 {
            Some(update) => update::delete(update, &self.name, &self.value, self.clock.now()).await,
            None => hook::run(&self.config.hook, "cleanup", &self.name, &self.value).await,
        }
    }
}
