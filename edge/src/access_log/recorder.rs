//! Tells the access log of a request that was answered, if there is one.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use gatehouse_shared::clock::Clock;
use http::HeaderName;
use http::header::{REFERER, USER_AGENT};

use super::{AccessLog, Entry};
use crate::admission::request_class::RequestClass;
use crate::conversation::Conversation;
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
    pub(crate) fn record<'r>(&self, live: &Live, client: &impl Conversation, answered: impl FnOnce() -> Answered<'r>) {
        let Some(config) = &live.config.access_log else { return };
        let Answered { client: address, took, class, shard, attempts, request_id } = answered();
        let request = client.request();
        let host = host_of(request);
        let header = |name: HeaderName| request.headers.get(name).and_then(|value| value.to_str().ok());
        let entry = Entry {
            time: self.clock.now(),
            client: address,
            method: &request.method,
            target: request.uri.path_and_query().map_or("/", |target| target.as_str()),
            version: client.version(),
            host: host.unwrap_or_default(),
            status: client.status().map(|status| status.as_u16()),
            bytes: client.body_bytes(),
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
