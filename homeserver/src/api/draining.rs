//! Says whether the shard is about to end.

use tokio_util::sync::CancellationToken;

/// Whether the shard is about to end. From then on it is not healthy any more, and long polls end early with an
/// ordinary empty answer. Clones share the state.
#[derive(Debug, Clone, Default)]
pub struct Draining {
    token: CancellationToken,
}

impl Draining {
    /// Begins the end.
    pub fn begin(&self) {
        self.token.cancel();
    }

    /// Whether the end has begun.
    pub fn has_begun(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Cancelled when the end begins.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Returns when the end begins; at once when it has begun.
    pub async fn begun(&self) {
        self.token.cancelled().await;
    }
}
