//! Whether `/.well-known/matrix/server` sends other servers where the operator means.

use std::collections::BTreeSet;
use std::time::SystemTime;

use serde_json::Value;

use super::super::finding::{Finding, Mend, Severity, Verdict};
use super::super::observed::{Answer, End, Fetch, Observed};
use super::cdn::front;
use crate::server_name::ServerName;

const CHECK: &str = "well-known server";
const IGNORED: &str = "other servers ignore the document and go on to service records and port 8448";

/// Whom a valid document names. This is what other servers make of the fetches.
pub(crate) fn delegated(fetches: &[Fetch], now: SystemTime) -> Option<ServerName> {
    let named = |fetch: &Fetch| {
        let answer = fetch.answer().filter(|answer| answer.status == 200 && is_secure(fetch, now))?;
        answer.object().ok()?.get("m.server")?.as_str()?.parse().ok()
    };
    fetches.iter().find_map(named)
}

fn is_secure(fetch: &Fetch, now: SystemTime) -> bool {
    fetch.tls.last().is_some_and(|(_, tls)| tls.is_valid_at(now))
}

pub(super) fn judge(observed: &Observed) -> Verdict {
    let Some(first) = observed.server_document.first() else {
        return Verdict::new(CHECK, "not asked for: the name has a port or is an address", Vec::new());
    };
    let mut findings = Vec::new();
    for fetch in &observed.server_document {
        // What one address does wrong, the next one mostly does too: once is enough.
        let new: Vec<Finding> = judge_one(observed, fetch)
            .into_iter()
            .filter(|new| !findings.iter().any(|old: &Finding| old.id == new.id && old.seen == new.seen))
            .collect();
        findings.extend(new);
    }
    findings.extend(differs(observed));
    let summary = match delegated(&observed.server_document, observed.now) {
        Some(name) => format!("delegates to {name}"),
        None => match &first.end {
            End::Answer(answer) => format!("no delegation (status {})", answer.status),
            End::Failed(failure) => format!("no delegation ({failure})"),
            _ => "no delegation".to_owned(),
        },
    };
    Verdict::new(CHECK, summary, findings)
}

fn judge_one(observed: &Observed, fetch: &Fetch) -> Vec<Finding> {
    let finding = |id, severity, seen: String, why, mend| Finding { id, severity, at: fetch.place(), seen, why, mend };
    let error = |id, seen: String, mend| vec![finding(id, Severity::Error, seen, IGNORED, mend)];
    let remove =
        || Mend::system("# what answers in front of the edge must pass /.well-known/matrix/ on, without a redirect");
    match &fetch.end {
        End::Loop(url) => {
            error("well-known-server-redirect-loop", format!("redirects lead back to {}", super::quoted(url)), remove())
        }
        End::TooManyRedirects => {
            error("well-known-server-redirects", "there is no end of redirects".to_owned(), remove())
        }
        End::LeavesTls(url) => error(
            "well-known-server-redirects",
            format!("a redirect leads out of TLS, to {}", super::quoted(url)),
            remove(),
        ),
        End::BadLocation(location) => error(
            "well-known-server-redirects",
            format!("a redirect leads to \"{}\"", super::quoted(location)),
            remove(),
        ),
        End::UnknownHost(host) if !fetch.hops.is_empty() => {
            error("well-known-server-redirects", format!("a redirect leads to {host}, which has no address"), remove())
        }
        End::UnknownHost(_) => missing(observed, fetch, "the host has no address".to_owned()),
        End::Failed(failure) => missing(observed, fetch, failure.to_string()),
        End::Answer(answer) => judge_answer(observed, fetch, answer),
    }
}

