//! Everything that may change while the edge runs, as one value: a reload swaps it whole, or not at all.
//!
//! A request takes the value once and keeps it to its end, so no request ever sees half of a reload. A subject adds one
//! field and the line that prepares it; whatever may fail fails there, before anything is swapped.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use gatehouse_shared::config::ConfigError;

use crate::admission::prefix_map::PrefixMap;
use crate::admission::request_class::BodyLimits;
use crate::admission::rules::Rules;
use crate::config::EdgeConfig;
use crate::front::{Front, UnusableRoute};
use crate::pace::Pace;

/// What one configuration comes to.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) config: Arc<EdgeConfig>,
    /// Limits and jails.
    pub(crate) rules: Arc<Rules>,
    /// Whose `X-Forwarded-For` is believed.
    pub(crate) trusted_proxies: PrefixMap<()>,
    /// What is done with each path of each host.
    pub(crate) front: Front,
    /// The port that clients reach, by the base URL where there is one.
    pub(crate) public_port: Option<u16>,
    pub(crate) body_limits: BodyLimits,
    /// How long a client may send or take nothing within a body.
    pub(crate) body_idle: Duration,
    /// The slowest pace of bodies that is borne.
    pub(crate) pace: Option<Pace>,
    /// How long a request waits while no shard is healthy.
    pub(crate) hold: Duration,
}

/// The value in use.
pub(crate) type Current = Arc<ArcSwap<Live>>;

/// Why a configuration that was read cannot be put to use.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// The policy cannot be used.
    #[error("cannot use the policy (admission.policy)")]
    Policy(#[from] ConfigError),
    /// A route cannot be used.
    #[error(transparent)]
    Route(#[from] UnusableRoute),
}

impl Live {
    /// Makes everything that `config` asks for; changes nothing yet.
    pub(crate) fn prepare(config: Arc<EdgeConfig>) -> Result<Self, LiveError> {
        let policy = config.admission.load_policy()?;
        Ok(Self {
            rules: Arc::new(Rules::new(&policy)),
            trusted_proxies: config.admission.trusted_proxies.iter().copied().collect(),
            front: Front::new(&config)?,
            public_port: public_port(&config),
            body_limits: BodyLimits { upload: config.limits.max_upload_bytes },
            body_idle: Duration::from_secs(config.limits.body_idle_seconds),
            pace: Pace::new(&policy.connections),
            hold: Duration::from_secs(config.upstream.hold_seconds),
            config,
        })
    }

    pub(crate) fn into_current(self) -> Current {
        Arc::new(ArcSwap::from_pointee(self))
    }
}

fn public_port(config: &EdgeConfig) -> Option<u16> {
    let base_url = config.server.base_url.as_deref()?.parse::<http::Uri>().ok()?;
    Some(base_url.port_u16().unwrap_or(443))
}
