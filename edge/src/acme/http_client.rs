//! How an authority is spoken to: HTTPS with deadlines, and an ear for `Retry-After`.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use gatehouse_shared::clock::Clock;
use http::header::RETRY_AFTER;
use http::{HeaderMap, Request};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use parking_lot::Mutex;

use crate::config::AuthorityConfig;

const CONNECT_WITHIN: Duration = Duration::from_secs(15);
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// Directories, orders and chains are a few kilobytes.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// When an authority last asked to be left alone until.
pub(super) type RetryAfter = Arc<Mutex<Option<SystemTime>>>;

/// A client for one authority.
pub(super) struct AuthorityClient {
    http: reqwest::Client,
    clock: Arc<dyn Clock>,
    retry_after: RetryAfter,
}

impl AuthorityClient {
    /// Trusts the authority's own roots where the configuration names some, or else what the system trusts.
    pub(super) fn new(
        authority: &AuthorityConfig,
        clock: Arc<dyn Clock>,
        retry_after: RetryAfter,
    ) -> Result<Self, Error> {
        let other = |error: Box<dyn std::error::Error + Send + Sync>| Error::Other(error);
        let mut builder = reqwest::Client::builder()
            .https_only(true)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_WITHIN)
            .timeout(ANSWER_WITHIN)
            .user_agent(concat!("Gatehouse/", env!("CARGO_PKG_VERSION")));
        if let Some(file) = &authority.ca_root {
            let pem = std::fs::read(file).map_err(|error| other(error.into()))?;
            let roots = reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| other(error.into()))?;
            builder = builder.tls_certs_only(roots);
        }
        Ok(Self { http: builder.build().map_err(|error| other(error.into()))?, clock, retry_after })
    }
}

impl HttpClient for AuthorityClient {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let (http, clock, retry_after) = (self.http.clone(), self.clock.clone(), self.retry_after.clone());
        Box::pin(async move {
            let other = |error: reqwest::Error| Error::Other(error.into());
            let (mut parts, body) = request.into_parts();
            // Its own name would be added to the client's.
            parts.headers.remove(http::header::USER_AGENT);
            let request = Request::from_parts(parts, reqwest::Body::wrap(body)).try_into().map_err(other)?;
            let mut response = http.execute(request).await.map_err(other)?;
            let status = response.status();
            if status.is_client_error() || status.is_server_error() {
                let asked = asked_pause(response.headers(), clock.now());
                *retry_after.lock() = asked;
            }
            let (mut parts, ()) = http::Response::new(()).into_parts();
            parts.status = status;
            parts.headers = std::mem::take(response.headers_mut());
            let mut body = Vec::new();
            while let Some(chunk) = response.chunk().await.map_err(other)? {
                if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                    return Err(Error::Str("an answer of bearable length"));
                }
                body.extend_from_slice(&chunk);
            }
            Ok(BytesResponse { parts, body: Box::new(Bytes::from(body)) })
        })
    }
}

/// `Retry-After` in either of its forms.
fn asked_pause(headers: &HeaderMap, now: SystemTime) -> Option<SystemTime> {
    /// An authority that asks for more than this has made a mistake.
    const MOST: Duration = Duration::from_secs(7 * 24 * 60 * 60);
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let at = match value.parse::<u64>() {
        Ok(seconds) => now + Duration::from_secs(seconds).min(MOST),
        Err(_) => httpdate::parse_http_date(value).ok()?,
    };
    Some(at.min(now + MOST))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn both_forms_of_retry_after_are_understood() {
        let now = UNIX_EPOCH + Duration::from_secs(784_111_777);
        let asked = |value: &str| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, value.parse().unwrap())]);
            asked_pause(&headers, now).map(|at| at.duration_since(now).unwrap().as_secs())
        };
        assert_eq!(asked("120"), Some(120));
        assert_eq!(asked("Sun, 06 Nov 1994 08:50:37 GMT"), Some(60));
        assert_eq!(asked("99999999999999"), Some(7 * 24 * 60 * 60));
        assert_eq!(asked("soon"), None);
    }
}