fn judge_answer(observed: &Observed, fetch: &Fetch, answer: &Answer) -> Vec<Finding> {
    let error = |id, seen: String, why, mend| {
        vec![Finding { id, severity: Severity::Error, at: fetch.place(), seen, why, mend }]
    };
    if answer.status == 404 || answer.status == 410 {
        return missing(observed, fetch, format!("the status is {}", answer.status));
    }
    if answer.status != 200 {
        return error(
            "well-known-server-status",
            format!("the status is {}{}", answer.status, behind(answer)),
            IGNORED,
            publish(observed),
        );
    }
    if !is_secure(fetch, observed.now) {
        let seen = "it is served with a certificate that others refuse".to_owned();
        let host = observed.name.host_text();
        return error(
            "well-known-server-tls",
            seen,
            IGNORED,
            Mend::edge(format!("[[tls.certificates]]   # one that holds {host}")),
        );
    }
    if answer.is_cut {
        return error("well-known-server-too-large", "it is larger than 64 KiB".to_owned(), IGNORED, publish(observed));
    }
    let object = match answer.object() {
        Ok(object) => object,
        Err(_) if answer.is_page() => {
            let seen = format!("a web page is served instead of the document{}", behind(answer));
            return error("well-known-server-page", seen, IGNORED, publish(observed));
        }
        Err(why) => {
            return error(
                "well-known-server-json",
                format!("it is no JSON object: {}", super::quoted(&why)),
                IGNORED,
                publish(observed),
            );
        }
    };
    let Some(server) = object.get("m.server").and_then(Value::as_str) else {
        let seen = format!("it has no m.server{}", behind(answer));
        return error("well-known-server-content", seen, IGNORED, publish(observed));
    };
    let name = match server.parse::<ServerName>() {
        Ok(name) => name,
        Err(why) => {
            let seen = format!("its m.server, \"{}\", is not HOST or HOST:PORT: {why}", super::quoted(server));
            return error("well-known-server-invalid", seen, IGNORED, publish(observed));
        }
    };
    let mut findings = Vec::new();
    findings.extend(unlike_configured(observed, fetch, answer, server));
    findings.extend(to_itself(observed, fetch, &name));
    findings.extend(caching(fetch, answer));
    findings
}

/// Not to have the document is fine as long as nobody counts on it.
fn missing(observed: &Observed, fetch: &Fetch, seen: String) -> Vec<Finding> {
    let configured = observed.expected.as_ref().is_some_and(|expected| expected.federation_address.is_some());
    let reachable = observed.endpoints.iter().any(|endpoint| endpoint.answers().next().is_some());
    if !configured && reachable {
        return Vec::new();
    }
    let why = if configured {
        "the configuration delegates, but other servers do not learn of it"
    } else {
        "without it other servers try service records and port 8448, and nothing answers there"
    };
    let (id, severity) = ("well-known-server-missing", Severity::Error);
    vec![Finding { id, severity, at: fetch.place(), seen, why, mend: publish(observed) }]
}

fn publish(observed: &Observed) -> Mend {
    match observed.expected.as_ref().and_then(|expected| expected.federation_address.as_deref()) {
        Some(address) => Mend::system(format!(
            "# {} port 443 must lead to the edge, which serves federation_address = \"{address}\"",
            observed.name.host_text()
        )),
        None => Mend::edge(format!("[server] federation_address = \"{}:443\"", observed.name.host_text())),
    }
}

/// Which front answered, where its headers give it away.
fn behind(answer: &Answer) -> String {
    front(&answer.headers).map_or_else(String::new, |front| format!("; {front} answered"))
}

fn unlike_configured(observed: &Observed, fetch: &Fetch, answer: &Answer, server: &str) -> Option<Finding> {
    let expected = observed.expected.as_ref()?.federation_address.as_deref()?;
    if expected == server {
        return None;
    }
    let age = answer.header("age").map_or_else(String::new, |age| format!(", {} seconds old", super::quoted(age)));
    Some(Finding {
        id: "well-known-server-not-ours",
        severity: Severity::Error,
        at: fetch.place(),
        seen: format!(
            "it says {} where the configuration says {expected}{}{age}",
            super::quoted(server),
            behind(answer)
        ),
        why: "something in front serves a document of its own or an old one, and other servers believe it",
        mend: Mend::system(format!("# purge {} from what answers in front, or let it pass to the edge", fetch.url)),
    })
}

fn to_itself(observed: &Observed, fetch: &Fetch, delegated: &ServerName) -> Option<Finding> {
    (delegated.as_str() == observed.name.as_str()).then(|| Finding {
        id: "well-known-server-to-itself",
        severity: Severity::Warning,
        at: fetch.place(),
        seen: format!("it delegates {delegated} to itself, without a port"),
        why: "it changes nothing: others look for service records and port 8448 as if it were not there",
        mend: Mend::edge(format!("[server] federation_address = \"{delegated}:443\"")),
    })
}

fn caching(fetch: &Fetch, answer: &Answer) -> Option<Finding> {
    let control = answer.header("cache-control")?.to_ascii_lowercase();
    let forbidden = control.contains("no-store") || control.contains("no-cache") || control.contains("max-age=0");
    forbidden.then(|| Finding {
        id: "well-known-server-caching",
        severity: Severity::Note,
        at: fetch.place(),
        seen: format!("Cache-Control is \"{}\"", super::quoted(&control)),
        why: "others fetch it over and over, and cannot reach this server while this host is away",
        mend: Mend::system("# what answers in front should send Cache-Control: max-age=86400"),
    })
}

