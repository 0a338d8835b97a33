//! Whether clients that know only the server name find the API, also from within a browser.

use serde_json::Value;
use url::Url;

use super::super::finding::{Finding, Mend, Severity, Verdict};
use super::super::observed::{Answer, ClientApi, End, Fetch, Observed};
use super::cdn::front;

const CHECK: &str = "well-known client";
const ASKS: &str = "clients find the homeserver by this document when a user types the server name";

/// The base URL that a document names, if it can be used.
pub(crate) fn base_url(fetches: &[Fetch]) -> Option<Url> {
    let named = |fetch: &Fetch| {
        let answer = fetch.answer().filter(|answer| answer.status == 200)?;
        usable(answer.object().ok()?.get("m.homeserver")?.get("base_url")?.as_str()?)
    };
    fetches.iter().find_map(named)
}

fn usable(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let plain = url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
    (url.scheme() == "https" && url.host_str().is_some() && plain).then_some(url)
}

pub(super) fn judge(observed: &Observed) -> Verdict {
    if observed.client_document.is_empty() {
        return Verdict::new(CHECK, "not asked for: the name is an address", Vec::new());
    }
    let mut findings: Vec<Finding> = Vec::new();
    let documents = observed.client_document.iter().flat_map(|fetch| judge_document(observed, fetch));
    let versions =
        observed.client_api.iter().flat_map(|api| api.versions.iter().flat_map(|fetch| judge_versions(api, fetch)));
    for new in documents.chain(versions) {
        if !findings.iter().any(|old| old.id == new.id && old.seen == new.seen) {
            findings.push(new);
        }
    }
    let summary = match &observed.client_api {
        Some(api) => format!("clients are sent to {}", api.base_url),
        None => "clients are sent nowhere".to_owned(),
    };
    Verdict::new(CHECK, summary, findings)
}

fn publish(observed: &Observed) -> Mend {
    match observed.expected.as_ref().and_then(|expected| expected.base_url.as_deref()) {
        Some(url) => Mend::system(format!(
            "# {} port 443 must lead to the edge, which serves base_url = \"{url}\"",
            observed.name.host_text()
        )),
        None => Mend::edge(format!("[server] base_url = \"https://{}\"", observed.name.host_text())),
    }
}

fn judge_document(observed: &Observed, fetch: &Fetch) -> Vec<Finding> {
    let finding = |id, severity, seen: String, why| Finding {
        id,
        severity,
        at: fetch.place(),
        seen,
        why,
        mend: publish(observed),
    };
    let missing = |seen: String| {
        let configured = observed.expected.as_ref().is_some_and(|expected| expected.base_url.is_some());
        let severity = if configured { Severity::Error } else { Severity::Warning };
        vec![finding("well-known-client-missing", severity, seen, ASKS)]
    };
    let answer = match &fetch.end {
        End::Answer(answer) => answer,
        End::Loop(url) => {
            let seen = format!("redirects lead back to {}", super::quoted(url));
            return vec![finding("well-known-client-redirect-loop", Severity::Error, seen, ASKS)];
        }
        End::Failed(failure) => return missing(failure.to_string()),
        End::UnknownHost(host) => return missing(format!("{host} has no address")),
        End::TooManyRedirects | End::LeavesTls(_) | End::BadLocation(_) => {
            return vec![finding(
                "well-known-client-redirects",
                Severity::Error,
                "redirects lead nowhere".to_owned(),
                ASKS,
            )];
        }
    };
    if answer.status != 200 {
        return missing(format!("the status is {}", answer.status));
    }
    let error = |id, seen: String, why| vec![finding(id, Severity::Error, seen, why)];
    let object = match answer.object() {
        Ok(object) => object,
        Err(_) if answer.is_page() => {
            let front = front(&answer.headers).map_or_else(String::new, |front| format!("; {front} answered"));
            return error(
                "well-known-client-page",
                format!("a web page is served instead of the document{front}"),
                ASKS,
            );
        }
        Err(why) => {
            return error("well-known-client-json", format!("it is no JSON object: {}", super::quoted(&why)), ASKS);
        }
    };
    let base_url = object.get("m.homeserver").and_then(|homeserver| homeserver.get("base_url")).and_then(Value::as_str);
    let Some(base_url) = base_url else {
        return error("well-known-client-content", "it has no m.homeserver with a base_url".to_owned(), ASKS);
    };
    let mut findings = Vec::new();
    if usable(base_url).is_none() {
        let seen = format!("its base_url, \"{}\", is no https URL without a query", super::quoted(base_url));
        findings.extend(error("well-known-client-invalid", seen, ASKS));
    }
    let expected = observed.expected.as_ref().and_then(|expected| expected.base_url.as_deref());
    if let Some(expected) = expected.filter(|expected| expected.trim_end_matches('/') != base_url.trim_end_matches('/'))
    {
        let seen = format!("it says {} where the configuration says {expected}", super::quoted(base_url));
        let why = "something in front serves a document of its own or an old one, and clients believe it";
        findings.extend(error("well-known-client-not-ours", seen, why));
    }
    findings.extend(without_cors(fetch, answer, "well-known-client-cors"));
    findings
}

