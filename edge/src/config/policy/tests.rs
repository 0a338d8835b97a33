use gatehouse_shared::config::parse_checked;

use super::*;

const EXAMPLE: &str = include_str!("../../../../conf/policy.toml");

fn parse(text: &str) -> Result<Policy, Vec<gatehouse_shared::config::Mistake>> {
    parse_checked(text, Policy::check)
}

#[test]
fn the_example_is_the_built_in_policy() {
    let example = parse(EXAMPLE).unwrap();
    assert_eq!(serde_json::to_value(&example).unwrap(), serde_json::to_value(Policy::default()).unwrap());
}

#[test]
fn the_example_says_something_about_every_key() {
    let known = "ipv4_prefix ipv6_prefix exempt ignore deny allow per_client max_header_fields min_bytes_per_second \
                 slow_seconds also client token user origin feeds counts distinct maxretry findtime_seconds \
                 bantime_seconds increment_factor bantime_max_seconds remember_seconds";
    let lines: Vec<&str> = EXAMPLE.lines().collect();
    for key in known.split_whitespace() {
        let written = [format!("{key} = "), format!("# {key} = ")];
        let at = lines.iter().position(|line| written.iter().any(|written| line.starts_with(written)));
        let at = at.unwrap_or_else(|| panic!("conf/policy.toml leaves {key} out"));
        assert!(lines[at - 1].starts_with('#'), "conf/policy.toml says nothing about {key}");
    }
    let Some(serde_json::Value::Object(jails)) =
        serde_json::to_value(Policy::default()).unwrap().get_mut("jails").cloned()
    else {
        panic!("jails are a table")
    };
    for key in jails.values().filter_map(|jail| jail.as_object()).flat_map(|jail| jail.keys()) {
        assert!(known.contains(key.as_str()), "this test does not know {key}");
    }
}

#[test]
fn an_empty_policy_is_the_built_in_one() {
    assert_eq!(parse("").unwrap(), Policy::default());
}

#[test]
fn a_jail_that_is_named_is_the_only_one() {
    let text = "[jails.mine]\nfeeds = [\"bad-token\"]\nmaxretry = 3\nfindtime_seconds = 60\nbantime_seconds = 60\n";
    assert_eq!(parse(text).unwrap().jails.0.into_keys().collect::<Vec<_>>(), ["mine"]);
}

#[test]
fn mistakes_are_named_by_key_and_line() {
    let text = "[addresses]\nipv4_prefix = 4\n[servers]\ndeny = [\"a b\"]\n[classes.login]\n\
                client = { burst = 0, per_second = 1.0 }\nalso = [\"login\"]\n[jails.x]\nfeeds = []\nmaxretry = 0\n\
                findtime_seconds = 1\nbantime_seconds = 20\nbantime_max_seconds = 10\n";
    let mistakes = parse(text).expect_err("all of it is wrong");
    let found: Vec<(&str, usize)> = mistakes.iter().map(|mistake| (mistake.key.as_str(), mistake.line)).collect();
    let expected = [
        ("addresses.ipv4_prefix", 2),
        ("servers.deny[0]", 4),
        ("classes.login.client", 6),
        ("classes.login.also[0]", 7),
        ("jails.x.feeds", 9),
        ("jails.x.maxretry", 10),
        ("jails.x.bantime_max_seconds", 13),
    ];
    assert_eq!(found, expected);
}
