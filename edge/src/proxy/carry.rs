//! Carries a request to its shard and the answer back, over a [`Link`].

use futures_util::FutureExt;
use http::header::{CONNECTION, EXPECT, RETRY_AFTER, UPGRADE};
use http::{HeaderMap, HeaderValue};
use pingora_error::{Error, ErrorType, OkOrErr, Result};

use super::Proxy;
use super::answer::finish_piece;
use super::relay::{self, Side};
use crate::conversation::Conversation;
use crate::exchange::Exchange;
use crate::upstream::link::{Link, Writer};

/// Whether a request goes to its shard over a link; what changes the protocol, waits within itself, or names headers that
/// are for one connection alone takes Pingora's way.
pub(super) fn is_plain(headers: &HeaderMap) -> bool {
    let plain = |value: &HeaderValue| {
        let value = value.as_bytes();
        value.eq_ignore_ascii_case(b"keep-alive") || value.eq_ignore_ascii_case(b"close")
    };
    !headers.contains_key(UPGRADE) && !headers.contains_key(EXPECT) && headers.get_all(CONNECTION).iter().all(plain)
}

impl Proxy {
    /// Brings the request to a shard, again if need be, and its answer to the client.
    pub(super) async fn carry(&self, client: &mut impl Conversation, exchange: &mut Exchange) -> Result<()> {
        if client.has_body() {
            client.keep_body();
        }
        loop {
            match self.attempt(client, exchange).await {
                Err(error) if error.retry() => {}
                done => return done,
            }
        }
    }

    async fn attempt(&self, client: &mut impl Conversation, exchange: &mut Exchange) -> Result<()> {
        self.begin_attempt(exchange);
        self.choose_shard(exchange).await?;
        let shard = exchange.shard().or_err(ErrorType::InternalError, "no shard was chosen")?;
        let mut link = match shard.link().await {
            Ok(link) => link,
            Err(error) => return Err(self.note_unreachable(exchange, error)),
        };
        let was_reused = link.is_reused;
        match self.pass(client, exchange, &mut link).await {
            Ok(()) => {
                if let Some(shard) = exchange.shard().filter(|_| link.is_reusable()) {
                    shard.keep(link);
                }
                Ok(())
            }
            Err(error) => Err(self.note_interrupted(client, exchange, error, was_reused)),
        }
    }

    /// One request, one answer.
    async fn pass(&self, client: &mut impl Conversation, exchange: &mut Exchange, link: &mut Link) -> Result<()> {
        let mut side = self.begin(client, exchange, &mut link.writer)?;
        let mut judge = |bytes, ends| self.pass_body(bytes, ends, exchange);
        let mut head = relay::head(client, link, &mut side, &mut judge).await?;
        self.judge_answer(head.status, head.fields.text(&RETRY_AFTER), exchange)?;
        self.finish_answer(client.request(), &mut head, exchange);
        client.write_head(head, link.reader.is_done()).await?;
        while !link.reader.is_done() {
            let mut judge = |bytes, ends| self.pass_body(bytes, ends, exchange);
            let mut piece = relay::piece(client, link, &mut side, &mut judge).await?;
            let ends = link.reader.is_done();
            finish_piece(&mut piece, ends, exchange)?;
            client.write_body(piece, ends).await?;
        }
        Ok(())
    }

    /// Writes the head, and as much of the body as is there.
    fn begin(&self, client: &mut impl Conversation, exchange: &mut Exchange, writer: &mut Writer) -> Result<Side> {
        let Some(vouched) = &exchange.vouched else {
            return Error::e_explain(ErrorType::InternalError, "a request was routed before it was examined");
        };
        let mut side = relay::begin(client, writer, &exchange.host, vouched.lines())?;
        if side != Side::Sends {
            return Ok(side);
        }
        self.await_body(client, exchange);
        let mut judge = |bytes, ends| self.pass_body(bytes, ends, exchange);
        if let Some(sent_before) = client.kept_body() {
            side = relay::send(client, writer, Some(sent_before), &mut judge)?;
        }
        if side == Side::Sends
            && let Some(piece) = client.read_body(false).now_or_never()
        {
            side = relay::send(client, writer, piece?, &mut judge)?;
        }
        Ok(side)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_concerns_the_connection_alone_takes_pingoras_way() {
        let plain = |fields: &[(http::HeaderName, &'static str)]| {
            let fields = fields.iter().cloned().map(|(name, value)| (name, HeaderValue::from_static(value)));
            is_plain(&fields.collect())
        };
        assert!(plain(&[]) && plain(&[(CONNECTION, "Keep-Alive")]) && plain(&[(CONNECTION, "close")]));
        assert!(!plain(&[(UPGRADE, "websocket"), (CONNECTION, "upgrade")]));
        assert!(!plain(&[(CONNECTION, "x-token")]));
        assert!(!plain(&[(EXPECT, "100-continue")]));
    }
}
