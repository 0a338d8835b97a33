//! Whether the delegated place can be reached, over IPv4 and over IPv6.

use super::super::finding::{Finding, Mend, Severity, Verdict};
use super::super::observed::{Endpoint, Failure, Observed};

const CHECK: &str = "reachability";

pub(super) fn judge(observed: &Observed) -> Verdict {
    let (alive, dead): (Vec<&Endpoint>, Vec<&Endpoint>) =
        observed.endpoints.iter().partition(|endpoint| connects(endpoint).is_none());
    let mut findings = Vec::new();
    for endpoint in &dead {
        findings
            .extend(connects(endpoint).and_then(|failure| unreachable(observed, endpoint, failure, !alive.is_empty())));
    }
    if observed.endpoints.is_empty() {
        findings.push(Finding {
            id: "unreachable-everywhere",
            severity: Severity::Error,
            at: observed.route.host_header.clone(),
            seen: "the steps of the specification lead to no address".to_owned(),
            why: "no other server can connect",
            mend: Mend::edge(format!(
                "[server] federation_address = \"{}:443\"   # and an address for it in the DNS",
                observed.name.host_text()
            )),
        });
    }
    let reached: Vec<String> = alive.iter().map(|endpoint| endpoint.address.to_string()).collect();
    let summary = match reached.as_slice() {
        [] => "nothing answers".to_owned(),
        reached => format!("{} answer (step {} of the specification)", super::listed(reached), observed.route.step),
    };
    Verdict::new(CHECK, summary, findings)
}

/// Why no connection stands, if none does.
fn connects(endpoint: &Endpoint) -> Option<&Failure> {
    match (&endpoint.tls, &endpoint.keys) {
        (None, Err(failure)) => Some(failure),
        _ => None,
    }
}

fn unreachable(observed: &Observed, endpoint: &Endpoint, failure: &Failure, others_answer: bool) -> Option<Finding> {
    let address = endpoint.address;
    let listen = |id, why| {
        let any = if address.is_ipv6() { "[::]" } else { "0.0.0.0" };
        let key = if address.port() == 443 { "https" } else { "federation" };
        let line = format!("[listen] {key} = [\"{any}:{}\"]   # and open the port in the firewall", address.port());
        let severity = if others_answer { Severity::Warning } else { Severity::Error };
        Some(Finding { id, severity, at: address.to_string(), seen: failure.to_string(), why, mend: Mend::edge(line) })
    };
    match failure {
        // It cannot be judged from here, so it is no fault of the server's.
        Failure::NoWay(_) => Some(Finding {
            id: "unreachable-from-here",
            severity: if others_answer { Severity::Note } else { Severity::Error },
            at: address.to_string(),
            seen: failure.to_string(),
            why: "the doctor cannot tell whether others reach it",
            mend: Mend::system(format!(
                "# ask again from a machine with {}",
                if address.is_ipv6() { "IPv6" } else { "IPv4" }
            )),
        }),
        // There is somebody, who does not speak TLS: the certificates' check tells of it.
        Failure::Tls(_) | Failure::TlsTimeout(_) => None,
        _ if address.is_ipv6() && others_answer => {
            listen("unreachable-ipv6", "servers that prefer IPv6 fail, or wait before each request until they try IPv4")
        }
        _ if others_answer => listen("unreachable", "servers that choose this address fail or wait"),
        _ if observed.endpoints.len() == 1 => listen("unreachable", "no other server can connect"),
        _ => listen("unreachable", "nothing answers here, nor at the other addresses"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{ids, observed};
    use super::*;

    fn failing(which: &[usize], failure: Failure) -> Verdict {
        let mut seen = observed();
        for index in which {
            let endpoint = &mut seen.endpoints[*index];
            endpoint.tls = None;
            (endpoint.keys, endpoint.version) = (Err(failure.clone()), Err(failure.clone()));
        }
        judge(&seen)
    }

    #[test]
    fn each_address_is_told_of() {
        assert!(failing(&[], Failure::Refused).findings.is_empty());
        let one = failing(&[1], Failure::ConnectTimeout(5));
        assert_eq!((ids(&one), one.worst()), (vec!["unreachable-ipv6"], Some(Severity::Warning)));
        let one = failing(&[0], Failure::Refused);
        assert_eq!((ids(&one), one.worst()), (vec!["unreachable"], Some(Severity::Warning)));
        let all = failing(&[0, 1], Failure::Refused);
        assert_eq!((ids(&all), all.worst()), (vec!["unreachable", "unreachable"], Some(Severity::Error)));
    }

    #[test]
    fn what_this_machine_cannot_reach_is_not_blamed_on_the_server() {
        let verdict = failing(&[1], Failure::NoWay("x".to_owned()));
        assert_eq!((ids(&verdict), verdict.worst()), (vec!["unreachable-from-here"], Some(Severity::Note)));
    }

    #[test]
    fn a_route_to_nowhere_is_an_error() {
        let mut seen = observed();
        seen.endpoints.clear();
        assert_eq!(ids(&judge(&seen)), ["unreachable-everywhere"]);
    }
}