fn without_cors(fetch: &Fetch, answer: &Answer, id: &'static str) -> Option<Finding> {
    let allowed: Vec<&str> =
        answer.headers.get_all("access-control-allow-origin").iter().filter_map(|value| value.to_str().ok()).collect();
    let seen = match allowed.as_slice() {
        ["*"] => return None,
        [] => "there is no Access-Control-Allow-Origin".to_owned(),
        [one] => format!("Access-Control-Allow-Origin is \"{}\"", super::quoted(one)),
        _ => "Access-Control-Allow-Origin comes more than once, and browsers refuse that".to_owned(),
    };
    Some(Finding {
        id,
        severity: Severity::Error,
        at: fetch.place(),
        seen,
        why: "clients in browsers may not read the answer",
        mend: Mend::system(
            "# the edge sends Access-Control-Allow-Origin: * once; whatever answers in front must pass it on and add none",
        ),
    })
}

fn judge_versions(api: &ClientApi, fetch: &Fetch) -> Vec<Finding> {
    let host = Url::parse(&api.base_url).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
    let unreachable = |seen: String| {
        vec![Finding {
            id: "client-api-unreachable",
            severity: Severity::Error,
            at: fetch.place(),
            seen,
            why: "clients are sent there, and cannot log in or sync",
            mend: Mend::edge(format!(
                "[server] base_url = \"https://{host}\"   # a place where [listen] https answers"
            )),
        }]
    };
    let answer = match &fetch.end {
        End::Answer(answer) => answer,
        End::Failed(failure) => return unreachable(failure.to_string()),
        End::UnknownHost(host) => return unreachable(format!("{host} has no address")),
        _ => return unreachable("redirects lead nowhere".to_owned()),
    };
    if answer.status != 200 {
        return unreachable(format!("the status is {}", answer.status));
    }
    let lists = answer.object().is_ok_and(|object| object.get("versions").is_some_and(Value::is_array));
    if !lists {
        return unreachable("the answer lists no versions of the specification".to_owned());
    }
    without_cors(fetch, answer, "client-api-cors").into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{answer, ids, observed};
    use super::*;

    fn judged(change: impl FnOnce(&mut Observed)) -> Vec<&'static str> {
        let mut seen = observed();
        change(&mut seen);
        ids(&judge(&seen))
    }

    fn with_cors(status: u16, body: &str) -> Answer {
        let mut answer = answer(status, body);
        answer.headers.insert("access-control-allow-origin", "*".parse().unwrap());
        answer
    }

    fn serving(status: u16, body: &str) -> Vec<&'static str> {
        judged(|seen| seen.client_document[0].end = End::Answer(with_cors(status, body)))
    }

    #[test]
    fn what_is_served_is_judged() {
        assert!(judged(|_| {}).is_empty());
        assert_eq!(serving(404, ""), ["well-known-client-missing"]);
        assert_eq!(serving(200, "x"), ["well-known-client-json"]);
        assert_eq!(serving(200, "<html>"), ["well-known-client-page"]);
        assert_eq!(serving(200, "{}"), ["well-known-client-content"]);
        let url = |url: &str| format!(r#"{{"m.homeserver":{{"base_url":"{url}"}}}}"#);
        assert_eq!(serving(200, &url("https://other.example")), ["well-known-client-not-ours"]);
        assert_eq!(
            serving(200, &url("http://matrix.example.org")),
            ["well-known-client-invalid", "well-known-client-not-ours"]
        );
        assert!(serving(200, &url("https://matrix.example.org/")).is_empty());
    }

    #[test]
    fn browsers_need_to_be_allowed_exactly_once() {
        let document = r#"{"m.homeserver":{"base_url":"https://matrix.example.org"}}"#;
        assert_eq!(
            judged(|seen| seen.client_document[0].end = End::Answer(answer(200, document))),
            ["well-known-client-cors"]
        );
        let twice = |seen: &mut Observed| {
            let mut answer = with_cors(200, document);
            answer.headers.append("access-control-allow-origin", "*".parse().unwrap());
            seen.client_document[0].end = End::Answer(answer);
        };
        assert_eq!(judged(twice), ["well-known-client-cors"]);
    }

    #[test]
    fn the_api_must_answer_where_clients_are_sent() {
        let api = |end: End| judged(|seen| seen.client_api.as_mut().unwrap().versions[0].end = end);
        assert_eq!(api(End::UnknownHost("x".to_owned())), ["client-api-unreachable"]);
        assert_eq!(api(End::Answer(with_cors(502, ""))), ["client-api-unreachable"]);
        assert_eq!(api(End::Answer(with_cors(200, "{}"))), ["client-api-unreachable"]);
        assert_eq!(api(End::Answer(answer(200, r#"{"versions":[]}"#))), ["client-api-cors"]);
    }
}
