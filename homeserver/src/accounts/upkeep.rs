//! What accounts do in the background: write when devices were seen, and forget what nobody finished.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Accounts, uia::SESSION_LIFETIME_MS};
use crate::storage::{DbError, account_data, uia_sessions};

/// How often devices' last-seen times are written.
const WRITE_SEEN: Duration = Duration::from_secs(60);
/// How many of those turns pass between two prunings.
const TURNS_PER_PRUNING: u32 = 30;

impl Accounts {
    pub(super) async fn keep_up(self, stop: CancellationToken) {
        for turn in (0..TURNS_PER_PRUNING).cycle() {
            let is_last = tokio::select! {
                () = stop.cancelled() => true,
                () = tokio::time::sleep(WRITE_SEEN) => false,
            };
            if let Err(error) = self.inner.sessions.write_seen().await {
                tracing::warn!(%error, "cannot write when devices were last seen");
            }
            if is_last {
                return;
            }
            if turn == 0
                && let Err(error) = self.prune().await
            {
                tracing::warn!(%error, "cannot forget what was begun and never finished");
            }
        }
    }

    async fn prune(&self) -> Result<(), DbError> {
        let now = self.inner.clock.now_ms();
        let mut statements = uia_sessions::prune(now.saturating_sub(SESSION_LIFETIME_MS));
        statements.push(account_data::prune_openid_tokens(now));
        self.inner.db.write(statements).await?;
        Ok(())
    }
}
