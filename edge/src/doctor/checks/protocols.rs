//! Whether HTTP/1.1 and HTTP/2 both work at the delegated place.

use super::super::finding::{Finding, Mend, Severity, Verdict};
use super::super::observed::{Endpoint, Failure, Http2, Observed};

const CHECK: &str = "http";

pub(super) fn judge(observed: &Observed) -> Verdict {
    let findings: Vec<Finding> =
        observed.endpoints.iter().flat_map(|endpoint| [first(endpoint), second(endpoint)]).flatten().collect();
    let spoken = |works: bool, name| works.then_some(name);
    let one = observed.endpoints.iter().any(|endpoint| endpoint.answers().next().is_some());
    let two = observed.endpoints.iter().any(|endpoint| endpoint.http2 == Http2::Works);
    let spoken: Vec<&str> = [spoken(one, "HTTP/1.1"), spoken(two, "HTTP/2")].into_iter().flatten().collect();
    let summary =
        if spoken.is_empty() { "nothing is spoken".to_owned() } else { format!("{} work", spoken.join(" and ")) };
    Verdict::new(CHECK, summary, findings)
}

fn first(endpoint: &Endpoint) -> Option<Finding> {
    let failure = match (&endpoint.keys, &endpoint.version) {
        (Err(failure), Err(_)) => failure,
        _ => return None,
    };
    // What fails before HTTP is another check's.
    let failed = matches!(failure, Failure::Http(_) | Failure::HttpTimeout(_) | Failure::NotSpoken(_));
    failed.then(|| Finding {
        id: "http1-broken",
        severity: Severity::Error,
        at: endpoint.address.to_string(),
        seen: failure.to_string(),
        why: "most homeservers speak HTTP/1.1 alone",
        mend: Mend::system(
            "# the edge speaks HTTP/1.1 and HTTP/2 on every port with TLS: let nothing else end TLS in front of it",
        ),
    })
}

fn second(endpoint: &Endpoint) -> Option<Finding> {
    let (id, severity, seen, why) = match &endpoint.http2 {
        Http2::Works | Http2::NotTried => return None,
        Http2::NotOffered => (
            "http2-not-offered",
            Severity::Note,
            "HTTP/2 is not spoken".to_owned(),
            "it works, but something else than the edge ends TLS here",
        ),
        Http2::Broken(seen) => (
            "http2-broken",
            Severity::Error,
            format!("HTTP/2 is agreed upon, and then {}", super::quoted(seen)),
            "clients and servers that speak HTTP/2 do not try HTTP/1.1 again",
        ),
    };
    let mend = Mend::system("# let the edge itself end TLS here, or turn HTTP/2 off in what does");
    Some(Finding { id, severity, at: endpoint.address.to_string(), seen, why, mend })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{ids, observed};
    use super::*;

    fn judged(change: impl FnOnce(&mut Endpoint)) -> Vec<&'static str> {
        let mut seen = observed();
        change(&mut seen.endpoints[0]);
        ids(&judge(&seen))
    }

    #[test]
    fn both_versions_must_work() {
        assert!(judged(|_| {}).is_empty());
        assert_eq!(judged(|endpoint| endpoint.http2 = Http2::NotOffered), ["http2-not-offered"]);
        assert_eq!(judged(|endpoint| endpoint.http2 = Http2::Broken("x".to_owned())), ["http2-broken"]);
        let broken = |endpoint: &mut Endpoint| {
            endpoint.keys = Err(Failure::Http("x".to_owned()));
            endpoint.version = Err(Failure::Http("x".to_owned()));
        };
        assert_eq!(judged(broken), ["http1-broken"]);
    }
}
