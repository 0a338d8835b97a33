//! What serves the connections of a listener.

use std::sync::Arc;

use pingora_core::apps::HttpServerApp;
use pingora_http::RequestHeader;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::conversation::Conversation;

/// Answers requests, or leaves them to an application of Pingora's.
pub(crate) trait Application: Send + Sync + 'static {
    /// What a request was taken with.
    type Taken: Send;
    /// Answers what is not taken.
    type Pingora: HttpServerApp + Send + Sync + 'static;

    /// Takes the request, unless it is Pingora's.
    fn take(&self, request: &RequestHeader) -> Option<Self::Taken>;

    /// Answers a request that was taken, and says when that was done.
    fn answer(&self, client: &mut impl Conversation, taken: Self::Taken) -> impl Future<Output = Instant> + Send;

    /// Has Pingora answer a request of HTTP/2 that was not taken.
    fn answer_through_pingora(
        &self,
        client: &mut impl Conversation,
        stopping: &watch::Receiver<bool>,
    ) -> impl Future<Output = ()> + Send;

    /// Pingora's application, for requests of HTTP/1.
    fn pingora(&self) -> &Arc<Self::Pingora>;
}
