use gatehouse_shared::config::parse_checked;
use serde::Serialize;

use super::*;

const EXAMPLE: &str = include_str!("../../../conf/edge.toml");

fn leaves(value: &serde_json::Value, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(table) => {
            for (key, value) in table {
                match value {
                    serde_json::Value::Object(_) => leaves(value, found),
                    serde_json::Value::Array(array) if array.iter().all(|element| element.is_object()) => {
                        array.iter().for_each(|element| leaves(element, found));
                    }
                    _ => found.push(key.clone()),
                }
            }
        }
        _ => unreachable!("only tables are walked"),
    }
}

#[test]
fn the_example_holds_every_key_with_a_comment() {
    let config = parse_checked::<EdgeConfig>(EXAMPLE, |_, _| {}).unwrap();
    let mut keys = Vec::new();
    leaves(&serde_json::to_value(&config).unwrap(), &mut keys);
    assert!(keys.len() > 25, "the example leaves keys out: {keys:?}");
    let lines: Vec<&str> = EXAMPLE.lines().collect();
    for key in keys {
        let at = lines.iter().position(|line| line.starts_with(&format!("{key} = ")));
        let at = at.unwrap_or_else(|| panic!("conf/edge.toml leaves {key} out"));
        assert!(lines[at - 1].starts_with('#'), "conf/edge.toml says nothing about {key}");
    }
}

#[test]
fn the_example_shows_the_defaults() {
    let config = parse_checked::<EdgeConfig>(EXAMPLE, |_, _| {}).unwrap();
    let shown = serde_json::to_value(&config.limits).unwrap();
    assert_eq!(shown, serde_json::to_value(LimitsConfig::default()).unwrap());
    shows_defaults(&config.admin);
    shows_defaults(&config.security_headers);
    shows_defaults(&config.compression);
    shows_defaults(&config.cache);
    shows_defaults(&config.overload);
    // The first route leaves out what the others show.
    let [folder, redirect, backend] = config.routes.as_slice() else { panic!("three routes are shown") };
    assert_eq!((folder.status, folder.keep_path), (redirect.status, redirect.keep_path));
    assert_eq!((&redirect.index, redirect.cache_seconds), (&folder.index, folder.cache_seconds));
    assert_eq!(
        (folder.connect_timeout_ms, folder.answer_seconds, folder.max_body_bytes),
        (backend.connect_timeout_ms, backend.answer_seconds, backend.max_body_bytes)
    );
    assert_eq!(config.upstream.health_interval_ms, upstream::health_interval_ms());
    assert_eq!(config.upstream.hold_seconds, upstream::hold_seconds());
    assert_eq!(config.upstream.connect_timeout_ms, upstream::connect_timeout_ms());
    assert_eq!(config.upstream.slow_start_seconds, upstream::slow_start_seconds());
    assert_eq!(config.upstream.failures, upstream::failures());
    assert_eq!(config.upstream.retry_percent, upstream::retry_percent());
    assert_eq!(config.upstream.retry_burst, upstream::retry_burst());
    assert_eq!(config.supervise.unwrap().stop_seconds, supervise::stop_seconds());
    assert_eq!(config.telemetry.log_filter, TelemetryConfig::default().log_filter);
}

fn shows_defaults<T: Default + Serialize>(shown: &T) {
    assert_eq!(serde_json::to_value(shown).unwrap(), serde_json::to_value(T::default()).unwrap());
}

#[test]
fn mistakes_in_routes_are_named() {
    let text = "[server]\nname = \"a\"\n[listen]\nhttp = [\"127.0.0.1:0\"]\n[upstream]\n\
                cluster_secret = \"0123456789abcdef0123456789abcdef\"\nshards = [\"127.0.0.1:1\"]\n\
                [[route]]\npath = \"/\"\n\
                [[route]]\npath = \"x\"\nhost = \"a:1\"\nredirect = \"nowhere\"\nstatus = 200\n\
                set_response_headers = { Content-Length = \"1\" }\n\
                [[route]]\npath = \"/s\"\nstatic = \"/nonexistent\"\nfallback = \"../x\"\n\
                [admin]\nrefuse_with = 500\n[server.support]\n[server.policy_server]\ned25519 = \"short\"\n";
    let mistakes = parse_checked::<EdgeConfig>(text, check).map(|_| ()).expect_err("all of it is wrong");
    let keys: Vec<&str> = mistakes.iter().map(|mistake| mistake.key.as_str()).collect();
    let expected = [
        "route[0]",
        "route[1].path",
        "route[1].host",
        "route[1].redirect",
        "route[1].status",
        "route[1].set_response_headers",
        "route[2].static",
        "route[2].fallback",
        "admin.refuse_with",
        "server.support",
        "server.policy_server.ed25519",
    ];
    assert_eq!(keys, expected);
}

#[test]
fn mistakes_that_types_allow_are_named() {
    let text = "[server]\nname = \"exa mple\"\nbase_url = \"example.org\"\n[listen]\nhttps = [\"127.0.0.1:0\"]\n\
                [upstream]\ncluster_secret = \"short\"\n[telemetry]\nlog_filter = \"a=b=c\"\notlp_endpoint = \"x\"\n";
    let mistakes = parse_checked::<EdgeConfig>(text, check).map(|_| ()).expect_err("all of it is wrong");
    let found: Vec<(&str, usize)> = mistakes.iter().map(|mistake| (mistake.key.as_str(), mistake.line)).collect();
    let expected = [
        ("tls", 0),
        ("server.name", 2),
        ("server.base_url", 3),
        ("upstream.shards", 6),
        ("upstream.cluster_secret", 7),
        ("telemetry.log_filter", 9),
        ("telemetry.otlp_endpoint", 10),
    ];
    assert_eq!(found, expected);
}
