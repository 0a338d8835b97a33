//! Where other servers look for a server, by the steps of the specification. No I/O.
//!
//! Specification: server-server API, "Resolving server names". The steps bear its numbers.

use super::observed::{Service, Services};
use crate::server_name::{Host, ServerName};

/// The port of federation where nothing else is said.
pub(crate) const DEFAULT_PORT: u16 = 8448;

/// A host and a port to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// Where others connect, and what they expect there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    /// The step of the specification that decided.
    pub(crate) step: &'static str,
    /// What the `Host` header says.
    pub(crate) host_header: String,
    /// The host that the certificate must bear.
    pub(crate) tls_host: String,
    pub(crate) targets: Vec<Target>,
}

/// The host whose service records decide, where they do: a name without a port.
pub(crate) fn service_host(name: &ServerName) -> Option<&str> {
    match (&name.host, name.port) {
        (Host::Name(host), None) => Some(host),
        _ => None,
    }
}

/// The route to `name`. `delegated` is what a valid well-known document names; `services` are the service records of
/// the host that decides (see [`service_host`]).
pub(crate) fn route(name: &ServerName, delegated: Option<&ServerName>, services: Option<&Services>) -> Route {
    let decides = delegated.unwrap_or(name);
    let of = |for_own: &'static str, for_delegated: &'static str| match delegated {
        Some(_) => for_delegated,
        None => for_own,
    };
    let direct = |step, port| Route {
        step,
        host_header: decides.as_str().to_owned(),
        tls_host: decides.host_text(),
        targets: vec![Target { host: decides.host_text(), port }],
    };
    let host = match (&decides.host, decides.port) {
        (Host::Address(_), port) => return direct(of("1", "3.1"), port.unwrap_or(DEFAULT_PORT)),
        (Host::Name(_), Some(port)) => return direct(of("2", "3.2"), port),
        (Host::Name(host), None) => host,
    };
    let records = services.filter(|services| services.host == *host);
    let found = records.and_then(|services| {
        let current = services.current.records();
        let deprecated = services.deprecated.records();
        match (current, deprecated) {
            ([], []) => None,
            ([], old) => Some((of("5", "3.4"), old)),
            (new, _) => Some((of("4", "3.3"), new)),
        }
    });
    let Some((step, services)) = found else { return direct(of("6", "3.5"), DEFAULT_PORT) };
    let mut services: Vec<&Service> = services.iter().filter(|service| !service.target.is_empty()).collect();
    services.sort_by_key(|service| (service.priority, std::cmp::Reverse(service.weight)));
    let targets =
        services.into_iter().map(|service| Target { host: service.target.clone(), port: service.port }).collect();
    Route { step, host_header: host.clone(), tls_host: host.clone(), targets }
}

#[cfg(test)]
mod tests {
    use super::super::observed::Lookup;
    use super::*;

    fn name(text: &str) -> ServerName {
        text.parse().unwrap()
    }

    fn services(host: &str, current: &[(u16, &str)], deprecated: &[(u16, &str)]) -> Services {
        let records = |list: &[(u16, &str)]| match list {
            [] => Lookup::NoSuchName,
            list => {
                let record = |(port, target): &(u16, &str)| Service {
                    priority: 1,
                    weight: 1,
                    port: *port,
                    target: (*target).to_owned(),
                };
                Lookup::Found(list.iter().map(record).collect())
            }
        };
        Services { host: host.to_owned(), current: records(current), deprecated: records(deprecated) }
    }

    #[test]
    fn the_steps_come_in_the_order_of_the_specification() {
        let fed = services("a.example", &[(443, "m.example")], &[(1, "old.example")]);
        let old = services("a.example", &[], &[(1, "old.example")]);
        let delegated_fed = services("b.example", &[(8449, "m.example")], &[]);
        for (own, delegated, services, step, host, target, port) in [
            ("192.0.2.1", None, None, "1", "192.0.2.1", "192.0.2.1", 8448),
            ("[::1]:9", None, None, "1", "[::1]:9", "[::1]", 9),
            ("a.example:7", None, Some(&fed), "2", "a.example:7", "a.example", 7),
            ("a.example", Some("192.0.2.1"), None, "3.1", "192.0.2.1", "192.0.2.1", 8448),
            ("a.example", Some("b.example:443"), Some(&fed), "3.2", "b.example:443", "b.example", 443),
            ("a.example", Some("b.example"), Some(&delegated_fed), "3.3", "b.example", "m.example", 8449),
            ("a.example", Some("b.example"), Some(&fed), "3.5", "b.example", "b.example", 8448),
            ("a.example", None, Some(&fed), "4", "a.example", "m.example", 443),
            ("a.example", None, Some(&old), "5", "a.example", "old.example", 1),
            ("a.example", None, None, "6", "a.example", "a.example", 8448),
        ] {
            let delegated = delegated.map(name);
            let route = route(&name(own), delegated.as_ref(), services);
            assert_eq!((route.step, route.host_header.as_str()), (step, host), "{own}");
            assert_eq!(route.targets, [Target { host: target.to_owned(), port }], "{own}");
        }
    }

    #[test]
    fn lower_priorities_come_first_and_the_root_is_no_target() {
        let mut records = services("a.example", &[(1, "c"), (2, "b"), (3, "")], &[]);
        if let Lookup::Found(list) = &mut records.current {
            list[0].priority = 9;
        }
        let targets = route(&name("a.example"), None, Some(&records)).targets;
        assert_eq!(targets.iter().map(|target| target.host.as_str()).collect::<Vec<_>>(), ["b", "c"]);
    }
}
