//! Answers what the operator's commands ask: one line a subject.

use std::sync::Arc;
use std::time::Duration;

use super::bans;
use super::protocol::{Answer, Request};
use crate::bans::Bans;
use crate::config::chain_of;
use crate::reload::{ReloadError, Reloader};
use crate::status::Source;
use crate::upgrade::successor::Successor;
use crate::upstream::supervise::Supervised;

/// What the answers are made from.
pub(crate) struct Desk {
    pub(crate) reloader: Arc<Reloader>,
    pub(crate) source: Arc<Source>,
    pub(crate) bans: Arc<Bans>,
    pub(crate) successor: Successor,
    /// How long a restarted shard may take until it serves.
    pub(crate) restart_within: Duration,
}

impl Desk {
    /// Does what is asked and says what came of it.
    pub(crate) async fn answer(&self, request: Request) -> Answer {
        match request {
            Request::Status => Answer::done(&self.source.status().await),
            Request::Reload => self.reload().await,
            Request::Shards => Answer::done(&self.source.shards()),
            Request::Bans => Answer::done(&bans::list(&self.bans)),
            Request::Ban(order) => bans::ban(&self.bans, &order),
            Request::Unban { offender } => bans::unban(&self.bans, &offender),
            Request::Jails { name } => bans::jails(&self.bans, name.as_deref()),
            Request::RestartShards { only } => self.restart_shards(only.as_deref()).await,
            Request::Upgrade => self.upgrade().await,
        }
    }

    /// One after the other: the next one stops when the one before serves again.
    async fn restart_shards(&self, only: Option<&str>) -> Answer {
        let supervised = &self.successor.supervised;
        let meant = |own: &&Supervised| only.is_none_or(|only| own.shard.address().to_string() == only);
        let meant: Vec<&Supervised> = supervised.iter().filter(meant).collect();
        if meant.is_empty() {
            return Answer::refused("this edge supervises no such shard; `gatehouse shards list` shows them all");
        }
        for (done, own) in meant.iter().enumerate() {
            if !own.restart(self.restart_within).await {
                let (shard, left) = (own.shard.address(), meant.len() - done - 1);
                let seconds = self.restart_within.as_secs();
                return Answer::refused(format!(
                    "{shard} does not serve {seconds} s after it was stopped; {left} other shards were left alone"
                ));
            }
        }
        Answer::done(&self.source.shards())
    }

    async fn upgrade(&self) -> Answer {
        match self.successor.upgrade().await {
            Ok(upgraded) => Answer::done(&upgraded),
            Err(error) => Answer::refused(chain_of(&error)),
        }
    }

    async fn reload(&self) -> Answer {
        match self.reloader.reload().await {
            Ok(reloaded) => Answer::done(&reloaded),
            Err(error) => {
                let details = match &error {
                    ReloadError::Config(config) => serde_json::json!({ "mistakes": config.mistakes() }),
                    _ => serde_json::Value::Null,
                };
                let message = format!("nothing was changed:\n{}", chain_of(&error));
                Answer::Refused(super::protocol::Refusal { message, details })
            }
        }
    }
}
