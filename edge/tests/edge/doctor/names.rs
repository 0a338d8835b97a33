//! DNS and service records that lead astray.

use super::World;
use super::name_server::NameServer;
use crate::own_network::in_own_network;

#[test]
fn a_name_server_that_is_not_there() {
    in_own_network(async {
        let report = World::new().ask("example.org").await;
        let ids: Vec<_> = report.findings().iter().map(|finding| finding["id"].clone()).collect();
        assert!(ids.contains(&"dns-failed".into()) && report.code == Some(1), "{ids:?}");
    });
}

#[test]
fn a_name_that_the_dns_does_not_know() {
    in_own_network(async {
        let world = World::new();
        let _name_server = NameServer::start(&world.records).await;
        let report = world.ask("nowhere.example.org").await;
        report.finds(
            &["dns-no-such-name", "unreachable-everywhere", "well-known-client-missing", "well-known-server-missing"],
            1,
        );
    });
}

#[test]
fn a_delegated_name_without_addresses() {
    in_own_network(async {
        let mut world = World::new();
        world.records.truncate(2);
        world.records.push("matrix IN TXT nothing".to_owned());
        world.examine().await.finds(&["client-api-unreachable", "dns-no-address", "unreachable-everywhere"], 1);
    });
}

#[test]
fn a_service_record_that_leads_to_an_alias() {
    in_own_network(async {
        let records = ["_matrix-fed._tcp IN SRV 10 5 8448 alias", "alias IN CNAME matrix"];
        let report = World::by_service(&records).examine().await;
        let mend = "_matrix-fed._tcp.example.org. 3600 IN SRV 10 5 8448 matrix.example.org.";
        report.finds_one("srv-alias", 1, "alias.example.org, is an alias (CNAME) of matrix.example.org", mend);
    });
}

#[test]
fn a_service_record_that_leads_to_a_port_where_nobody_listens() {
    in_own_network(async {
        let report = World::by_service(&["_matrix-fed._tcp IN SRV 10 5 8449 matrix"]).examine().await;
        report.finds(&["unreachable", "unreachable", "well-known-server-missing"], 1);
        let mends: Vec<_> = report.findings().iter().map(|finding| finding["mend"]["line"].to_string()).collect();
        assert!(mends.iter().any(|line| line.contains("[listen] federation = [\\\"0.0.0.0:8449\\\"]")), "{mends:?}");
    });
}

#[test]
fn a_service_record_of_the_deprecated_name_alone() {
    in_own_network(async {
        let report = World::by_service(&["_matrix._tcp IN SRV 10 5 8448 matrix"]).examine().await;
        report.finds_one(
            "srv-deprecated",
            0,
            "only the deprecated",
            "_matrix-fed._tcp.example.org. 3600 IN SRV 10 5 8448",
        );
    });
}

#[test]
fn a_service_record_that_says_there_is_no_service() {
    in_own_network(async {
        let report = World::by_service(&["_matrix-fed._tcp IN SRV 0 0 0 ."]).examine().await;
        report.finds(&["srv-none-offered", "unreachable-everywhere", "well-known-server-missing"], 1);
    });
}

#[test]
fn service_records_that_contradict_each_other() {
    in_own_network(async {
        let records = ["_matrix-fed._tcp IN SRV 10 5 8448 matrix", "_matrix._tcp IN SRV 10 5 443 matrix"];
        World::by_service(&records).examine().await.finds_one(
            "srv-differs",
            0,
            "something else",
            "SRV 10 5 443 matrix",
        );
    });
}
