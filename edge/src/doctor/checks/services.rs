//! Whether the service records say what the operator means.

use std::net::IpAddr;

use super::super::discovery::service_host;
use super::super::finding::{Finding, Mend, Severity, Verdict};
use super::super::observed::{Lookup, Observed, Service, Services};

const CHECK: &str = "srv";

pub(super) fn judge(observed: &Observed) -> Verdict {
    let mut findings = Vec::new();
    let mut summary = Vec::new();
    for services in &observed.services {
        let decides =
            matches!(observed.route.step, "3.3" | "3.4" | "4" | "5") && services.host == observed.route.tls_host;
        for (label, records) in [("_matrix-fed._tcp", &services.current), ("_matrix._tcp", &services.deprecated)] {
            let name = format!("{label}.{}", services.host);
            findings.extend(failed(&name, records));
            for service in records.records() {
                summary.push(format!("{name} → {}:{}", service.target, service.port));
                // What nobody follows hurts nobody.
                if decides {
                    findings.extend(service_findings(observed, &name, service));
                }
            }
        }
        findings.extend(deprecated(services));
        findings.extend(overruled(observed, services, decides));
    }
    let summary = if summary.is_empty() { "none, and none are needed".to_owned() } else { summary.join("; ") };
    Verdict::new(CHECK, summary, findings)
}

fn failed(name: &str, records: &Lookup<Service>) -> Option<Finding> {
    let Lookup::Failed(error) = records else { return None };
    Some(Finding {
        id: "srv-failed",
        severity: Severity::Warning,
        at: name.to_owned(),
        seen: format!("the name server does not answer for it: {}", super::quoted(error)),
        why: "other servers give up, or wait for it each time, instead of going on to port 8448",
        mend: Mend::zone(format!("{name}.   ; its name server must answer for SRV, if only that there are none")),
    })
}

fn service_findings(observed: &Observed, name: &str, service: &Service) -> Option<Finding> {
    let Service { target, port, .. } = service;
    let finding =
        |id, seen, why, mend| Some(Finding { id, severity: Severity::Error, at: name.to_owned(), seen, why, mend });
    let line = |target: &str, port: u16| Mend::zone(format!("{name}. 3600 IN SRV 10 5 {port} {target}."));
    if target.is_empty() {
        let seen = "its target is the root, \".\"".to_owned();
        let why = "it says that this server does not federate (RFC 2782), and others believe it";
        return finding("srv-none-offered", seen, why, line(&observed.route.tls_host, 8448));
    }
    if target.parse::<IpAddr>().is_ok() {
        let seen = format!("its target, {target}, is an address");
        return finding(
            "srv-target-address",
            seen,
            "a target is looked up as a name, and no such name exists",
            line("matrix.example.org", *port),
        );
    }
    if *port == 0 {
        let why = "nobody can connect to port 0";
        return finding("srv-port", "its port is 0".to_owned(), why, line(target, 8448));
    }
    let host = observed.targets.iter().find(|host| host.host == *target)?;
    if let Some(alias) = host.aliases.last() {
        let seen = format!("its target, {target}, is an alias (CNAME) of {alias}");
        let why = "a target must not be an alias (RFC 2782), and some servers do not follow it";
        return finding("srv-alias", seen, why, line(alias, *port));
    }
    None
}

fn deprecated(services: &Services) -> Option<Finding> {
    let [first, ..] = services.deprecated.records() else { return None };
    let host = &services.host;
    let mend = Mend::zone(format!("_matrix-fed._tcp.{host}. 3600 IN SRV 10 5 {} {}.", first.port, first.target));
    let finding = |id, severity, seen: &str, why| {
        Some(Finding {
            id,
            severity,
            at: format!("_matrix._tcp.{host}"),
            seen: seen.to_owned(),
            why,
            mend: mend.clone(),
        })
    };
    let mut places = [services.current.records(), services.deprecated.records()]
        .map(|records| records.iter().map(|service| (service.target.as_str(), service.port)).collect::<Vec<_>>());
    places.iter_mut().for_each(|list| list.sort_unstable());
    let [current, old] = &places;
    if current.is_empty() {
        let why = "the name is deprecated since version 1.8 of the specification, and newer servers may not ask for it";
        return finding("srv-deprecated", Severity::Warning, "only the deprecated record is there", why);
    }
    if current != old {
        let why = "older servers are led to another place than newer ones";
        return finding("srv-differs", Severity::Warning, "it says something else than _matrix-fed._tcp", why);
    }
    None
}

fn overruled(observed: &Observed, services: &Services, decides: bool) -> Option<Finding> {
    let own = service_host(&observed.name)? == services.host;
    let any = [&services.current, &services.deprecated].into_iter().find(|records| !records.records().is_empty())?;
    if decides || !own {
        return None;
    }
    let [first, ..] = any.records() else { return None };
    Some(Finding {
        id: "srv-unused",
        severity: Severity::Note,
        at: services.host.clone(),
        seen: format!("a record leads to {}:{}, but /.well-known/matrix/server comes first", first.target, first.port),
        why: "nobody follows it, and whoever changes it will wonder",
        mend: Mend::zone(format!("; remove _matrix-fed._tcp.{0} and _matrix._tcp.{0}", services.host)),
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{by_service, host, ids};
    use super::*;

    fn judged(change: impl FnOnce(&mut Observed)) -> Vec<&'static str> {
        let mut seen = by_service();
        change(&mut seen);
        ids(&judge(&seen))
    }

    fn record(target: &str, port: u16) -> Lookup<Service> {
        Lookup::Found(vec![Service { priority: 10, weight: 5, port, target: target.to_owned() }])
    }

    #[test]
    fn a_target_must_be_a_host_name_of_its_own() {
        assert!(judged(|_| {}).is_empty());
        assert_eq!(judged(|seen| seen.services[0].current = record("", 0)), ["srv-none-offered"]);
        assert_eq!(judged(|seen| seen.services[0].current = record("192.0.2.1", 8448)), ["srv-target-address"]);
        assert_eq!(judged(|seen| seen.services[0].current = record("matrix.example.org", 0)), ["srv-port"]);
        let aliased = |seen: &mut Observed| {
            seen.targets = vec![host("matrix.example.org")];
            seen.targets[0].aliases = vec!["real.example.org".to_owned()];
        };
        assert_eq!(judged(aliased), ["srv-alias"]);
    }

    #[test]
    fn the_deprecated_name_is_told_of() {
        let deprecated = |seen: &mut Observed| {
            seen.route.step = "5";
            seen.services[0].current = Lookup::NoSuchName;
            seen.services[0].deprecated = record("matrix.example.org", 8448);
        };
        assert_eq!(judged(deprecated), ["srv-deprecated"]);
        assert_eq!(judged(|seen| seen.services[0].deprecated = record("b.example", 1)), ["srv-differs"]);
        assert!(judged(|seen| seen.services[0].deprecated = seen.services[0].current.clone()).is_empty());
        assert_eq!(judged(|seen| seen.services[0].deprecated = Lookup::Failed("x".to_owned())), ["srv-failed"]);
    }

    #[test]
    fn records_that_the_document_overrules_are_told_of() {
        let overruled = |seen: &mut Observed| {
            seen.route.step = "3.2";
            seen.route.tls_host = "elsewhere.example".to_owned();
        };
        assert_eq!(judged(overruled), ["srv-unused"]);
    }
}
