//! Whether the DNS knows addresses for the hosts that others have to reach.

use std::net::IpAddr;

use super::super::finding::{Finding, Mend, Severity, Verdict};
use super::super::observed::{HostRecords, Lookup, Observed};

const CHECK: &str = "dns";

pub(super) fn judge(observed: &Observed) -> Verdict {
    let mut findings = Vec::new();
    let mut summary = Vec::new();
    let own = observed.own_host.as_ref();
    // A host that the route leads to must have addresses. Of the server's own, if it is another one, only the documents come.
    let leads_to = |host: &HostRecords| observed.targets.iter().any(|target| target.host == host.host);
    for host in &observed.targets {
        findings.extend(missing(host, Severity::Error));
    }
    if let Some(own) = own.filter(|own| !leads_to(own)) {
        findings.extend(missing(own, Severity::Warning));
    }
    for host in observed.targets.iter().chain(own.filter(|own| !leads_to(own))) {
        findings.extend(private(host));
        findings.extend(one_family(host));
        let addresses = host.addresses();
        if !addresses.is_empty() {
            let way = std::iter::once(&host.host).chain(&host.aliases).cloned().collect::<Vec<_>>().join(" → ");
            summary.push(format!("{way}: {}", super::listed(&addresses)));
        }
    }
    let summary = if summary.is_empty() { "no addresses".to_owned() } else { summary.join("; ") };
    Verdict::new(CHECK, summary, findings)
}

fn missing(host: &HostRecords, severity: Severity) -> Option<Finding> {
    if !host.addresses().is_empty() {
        return None;
    }
    let name = &host.host;
    let zone = Mend::zone(format!("{name}. 3600 IN A 203.0.113.1   ; this server's public address, and AAAA likewise"));
    let finding = |id, seen, why, mend| Finding { id, severity, at: name.clone(), seen, why, mend };
    Some(match (&host.v4, &host.v6) {
        (Lookup::Failed(error), _) | (_, Lookup::Failed(error)) => finding(
            "dns-failed",
            format!("the name server does not answer for it: {}", super::quoted(error)),
            "others cannot look it up either, or only as long as they remember it",
            Mend::zone(format!("{name}.   ; ask `dig +trace {name}` which name server of the zone is at fault")),
        ),
        (Lookup::NoSuchName, _) => finding(
            "dns-no-such-name",
            "the DNS does not know this name".to_owned(),
            "nobody can find this server",
            zone,
        ),
        _ => finding(
            "dns-no-address",
            match host.aliases.last() {
                Some(alias) => format!("it is an alias of {alias}, which has no address"),
                None => "the name exists, but has neither A nor AAAA records".to_owned(),
            },
            "nobody can connect to it",
            zone,
        ),
    })
}

fn private(host: &HostRecords) -> Option<Finding> {
    let private: Vec<IpAddr> = host.addresses().into_iter().filter(is_private).collect();
    let first = private.first()?;
    let kind = if first.is_ipv4() { "A" } else { "AAAA" };
    Some(Finding {
        id: "dns-private-address",
        severity: Severity::Warning,
        at: host.host.clone(),
        seen: format!("it leads to {}", super::listed(&private)),
        why: "from elsewhere these addresses lead nowhere, and careful servers refuse to call them",
        mend: Mend::zone(format!(
            "{}. 3600 IN {kind} …   ; a public address instead of {first}; or ask a public name server with --name-server",
            host.host
        )),
    })
}

fn is_private(address: &IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let shared = v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64;
            v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_unspecified() || shared
        }
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unspecified() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

fn one_family(host: &HostRecords) -> Option<Finding> {
    let (v4, v6) = (host.v4.records(), host.v6.records());
    let (lacks, kind, example) = match (v4.is_empty(), v6.is_empty()) {
        (false, true) => ("IPv6", "AAAA", "2001:db8::1"),
        (true, false) => ("IPv4", "A", "203.0.113.1"),
        _ => return None,
    };
    Some(Finding {
        id: "dns-one-family",
        // Servers with IPv4 alone are still many, those with IPv6 alone few.
        severity: if v4.is_empty() { Severity::Warning } else { Severity::Note },
        at: host.host.clone(),
        seen: format!("it has no {lacks} address"),
        why: "servers that have no other way cannot reach it",
        mend: Mend::zone(format!("{}. 3600 IN {kind} {example}", host.host)),
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{ids, observed};
    use super::*;

    fn with(change: impl FnOnce(&mut HostRecords)) -> Vec<&'static str> {
        let mut seen = observed();
        change(&mut seen.targets[0]);
        ids(&judge(&seen))
    }

    #[test]
    fn hosts_without_addresses_are_told_apart() {
        assert!(with(|_| {}).is_empty());
        let none = |host: &mut HostRecords, none: (Lookup<_>, Lookup<_>)| (host.v4, host.v6) = none;
        assert_eq!(with(|host| none(host, (Lookup::NoSuchName, Lookup::NoSuchName))), ["dns-no-such-name"]);
        assert_eq!(with(|host| none(host, (Lookup::Nothing, Lookup::Nothing))), ["dns-no-address"]);
        assert_eq!(with(|host| none(host, (Lookup::Failed("x".to_owned()), Lookup::Nothing))), ["dns-failed"]);
    }

    #[test]
    fn private_addresses_and_missing_families_are_found() {
        assert_eq!(with(|host| host.v4 = Lookup::Found(vec![[10, 0, 0, 1].into()])), ["dns-private-address"]);
        assert_eq!(with(|host| host.v4 = Lookup::Found(vec![[100, 64, 0, 1].into()])), ["dns-private-address"]);
        assert_eq!(with(|host| host.v6 = Lookup::Nothing), ["dns-one-family"]);
        assert_eq!(with(|host| host.v4 = Lookup::Nothing), ["dns-one-family"]);
    }

    #[test]
    fn an_own_host_without_addresses_is_no_error_when_the_route_leads_elsewhere() {
        let mut seen = observed();
        if let Some(own) = &mut seen.own_host {
            (own.v4, own.v6) = (Lookup::NoSuchName, Lookup::NoSuchName);
        }
        let verdict = judge(&seen);
        assert_eq!((ids(&verdict), verdict.worst()), (vec!["dns-no-such-name"], Some(Severity::Warning)));
    }
}
