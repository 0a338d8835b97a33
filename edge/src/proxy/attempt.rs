//! One attempt at a request: the shard that gets it, and what follows when that shard fails.

use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::{Error, ErrorSource, ErrorType, OkOrErr, Result};
use tokio::time::Instant;

use super::{CROWDED_PAUSE, Proxy, is_answered};
use crate::conversation::Conversation;
use crate::exchange::Exchange;
use crate::upstream::connect_error::{is_crowded, lacks_descriptors};

impl Proxy {
    /// Counts an attempt.
    pub(super) fn begin_attempt(&self, exchange: &mut Exchange) {
        exchange.attempts += 1;
        if exchange.attempts > 1 {
            self.metrics.retries.inc();
        }
        // The whole body goes out again with each attempt.
        exchange.body_passed = 0;
    }

    /// Chooses the shard of the exchange, waiting for one if need be; the waits, which are rare, have places of their own.
    pub(super) async fn choose_shard(&self, exchange: &mut Exchange) -> Result<()> {
        let doubtful = std::mem::take(&mut exchange.in_doubt).then(|| exchange.shard().cloned()).flatten();
        exchange.leave();
        if let Some(shard) = doubtful {
            // A process that dies closes one connection after the other, and the door last: until it is known to live, or
            // to be gone, trying again would only be interrupted again.
            let _ = Box::pin(tokio::time::timeout(exchange.live.hold, shard.judged())).await;
        }
        let crowded = std::mem::take(&mut exchange.crowded);
        if !crowded && let Some(passage) = self.pool.enter(exchange.key) {
            exchange.choose(passage);
            return Ok(());
        }
        if exchange.held_until.is_none() {
            self.metrics.held.inc();
        }
        let deadline = exchange.hold(exchange.live.hold);
        if crowded {
            tokio::time::sleep(CROWDED_PAUSE).await;
        }
        match Box::pin(self.pool.wait_for(exchange.key, deadline)).await {
            Some(passage) if !crowded || Instant::now() < deadline => {
                exchange.choose(passage);
                Ok(())
            }
            _ => Error::e_explain(ErrorType::HTTPStatus(429), "no shard is healthy and has room"),
        }
    }

    /// The way for Pingora to a shard, or to the server of a configured route.
    pub(super) async fn choose_peer(&self, upgrades: bool, exchange: &mut Exchange) -> Result<Box<HttpPeer>> {
        if let Some(backend) = exchange.route.as_ref().and_then(|route| route.backend()) {
            let (address, peer) = backend.peer(upgrades).await?;
            exchange.address = address;
            return Ok(Box::new(peer));
        }
        self.choose_shard(exchange).await?;
        let shard = exchange.shard().or_err(ErrorType::InternalError, "no shard was chosen")?;
        Ok(Box::new(shard.peer()))
    }

    /// Nothing can be connected to. When the shard is gone, another one (or the next one in its place) may serve; when it
    /// is crowded, it is asked again.
    pub(super) fn note_unreachable(&self, exchange: &mut Exchange, mut error: Box<Error>) -> Box<Error> {
        if let Some(backend) = exchange.route.as_ref().and_then(|route| route.backend()) {
            backend.avoid(exchange.address);
            error.set_retry(exchange.attempts < u32::try_from(backend.len()).unwrap_or(u32::MAX));
            return error;
        }
        exchange.crowded = is_crowded(&error);
        match exchange.shard() {
            Some(shard) if exchange.crowded => shard.check_now(),
            Some(shard) => shard.mark_unhealthy(&error),
            None => {}
        }
        error.set_retry(true);
        error
    }

    /// The shard went away over the request. It is tried again when that cannot do its work twice: nothing of it was
    /// read, or its method is idempotent and the whole of it is still here.
    pub(super) fn note_interrupted(
        &self,
        client: &impl Conversation,
        exchange: &mut Exchange,
        mut error: Box<Error>,
        reused: bool,
    ) -> Box<Error> {
        let whole = !is_answered(client) && client.is_body_kept();
        let went_away = *error.esource() == ErrorSource::Upstream && !matches!(error.etype(), ErrorType::HTTPStatus(_));
        let unsent = *error.etype() == ErrorType::WriteError;
        let repeatable = unsent || client.request().method.is_idempotent();
        // A connection that was kept from an earlier request may have died long before this one.
        let was_dead_before = reused && unsent;
        if went_away
            && !lacks_descriptors(&error)
            && let Some(shard) = exchange.shard()
        {
            if reused {
                shard.forget_connections();
            }
            if !was_dead_before {
                self.pool.note_failure(shard);
            }
        }
        let retry = whole && went_away && repeatable && (was_dead_before || exchange.interrupt());
        error.set_retry(retry && self.retries.withdraw());
        error
    }
}