/// Whether the addresses of the host agree.
fn differs(observed: &Observed) -> Option<Finding> {
    let said = |fetch: &Fetch| {
        let answer = fetch.answer()?;
        let server = answer.object().ok().and_then(|object| Some(object.get("m.server")?.as_str()?.to_owned()));
        Some(server.unwrap_or_else(|| format!("status {}", answer.status)))
    };
    let said: BTreeSet<String> = observed.server_document.iter().filter_map(said).collect();
    (said.len() > 1).then(|| Finding {
        id: "well-known-server-differs",
        severity: Severity::Error,
        at: observed.name.host_text(),
        seen: format!(
            "its addresses serve different documents: {}",
            super::quoted(&said.into_iter().collect::<Vec<_>>().join(", "))
        ),
        why: "where others look depends on which address they happen to ask",
        mend: Mend::zone(format!(
            "{}. 3600 IN A …   ; every A and AAAA record must lead to the edge",
            observed.name.host_text()
        )),
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::observed::Failure;
    use super::super::testing::{answer, fetch, ids, observed, tls};
    use super::*;

    fn judged(change: impl FnOnce(&mut Observed)) -> Vec<&'static str> {
        let mut seen = observed();
        change(&mut seen);
        ids(&judge(&seen))
    }

    fn serving(status: u16, body: &str) -> Vec<&'static str> {
        judged(|seen| seen.server_document[0].end = End::Answer(answer(status, body)))
    }

    #[test]
    fn what_is_served_is_judged() {
        assert!(serving(200, r#"{"m.server":"matrix.example.org:443"}"#).is_empty());
        assert_eq!(serving(200, "{"), ["well-known-server-json"]);
        assert_eq!(serving(200, "[]"), ["well-known-server-json"]);
        assert_eq!(serving(200, "<!DOCTYPE html><p>"), ["well-known-server-page"]);
        assert_eq!(serving(200, "{}"), ["well-known-server-content"]);
        assert_eq!(serving(200, r#"{"m.server":"https://a.example"}"#), ["well-known-server-invalid"]);
        assert_eq!(serving(200, r#"{"m.server":"other.example:443"}"#), ["well-known-server-not-ours"]);
        assert_eq!(serving(404, ""), ["well-known-server-missing"]);
        assert_eq!(serving(403, ""), ["well-known-server-status"]);
    }

    #[test]
    fn ways_that_do_not_end_are_found() {
        let ending = |end: End| judged(|seen| seen.server_document[0].end = end);
        assert_eq!(ending(End::Loop("https://a/".to_owned())), ["well-known-server-redirect-loop"]);
        assert_eq!(ending(End::TooManyRedirects), ["well-known-server-redirects"]);
        assert_eq!(ending(End::LeavesTls("http://a/".to_owned())), ["well-known-server-redirects"]);
        assert_eq!(ending(End::Failed(Failure::Refused)), ["well-known-server-missing"]);
    }

    #[test]
    fn no_document_is_fine_where_nobody_counts_on_it() {
        let quiet = |seen: &mut Observed| {
            seen.expected = None;
            seen.server_document[0].end = End::Answer(answer(404, ""));
        };
        assert!(judged(quiet).is_empty());
        let unreachable = |seen: &mut Observed| {
            quiet(seen);
            seen.endpoints.clear();
        };
        assert_eq!(judged(unreachable), ["well-known-server-missing"]);
    }

    #[test]
    fn a_document_counts_only_over_tls_that_others_accept() {
        let mut seen = observed();
        assert_eq!(delegated(&seen.server_document, seen.now).unwrap().as_str(), "matrix.example.org:443");
        seen.server_document[0].tls[0].1.holds_name = false;
        assert_eq!(delegated(&seen.server_document, seen.now), None);
        assert_eq!(ids(&judge(&seen)), ["well-known-server-tls"]);
    }

    #[test]
    fn addresses_that_disagree_are_found() {
        let second = |seen: &mut Observed| {
            let mut other =
                fetch("https://example.org/.well-known/matrix/server", answer(200, r#"{"m.server":"b.example:1"}"#));
            other.tls[0].1 = tls("example.org");
            seen.expected = None;
            seen.server_document.push(other);
        };
        assert_eq!(judged(second), ["well-known-server-differs"]);
    }

    #[test]
    fn delegation_to_itself_and_forbidden_caching_are_told() {
        let itself = |seen: &mut Observed| {
            seen.expected = None;
            let mut answer = answer(200, r#"{"m.server":"example.org"}"#);
            answer.headers.insert("cache-control", "no-store".parse().unwrap());
            seen.server_document[0].end = End::Answer(answer);
        };
        assert_eq!(judged(itself), ["well-known-server-to-itself", "well-known-server-caching"]);
    }
}
