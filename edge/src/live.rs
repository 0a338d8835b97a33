//! Everything that may change while the edge runs, as one value: a reload swaps it whole, or not at all.
//!
//! A request takes the value once and keeps it to its end, so no request ever sees half of a reload. A subject adds one
//! field and the line that prepares it; whatever may fail fails there, before anything is swapped.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::admission::request_class::BodyLimits;
use crate::config::EdgeConfig;
use crate::front::{Front, UnusableRoute};

/// What one configuration comes to.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) config: Arc<EdgeConfig>,
    /// What is done with each path of each host.
    pub(crate) front: Front,
    pub(crate) body_limits: BodyLimits,
    /// How long a client may send or take nothing within a body.
    pub(crate) body_idle: Duration,
    /// How long a request waits while no shard is healthy.
    pub(crate) hold: Duration,
}

/// The value in use.
pub(crate) type Current = Arc<ArcSwap<Live>>;

/// Why a configuration that was read cannot be put to use.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// A route cannot be used.
    #[error(transparent)]
    Route(#[from] UnusableRoute),
}

impl Live {
    /// Makes everything that `config` asks for; changes nothing yet.
    pub(crate) fn prepare(config: Arc<EdgeConfig>) -> Result<Self, LiveError> {
        Ok(Self {
            front: Front::new(&config)?,
            body_limits: BodyLimits { upload: config.limits.max_upload_bytes },
            body_idle: Duration::from_secs(config.limits.body_idle_seconds),
            hold: Duration::from_secs(config.upstream.hold_seconds),
            config,
        })
    }

    pub(crate) fn into_current(self) -> Current {
        Arc::new(ArcSwap::from_pointee(self))
    }
}
