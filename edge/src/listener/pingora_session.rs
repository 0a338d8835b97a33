//! A request that Pingora has read, as a conversation: what is odd in HTTP/1, or came over a pipe.

use std::net::IpAddr;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderValue, StatusCode, Version};
use pingora_core::protocols::http::ServerSession;
use pingora_error::{Error, ErrorType, OrErr, Result};
use pingora_http::{RequestHeader, ResponseHeader};

use super::pipe::is_piped;
use crate::answer_head::AnswerHead;
use crate::conversation::{Conversation, Patience};
use crate::ending::Ending;

impl Conversation for ServerSession {
    fn request(&self) -> &RequestHeader {
        self.req_header()
    }

    fn request_mut(&mut self) -> &mut RequestHeader {
        self.req_header_mut()
    }

    fn version(&self) -> Version {
        if self.digest().is_some_and(is_piped) { Version::HTTP_2 } else { self.req_header().version }
    }

    fn raw_head(&self) -> Option<Bytes> {
        self.as_http1().map(|http1| http1.get_headers_raw_bytes())
    }

    fn peer(&self) -> Option<IpAddr> {
        self.client_addr().and_then(|address| address.as_inet()).map(|address| address.ip())
    }

    fn shared_connection(&self) -> Option<Ending> {
        None
    }

    fn be_patient(&mut self, patience: Patience) {
        self.set_read_timeout(patience.read);
        self.set_write_timeout(patience.write);
        self.set_total_drain_timeout(Some(patience.drain));
    }

    fn has_body(&mut self) -> bool {
        !self.is_body_empty()
    }

    fn is_body_done(&mut self) -> bool {
        Self::is_body_done(self)
    }

    fn keep_body(&mut self) {
        self.enable_retry_buffering();
    }

    fn kept_body(&self) -> Option<Bytes> {
        self.get_retry_buffer()
    }

    fn is_body_kept(&self) -> bool {
        !self.retry_buffer_truncated()
    }

    async fn read_body(&mut self, listen: bool) -> Result<Option<Bytes>> {
        self.read_body_or_idle(listen).await.map_err(Error::into_down)
    }

    async fn drain_body(&mut self) -> Result<()> {
        self.drain_request_body().await.map_err(Error::into_down)
    }

    async fn write_head(&mut self, mut head: AnswerHead, ends: bool) -> Result<()> {
        if !ends && !head.fields.contains(&CONTENT_LENGTH) {
            // Otherwise its end would be that of the connection.
            head.fields.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        let parts = head.into_parts().or_err(ErrorType::InvalidHTTPHeader, "a field of an answer")?;
        let head = Box::new(ResponseHeader::from(parts));
        self.write_response_header(head).await.map_err(Error::into_down)?;
        if ends {
            self.finish_body().await.map_err(Error::into_down)?;
        }
        Ok(())
    }

    async fn write_body(&mut self, piece: Option<Bytes>, ends: bool) -> Result<()> {
        if piece.is_none() && !ends {
            return Ok(());
        }
        self.write_response_body(piece.unwrap_or_default(), ends).await.map_err(Error::into_down)
    }

    /// Pingora decides by itself what may wait.
    async fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    fn status(&self) -> Option<StatusCode> {
        self.response_written().map(|head| head.status)
    }

    fn body_bytes(&self) -> u64 {
        self.body_bytes_sent() as u64
    }

    fn end_connection(&mut self) {
        self.set_keepalive(None);
    }
}
