//! Whether a content delivery network stands where other servers connect, and does not let them.

use http::HeaderMap;

use super::super::finding::{Finding, Mend, Severity, Verdict};
use super::super::observed::{Fetch, Observed};

const CHECK: &str = "in front";

/// Headers that give a front away, and how to call it.
const FRONTS: [(&str, &str); 9] = [
    ("cf-ray", "Cloudflare"),
    ("x-amz-cf-id", "CloudFront"),
    ("x-fastly-request-id", "Fastly"),
    ("x-akamai-transformed", "Akamai"),
    ("x-vercel-id", "Vercel"),
    ("x-nf-request-id", "Netlify"),
    ("x-github-request-id", "GitHub Pages"),
    ("x-cache", "a cache"),
    ("via", "a proxy"),
];

/// What stands in front, where the headers of an answer tell.
pub(super) fn front(headers: &HeaderMap) -> Option<&'static str> {
    FRONTS.iter().find(|(header, _)| headers.contains_key(*header)).map(|(_, name)| *name)
}

pub(super) fn judge(observed: &Observed) -> Verdict {
    let documents = observed.server_document.iter().chain(&observed.client_document).filter_map(Fetch::answer);
    let answers = documents.chain(observed.endpoints.iter().flat_map(|endpoint| endpoint.answers()));
    let Some(front) = answers.into_iter().find_map(|answer| front(&answer.headers)) else {
        return Verdict::new(CHECK, "nothing shows", Vec::new());
    };
    Verdict::new(CHECK, format!("{front} answers"), not_passed(observed, front).into_iter().collect())
}

/// Others connect to the front itself, on a port that it does not pass on.
fn not_passed(observed: &Observed, front: &str) -> Option<Finding> {
    let own = observed.own_host.as_ref()?.addresses();
    let closed = observed.endpoints.iter().find(|endpoint| {
        endpoint.address.port() != 443 && endpoint.answers().next().is_none() && own.contains(&endpoint.address.ip())
    })?;
    let any = observed.endpoints.iter().any(|endpoint| endpoint.answers().next().is_some());
    (!any).then(|| Finding {
        id: "cdn-port",
        severity: Severity::Error,
        at: closed.address.to_string(),
        seen: format!("{front} answers at this address on port 443, and nothing on port {}", closed.address.port()),
        why: "such networks pass on few ports, and 8448 is none of them",
        mend: Mend::edge(format!("[server] federation_address = \"{}:443\"", observed.name.host_text())),
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::observed::{End, Failure};
    use super::super::testing::{answer, ids, observed};
    use super::*;

    #[test]
    fn a_front_that_does_not_pass_the_port_on_is_found() {
        let mut seen = observed();
        assert_eq!(judge(&seen).summary, "nothing shows");
        let mut page = answer(404, "");
        page.headers.insert("cf-ray", "x".parse().unwrap());
        seen.server_document[0].end = End::Answer(page);
        assert!(judge(&seen).findings.is_empty());
        let own = seen.own_host.as_ref().unwrap().addresses();
        for (endpoint, address) in seen.endpoints.iter_mut().zip(own) {
            endpoint.address = (address, 8448).into();
            endpoint.keys = Err(Failure::ConnectTimeout(5));
            endpoint.version = Err(Failure::ConnectTimeout(5));
        }
        let verdict = judge(&seen);
        assert_eq!((ids(&verdict), verdict.summary.as_str()), (vec!["cdn-port"], "Cloudflare answers"));
    }
}
