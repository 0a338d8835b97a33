//! Whether requests go round in circles between proxies.

use http::HeaderMap;

use super::super::finding::{Finding, Mend, Severity, Verdict};
use super::super::observed::{Answer, Endpoint, Observed};

const CHECK: &str = "loops";
const WHY: &str = "each request costs many, until one of the proxies gives up";

pub(super) fn judge(observed: &Observed) -> Verdict {
    let findings: Vec<Finding> = observed.endpoints.iter().flat_map(judge_one).collect();
    let summary = if findings.is_empty() { "none" } else { "requests come back" };
    Verdict::new(CHECK, summary, findings)
}

fn judge_one(endpoint: &Endpoint) -> Option<Finding> {
    let mend = || {
        Mend::system(
            "# what passes requests on must lead to [listen] of the edge, and [upstream] shards to a shard: never to a public name",
        )
    };
    let finding = |id, seen, why| Finding {
        id,
        severity: Severity::Error,
        at: endpoint.address.to_string(),
        seen,
        why,
        mend: mend(),
    };
    endpoint.answers().find_map(|answer| {
        if answer.status == 508 {
            return Some(finding("loop-detected", "the status is 508 (Loop Detected)".to_owned(), WHY));
        }
        if matches!(answer.status, 400 | 413 | 431) && grew(answer) {
            let seen = format!(
                "the status is {}: the header grew too large on the way, and it was small when it began",
                answer.status
            );
            return Some(finding("loop-header-grew", seen, WHY));
        }
        if let Some(twice) = repeated_via(&answer.headers) {
            return Some(finding(
                "loop-via",
                format!("the answer came through {} more than once", super::quoted(&twice)),
                WHY,
            ));
        }
        if returned(&answer.headers, &endpoint.request_id) > 1 {
            let seen = "the id of the doctor's request came back more than once".to_owned();
            return Some(finding("loop-request-id", seen, WHY));
        }
        if (300..400).contains(&answer.status) {
            let to = super::quoted(answer.header("location").unwrap_or("nowhere"));
            let seen = format!("the API answers with a redirect ({}) to {to}", answer.status);
            return Some(finding(
                "loop-redirect",
                seen,
                "servers do not follow redirects there, and often they lead back",
            ));
        }
        None
    })
}

/// What servers say to a header that is too large.
fn grew(answer: &Answer) -> bool {
    let text = String::from_utf8_lossy(&answer.body).to_ascii_lowercase();
    answer.status == 431 || text.contains("header too large") || text.contains("header or cookie too large")
}

/// The proxy that is in `Via` twice.
fn repeated_via(headers: &HeaderMap) -> Option<String> {
    let mut seen: Vec<String> = Vec::new();
    for hop in headers.get_all("via").iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','))
    {
        // `1.1 name (comment)`
        let Some(by) = hop.split_whitespace().nth(1) else { continue };
        if seen.iter().any(|known| known == by) {
            return Some(by.to_owned());
        }
        seen.push(by.to_owned());
    }
    None
}

fn returned(headers: &HeaderMap, id: &str) -> usize {
    let values = headers.get_all("x-request-id").iter().filter_map(|value| value.to_str().ok());
    values.map(|value| value.matches(id).count()).sum()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{answer, ids, observed};
    use super::*;

    fn judged(answer: Answer) -> Vec<&'static str> {
        let mut seen = observed();
        seen.endpoints[0].keys = Ok(answer);
        ids(&judge(&seen))
    }

    fn with(name: &'static str, values: &[&str]) -> Answer {
        let mut answer = answer(200, "{}");
        for value in values {
            answer.headers.append(name, value.parse().unwrap());
        }
        answer
    }

    #[test]
    fn circles_are_recognised() {
        assert!(judged(answer(200, "{}")).is_empty());
        assert_eq!(judged(answer(508, "")), ["loop-detected"]);
        assert_eq!(judged(answer(431, "")), ["loop-header-grew"]);
        assert_eq!(judged(answer(400, "Request Header Or Cookie Too Large")), ["loop-header-grew"]);
        assert_eq!(judged(answer(301, "")), ["loop-redirect"]);
        assert_eq!(judged(with("via", &["1.1 a, 1.1 b", "1.1 a"])), ["loop-via"]);
        assert_eq!(judged(with("x-request-id", &["doctor-1", "doctor-1"])), ["loop-request-id"]);
    }

    #[test]
    fn one_proxy_is_no_circle() {
        assert!(judged(answer(400, "{}")).is_empty());
        assert!(judged(with("via", &["1.1 a, 2 b"])).is_empty());
        assert!(judged(with("x-request-id", &["doctor-1"])).is_empty());
    }
}
