//! Tells the access log of a request that was answered, if there is one.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use gatehouse_shared::clock::Clock;
use http::HeaderName;
use http::header::{REFERER, USER_AGENT};
use pingora_proxy::Session;

use super::{AccessLog, Entry};
use crate::admission::request_class::RequestClass;
use crate::live::Live;
use crate::proxy::host_of;

/// What only the edge knows of a request; the rest is in the session.
#[derive(Debug)]
pub(crate) struct Answered<'r> {
    pub(crate) client: IpAddr,
    pub(crate) took: Duration,
    pub(crate) class: RequestClass,
    /// Empty when the edge answered by itself.
    pub(crate) shard: &'r str,
    pub(crate) attempts: u32,
    pub(crate) request_id: &'r str,
}

/// Shared by everything that answers requests.
#[derive(Clone)]
pub(crate) struct AccessRecorder {
    pub(crate) log: Arc<AccessLog>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl AccessRecorder {
    /// Writes a line when `live` wants one; only then `answered` is asked.
    pub(crate) fn record<'r>(&self, live: &Live, session: &Session, answered: impl FnOnce() -> Answered<'r>) {
        let Some(config) = &live.config.access_log else { return };
        let Answered { client, took, class, shard, attempts, request_id } = answered();
        let request = session.req_header();
        let host = host_of(request);
        let header = |name: HeaderName| request.headers.get(name).and_then(|value| value.to_str().ok());
        let entry = Entry {
            time: self.clock.now(),
            client,
            method: &request.method,
            target: request.uri.path_and_query().map_or("/", |target| target.as_str()),
            version: request.version,
            host: host.unwrap_or_default(),
            status: session.response_written().map(|response| response.status.as_u16()),
            bytes: session.body_bytes_sent() as u64,
            took,
            class: class.as_str(),
            shard,
            attempts,
            request_id,
            referer: header(REFERER),
            user_agent: header(USER_AGENT),
        };
        self.log.record(config, &entry);
    }
}
