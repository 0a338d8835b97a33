//! Whether the certificates are of the right name, of somebody trusted, and alive.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use super::super::finding::{Finding, Mend, Severity, Verdict};
use super::super::observed::{CertificateSeen, Failure, Observed, TlsSeen, Trust, unix_seconds};

const CHECK: &str = "certificates";
const DAY: i64 = 24 * 60 * 60;
/// A certificate of a usual length should have been renewed by then.
const SOON: i64 = 14 * DAY;

pub(super) fn judge(observed: &Observed) -> Verdict {
    let mut findings: Vec<Finding> = Vec::new();
    let mut least: Option<i64> = None;
    for (address, tls) in handshakes(observed) {
        for new in judge_one(&format!("{} at {address}", tls.asked), tls, observed.now) {
            // The same certificate at the next address of the host has the same faults.
            let of_host = format!("{} at ", tls.asked);
            let same = |old: &Finding| old.id == new.id && old.seen == new.seen && old.at.starts_with(&of_host);
            if !findings.iter().any(same) {
                findings.push(new);
            }
        }
        least = least.into_iter().chain(tls.chain.first().map(|leaf| leaf.not_after)).min();
    }
    for endpoint in &observed.endpoints {
        if let Err(failure @ (Failure::Tls(_) | Failure::TlsTimeout(_))) = &endpoint.keys {
            findings.push(handshake(&endpoint.address.to_string(), &observed.route.tls_host, failure));
        }
    }
    let summary = match least {
        Some(end) => {
            format!("valid for {} more days at least", (end.saturating_sub(unix_seconds(observed.now)) / DAY).max(0))
        }
        None => "none was shown".to_owned(),
    };
    Verdict::new(CHECK, summary, findings)
}

/// Every handshake that counts: of the delegated place, of a document that is served, and of the clients' place.
fn handshakes(observed: &Observed) -> impl Iterator<Item = (SocketAddr, &TlsSeen)> {
    let federation = observed.endpoints.iter().filter_map(|endpoint| Some((endpoint.address, endpoint.tls.as_ref()?)));
    // Where there is no document, nobody minds with which certificate it is not there.
    let documents = observed.server_document.iter().chain(&observed.client_document);
    let served = documents.filter(|fetch| fetch.answer().is_some_and(|answer| answer.status == 200));
    let api = observed.client_api.iter().flat_map(|api| &api.versions);
    let fetched = served.chain(api).flat_map(|fetch| fetch.tls.iter().map(|(address, tls)| (*address, tls)));
    federation.chain(fetched)
}

fn handshake(place: &str, host: &str, failure: &Failure) -> Finding {
    Finding {
        id: "tls-handshake",
        severity: Severity::Error,
        at: place.to_owned(),
        seen: failure.to_string(),
        why: "other servers speak TLS there and nothing else",
        mend: Mend::edge(format!("[[tls.certificates]]   # one that holds {host}, served on this port")),
    }
}

fn judge_one(place: &str, tls: &TlsSeen, now: SystemTime) -> Vec<Finding> {
    let host = tls.asked.as_str();
    let why = "clients and other servers refuse the connection";
    let finding = |id, severity, seen, mend| Finding { id, severity, at: place.to_owned(), seen, why, mend };
    let Some(leaf) = tls.chain.first() else {
        let seen = "what is shown is no certificate".to_owned();
        return vec![finding(
            "tls-nonsense",
            Severity::Error,
            seen,
            Mend::edge("[[tls.certificates]] chain = …   # a PEM file, leaf first"),
        )];
    };
    let mut findings = Vec::new();
    let now = unix_seconds(now);
    findings.extend(dates(place, host, leaf, now));
    if !tls.holds_name {
        let names = if leaf.names.is_empty() { "no name at all".to_owned() } else { super::listed(&leaf.names) };
        let seen = format!("the certificate holds {}, not {host}", super::quoted(&names));
        let mend = Mend::edge(format!("[[tls.certificates]] chain = …   # a certificate that holds {host}"));
        findings.push(finding("tls-wrong-name", Severity::Error, seen, mend));
    }
    findings.extend(trust(tls, leaf).map(|(id, seen, mend)| finding(id, Severity::Error, seen, mend)));
    findings
}

fn dates(place: &str, host: &str, leaf: &CertificateSeen, now: i64) -> Option<Finding> {
    let finding = |id, severity, seen, why| {
        let mend = Mend::edge(format!("[[tls.certificates]] chain = …   # a renewed certificate for {host}"));
        Some(Finding { id, severity, at: place.to_owned(), seen, why, mend })
    };
    let refused = "clients and other servers refuse the connection";
    if now > leaf.not_after {
        let seen =
            format!("it ended on {}, {} days ago", date(leaf.not_after), now.saturating_sub(leaf.not_after) / DAY);
        return finding("tls-expired", Severity::Error, seen, refused);
    }
    if now < leaf.not_before {
        let seen = format!("it begins on {} only", date(leaf.not_before));
        return finding("tls-not-yet-valid", Severity::Error, seen, refused);
    }
    let left = leaf.not_after.saturating_sub(now);
    // One that lives for days is renewed within its last third, one that lives for months within its last weeks.
    let soon = SOON.min(leaf.not_after.saturating_sub(leaf.not_before) / 4);
    if left < soon {
        let seen = format!("it ends on {}, in {} days", date(leaf.not_after), left / DAY);
        return finding("tls-expires-soon", Severity::Warning, seen, "it should have been renewed by now");
    }
    None
}

