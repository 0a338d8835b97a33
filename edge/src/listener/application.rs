//! What serves the connections of a listener.

use std::sync::Arc;

use pingora_core::apps::HttpServerApp;
use pingora_http::RequestHeader;

use crate::conversation::Conversation;

/// Answers requests, or leaves them to an application of Pingora's.
pub(crate) trait Application: Send + Sync + 'static {
    /// What a request was taken with.
    type Taken: Send;
    /// Answers what is not taken.
    type Pingora: HttpServerApp + Send + Sync + 'static;

    /// Takes the request, unless it is Pingora's.
    fn take(&self, request: &RequestHeader) -> Option<Self::Taken>;

    /// Answers a request that was taken.
    fn answer(&self, client: &mut impl Conversation, taken: Self::Taken) -> impl Future<Output = ()> + Send;

    /// Pingora's application.
    fn pingora(&self) -> &Arc<Self::Pingora>;
}
