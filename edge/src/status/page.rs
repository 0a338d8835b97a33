//! The status page: one document with everything in it, and the JSON that it asks for every two seconds.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gatehouse_shared::metrics::{Page, Pages};
use sha2::{Digest as _, Sha256};

use super::{Source, Status};

const DOCUMENT: &str = include_str!("page.html");

/// Nothing but the page's own style and script, named by their digests, and questions to where it came from.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let (style, script) = (digest_within("style"), digest_within("script"));
    format!(
        "default-src 'none'; style-src '{style}'; script-src '{script}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
});

fn digest_within(element: &str) -> String {
    let (open, close) = (format!("<{element}>"), format!("</{element}>"));
    let inner = DOCUMENT.split_once(&open).and_then(|(_, rest)| rest.split_once(&close)).map(|(inner, _)| inner);
    format!("sha256-{}", STANDARD.encode(Sha256::digest(inner.unwrap_or_default())))
}

/// What the private address serves beside metrics.
pub(crate) fn pages(source: Arc<Source>) -> Pages {
    Arc::new(move |path| {
        let source = source.clone();
        Box::pin(async move {
            match path.as_str() {
                "/" => Some(document()),
                "/status.json" => Some(answer(&source.status().await)),
                _ => None,
            }
        })
    })
}

fn document() -> Page {
    Page {
        content_type: "text/html; charset=utf-8",
        headers: vec![
            ("content-security-policy", POLICY.as_str()),
            ("referrer-policy", "no-referrer"),
            ("x-content-type-options", "nosniff"),
            ("cache-control", "no-cache"),
        ],
        body: Cow::Borrowed(DOCUMENT),
    }
}

fn answer(status: &Status) -> Page {
    Page {
        content_type: "application/json",
        headers: vec![("cache-control", "no-store"), ("x-content-type-options", "nosniff")],
        // Text and numbers can always be written.
        body: Cow::Owned(serde_json::to_string(status).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_brings_everything_and_its_policy_allows_just_that() {
        for element in ["style", "script"] {
            assert_eq!(DOCUMENT.matches(&format!("<{element}")).count(), 1);
            assert!(POLICY.contains(&digest_within(element)));
        }
        for outside in ["http://", "https://", "//cdn", "src=", "@import", "url(", "innerHTML", "style="] {
            assert!(!DOCUMENT.replace("http://www.w3.org/2000/svg", "").contains(outside), "{outside}");
        }
    }
}
