//! What the edge does with each path of each host, made once from the configuration and used as one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};
use pingora_error::Result;
use pingora_http::RequestHeader;
use serde_json::Value;

use crate::answer_head::AnswerHead;
use crate::config::{CompressionConfig, EdgeConfig, RouteConfig, SecurityHeadersConfig, ServerConfig};
use crate::content::answer_cache::Lifetimes;
use crate::content::compression::Compression;
use crate::content::static_folder::StaticFolder;
use crate::routing::accept::Coding;
use crate::routing::admin_gate::AdminGate;
use crate::routing::redirection::Redirection;
use crate::routing::routes::Routes;
use crate::routing::security_headers::SecurityHeaders;
use crate::routing::well_known::{Published, WellKnown};
use crate::upstream::backend::Backend;
use crate::upstream::tls::PemFileError;

/// Everything that is decided by host and path.
#[derive(Debug)]
pub(crate) struct Front {
    pub(crate) routes: Routes<Arc<Route>>,
    pub(crate) documents: WellKnown,
    pub(crate) admin: AdminGate,
    pub(crate) security: SecurityHeaders,
    pub(crate) compression: Compression,
    pub(crate) lifetimes: Lifetimes,
}

/// One configured route.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) target: Target,
    /// Whether the route's path is taken off before a request is passed on.
    pub(crate) strip_prefix: bool,
    /// Largest body that is passed on, in bytes.
    pub(crate) body_limit: u64,
    pub(crate) on_requests: HeaderEdits,
    pub(crate) on_answers: HeaderEdits,
}

/// What a route leads to.
#[derive(Debug)]
pub(crate) enum Target {
    Folder(StaticFolder),
    Redirect(Redirection),
    Backend(Backend),
}

/// Headers that the configuration puts on and takes off.
#[derive(Debug, Default)]
pub(crate) struct HeaderEdits {
    set: Vec<(HeaderName, HeaderValue)>,
    remove: Vec<HeaderName>,
}

/// A PEM file of a route cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the authorities of a route (route.ca)")]
pub struct UnusableRoute(#[source] Box<dyn std::error::Error + Send + Sync>);

impl From<PemFileError> for UnusableRoute {
    fn from(error: PemFileError) -> Self {
        Self(Box::new(error))
    }
}

impl Front {
    pub(crate) fn new(config: &EdgeConfig) -> Result<Self, UnusableRoute> {
        let mut routes = Vec::with_capacity(config.routes.len());
        for (number, route) in config.routes.iter().enumerate() {
            routes.push((route.host.clone(), route.path.clone(), Arc::new(Route::new(number, route)?)));
        }
        let refuse_with = StatusCode::from_u16(config.admin.refuse_with).unwrap_or(StatusCode::FORBIDDEN);
        Ok(Self {
            routes: Routes::new(routes),
            documents: documents(&config.server),
            admin: AdminGate::new(&config.admin.allow, refuse_with),
            security: security_headers(&config.security_headers),
            compression: compression(&config.compression),
            lifetimes: Lifetimes {
                fresh: Duration::from_secs(config.cache.fresh_seconds),
                stale: Duration::from_secs(config.cache.stale_seconds),
            },
        })
    }
}

impl Route {
    fn new(number: usize, config: &RouteConfig) -> Result<Self, UnusableRoute> {
        let target = if let Some(root) = &config.folder {
            Target::Folder(StaticFolder {
                root: root.clone(),
                index: config.index.clone(),
                fallback: config.fallback.clone(),
                cache_seconds: config.cache_seconds,
            })
        } else if let Some(url) = &config.redirect {
            let status = StatusCode::from_u16(config.status).unwrap_or(StatusCode::FOUND);
            Target::Redirect(Redirection { url: url.clone(), status, keep_path: config.keep_path })
        } else {
            Target::Backend(Backend::new(number, config)?)
        };
        Ok(Self {
            target,
            strip_prefix: config.strip_prefix,
            body_limit: config.max_body_bytes,
            on_requests: HeaderEdits::new(&config.set_request_headers, &config.remove_request_headers),
            on_answers: HeaderEdits::new(&config.set_response_headers, &config.remove_response_headers),
        })
    }

    pub(crate) fn backend(&self) -> Option<&Backend> {
        match &self.target {
            Target::Backend(backend) => Some(backend),
            Target::Folder(_) | Target::Redirect(_) => None,
        }
    }
}

impl HeaderEdits {
    /// The configuration's own check has refused what is no header.
    fn new(set: &BTreeMap<String, String>, remove: &[String]) -> Self {
        let pair = |(name, value): (&String, &String)| {
            Some((HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_str(value).ok()?))
        };
        let name = |name: &String| HeaderName::from_bytes(name.as_bytes()).ok();
        Self { set: set.iter().filter_map(pair).collect(), remove: remove.iter().filter_map(name).collect() }
    }

    pub(crate) fn edit_request(&self, request: &mut RequestHeader) -> Result<()> {
        for name in &self.remove {
            request.remove_header(name);
        }
        self.set.iter().try_for_each(|(name, value)| request.insert_header(name.clone(), value.clone()))
    }

    pub(crate) fn edit_answer(&self, answer: &mut AnswerHead) {
        for name in &self.remove {
            answer.fields.remove(name);
        }
        for (name, value) in &self.set {
            answer.fields.insert(name.clone(), value.clone());
        }
    }
}

fn documents(server: &ServerConfig) -> WellKnown {
    // All of these are maps and lists of strings, which JSON can always hold.
    let foci: Vec<Value> = server.rtc_foci.iter().filter_map(|focus| serde_json::to_value(focus).ok()).collect();
    let support = server.support.as_ref().and_then(|support| serde_json::to_value(support).ok());
    WellKnown::new(Published {
        base_url: server.base_url.as_deref(),
        federation_address: server.federation_address.as_deref(),
        identity_server: server.identity_server.as_deref(),
        rtc_foci: &foci,
        client_extra: Some(&server.client_extra),
        support: support.as_ref(),
        policy_server_key: server.policy_server.as_ref().map(|policy| policy.ed25519.as_str()),
    })
}

fn security_headers(config: &SecurityHeadersConfig) -> SecurityHeaders {
    let subdomains = if config.hsts_subdomains { "; includeSubDomains" } else { "" };
    let hsts = (config.hsts_seconds > 0).then(|| format!("max-age={}{subdomains}", config.hsts_seconds));
    let value = |text: &str| HeaderValue::from_str(text).ok().filter(|value| !value.is_empty());
    SecurityHeaders::new(hsts.as_deref().and_then(value), value(&config.static_policy), value(&config.media_policy))
}

fn compression(config: &CompressionConfig) -> Compression {
    let level = |coding| match coding {
        Coding::Zstd => config.zstd,
        Coding::Brotli => config.brotli,
        Coding::Gzip => config.gzip,
    };
    Compression::new(level, config.min_bytes)
}
