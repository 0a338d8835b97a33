use gatehouse_shared::config::parse_checked;

use super::*;

const REFERENCE: &str = include_str!("../../../conf/homeserver.toml");

/// Every key of the types with its path, as the types themselves write it.
fn keys(value: &serde_json::Value, path: &str, found: &mut Vec<String>) {
    let serde_json::Value::Object(table) = value else { return found.push(path.to_owned()) };
    for (key, value) in table {
        keys(value, &if path.is_empty() { key.clone() } else { format!("{path}.{key}") }, found);
    }
}

/// The lines of the reference under the heading of `section`, or before the first heading.
fn section(name: &str) -> Vec<&'static str> {
    let heading = format!("[{name}]");
    let lines = REFERENCE.lines().skip_while(|line| !name.is_empty() && *line != heading);
    lines.skip(usize::from(!name.is_empty())).take_while(|line| !line.starts_with('[')).collect()
}

/// The reference with what it leaves out by a comment put in, so that every key is read once.
fn everything() -> String {
    REFERENCE.lines().map(|line| left_out(line).unwrap_or(line)).collect::<Vec<_>>().join("\n")
}

/// The key of a line that the reference shows and leaves out.
fn left_out(line: &str) -> Option<&str> {
    line.strip_prefix('#').filter(|rest| rest.contains(" = ") && !rest.starts_with(' '))
}

#[test]
fn the_reference_holds_every_key_with_a_comment_and_no_other() {
    // Unknown keys fail here.
    let config = parse_checked::<Config>(&everything(), |_, _| {}).unwrap();
    let mut found = Vec::new();
    keys(&serde_json::to_value(&config).unwrap(), "", &mut found);
    assert!(found.len() > 18, "{found:?}");
    for path in found {
        let (table, key) = path.rsplit_once('.').unwrap_or(("", &path));
        let lines = section(table);
        let at = lines.iter().position(|line| line.trim_start_matches('#').starts_with(&format!("{key} = ")));
        let at = at.unwrap_or_else(|| panic!("conf/homeserver.toml leaves {path} out"));
        let above = at.checked_sub(1).and_then(|above| lines.get(above)).unwrap_or(&"");
        assert!(above.starts_with("# "), "conf/homeserver.toml says nothing about {path}");
    }
}

#[test]
fn the_reference_shows_the_defaults() {
    let config = parse_checked::<Config>(REFERENCE, check).unwrap();
    let minimal = "server_name = \"example.org\"\ndata_folder = \"/var/lib/gatehouse\"\n";
    let defaults = parse_checked::<Config>(minimal, check).unwrap();
    assert_eq!(serde_json::to_value(&config).unwrap(), serde_json::to_value(&defaults).unwrap());
}

#[test]
fn mistakes_that_types_allow_are_named() {
    let text = "server_name = \"example.org\"\ndata_folder = \"/tmp\"\ncluster_secret = \"short\"\n\
                [database]\nsqlite = \"/tmp/a.db\"\npostgres = \"postgres://h/d\"\nconnections = 1\n\
                [registration]\nmode = \"token\"\n[federation]\nca_file = \"/nowhere/at/all\"\n";
    let mistakes = parse_checked::<Config>(text, check).map(|_| ()).expect_err("all of it is wrong");
    let found: Vec<(&str, usize)> = mistakes.iter().map(|mistake| (mistake.key.as_str(), mistake.line)).collect();
    let expected = [
        ("cluster_secret", 3),
        ("database.postgres", 6),
        ("database.connections", 7),
        ("registration.tokens", 8),
        ("federation.ca_file", 11),
    ];
    assert_eq!(found, expected);
}

#[test]
fn mistakes_of_types_are_named_with_their_line() {
    let text = "server_name = \"exa mple\"\ndata_folder = \"/tmp\"\ncluster_secret = \"x\"\ncolour = 1\n\
                [registration]\nmode = \"ajar\"\n[federation]\nallowed_ranges = [\"127.0.0.0/40\"]\n";
    let mistakes = parse_checked::<Config>(text, check).map(|_| ()).expect_err("all of it is wrong");
    let found: Vec<(&str, usize)> = mistakes.iter().map(|mistake| (mistake.key.as_str(), mistake.line)).collect();
    let expected = [("server_name", 1), ("colour", 4), ("registration.mode", 6), ("federation.allowed_ranges[0]", 8)];
    assert_eq!(found, expected);
}