fn trust(tls: &TlsSeen, leaf: &CertificateSeen) -> Option<(&'static str, String, Mend)> {
    let last = tls.chain.last().unwrap_or(leaf);
    match &tls.trust {
        Trust::Trusted => None,
        Trust::UnknownIssuer if last.is_self_issued => {
            let seen = format!("the chain leads to {}, whom nobody trusts", super::quoted(&last.subject));
            Some((
                "tls-untrusted",
                seen,
                Mend::edge("[[tls.certificates]] chain = …   # of an authority that the public trusts"),
            ))
        }
        Trust::UnknownIssuer => {
            let seen = format!(
                "the chain stops at {}; the certificate of its issuer, {}, is neither sent nor trusted",
                super::quoted(&last.subject),
                super::quoted(&last.issuer)
            );
            let mend = Mend::edge(
                "[[tls.certificates]] chain = \"…/fullchain.pem\"   # leaf and intermediates, not the leaf alone",
            );
            Some(("tls-chain-incomplete", seen, mend))
        }
        Trust::Expired => {
            let seen = "a certificate above the leaf has expired".to_owned();
            Some((
                "tls-chain-expired",
                seen,
                Mend::edge("[[tls.certificates]] chain = …   # with the authority's present intermediates"),
            ))
        }
        Trust::Other(error) => Some((
            "tls-invalid",
            super::quoted(error),
            Mend::edge("[[tls.certificates]] chain = …   # a certificate for a server"),
        )),
    }
}

fn date(seconds: i64) -> String {
    let since = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
    SystemTime::UNIX_EPOCH
        .checked_add(since)
        .filter(|_| seconds < 253_402_300_800)
        .map_or_else(|| "a day that no calendar has".to_owned(), httpdate::fmt_http_date)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{NOW, ids, observed};
    use super::*;

    fn judged(change: impl Fn(&mut TlsSeen)) -> Verdict {
        let mut seen = observed();
        for endpoint in &mut seen.endpoints {
            endpoint.tls.iter_mut().for_each(&change);
        }
        judge(&seen)
    }

    #[test]
    fn the_same_fault_at_two_addresses_is_told_once() {
        assert!(judged(|_| {}).findings.is_empty());
        assert_eq!(ids(&judged(|tls| tls.holds_name = false)), ["tls-wrong-name"]);
    }

    #[test]
    fn dates_are_judged_by_the_length_of_the_life() {
        let lives = |before: i64, after: i64| {
            ids(&judged(|tls| (tls.chain[0].not_before, tls.chain[0].not_after) = (NOW + before, NOW + after)))
        };
        assert_eq!(lives(-90 * DAY, -1), ["tls-expired"]);
        assert_eq!(lives(DAY, 90 * DAY), ["tls-not-yet-valid"]);
        assert_eq!(lives(-80 * DAY, 10 * DAY), ["tls-expires-soon"]);
        assert!(lives(-60 * DAY, 30 * DAY).is_empty());
        // Six days in all, three to go.
        assert!(lives(-3 * DAY, 3 * DAY).is_empty());
        assert_eq!(lives(-5 * DAY, DAY), ["tls-expires-soon"]);
        assert!(lives(0, i64::MAX - NOW).is_empty());
    }

    #[test]
    fn chains_are_told_apart() {
        assert_eq!(ids(&judged(|tls| tls.trust = Trust::UnknownIssuer)), ["tls-chain-incomplete"]);
        let self_made = |tls: &mut TlsSeen| {
            tls.trust = Trust::UnknownIssuer;
            tls.chain[0].is_self_issued = true;
        };
        assert_eq!(ids(&judged(self_made)), ["tls-untrusted"]);
        assert_eq!(ids(&judged(|tls| tls.trust = Trust::Expired)), ["tls-chain-expired"]);
        assert_eq!(ids(&judged(|tls| tls.trust = Trust::Other("x".to_owned()))), ["tls-invalid"]);
        assert_eq!(ids(&judged(|tls| tls.chain.clear())), ["tls-nonsense"]);
    }

    #[test]
    fn a_failed_handshake_is_an_error() {
        let mut seen = observed();
        seen.endpoints[0].tls = None;
        seen.endpoints[0].keys = Err(Failure::Tls("x".to_owned()));
        assert_eq!(ids(&judge(&seen)), ["tls-handshake"]);
    }
}
