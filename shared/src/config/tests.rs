use std::collections::BTreeMap;

use serde::Deserialize;

use super::*;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Example {
    name: String,
    #[serde(default)]
    limits: Limits,
    #[serde(default)]
    listen: Vec<Listen>,
    secret: Option<Secret>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Limits {
    upload: u64,
    rates: BTreeMap<String, u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Listen {
    address: crate::net::ListenAddr,
}

fn mistakes_of(text: &str) -> Vec<(String, usize, String)> {
    let mistakes = parse_checked::<Example>(text, |_, _| {}).map(|_| ()).expect_err("the text is wrong");
    mistakes.into_iter().map(|mistake| (mistake.key, mistake.line, mistake.message)).collect()
}

fn keys_and_lines(text: &str) -> Vec<(String, usize)> {
    mistakes_of(text).into_iter().map(|(key, line, _)| (key, line)).collect()
}

#[test]
fn every_mistake_is_named_with_its_key_and_line() {
    let text = "name = \"a\"\ncolour = 1\n[limits]\nupload = \"much\"\nspeed = 2\n[limits.rates]\nlogin = -1\n\
                [[listen]]\naddress = \"localhost:1\"\n[[listen]]\naddress = \"127.0.0.1:1\"\nport = 1\n";
    assert_eq!(
        keys_and_lines(text),
        [
            ("colour".to_owned(), 2),
            ("limits.upload".to_owned(), 4),
            ("limits.speed".to_owned(), 5),
            ("limits.rates.login".to_owned(), 7),
            ("listen[0].address".to_owned(), 9),
            ("listen[1].port".to_owned(), 12),
        ]
    );
}

#[test]
fn a_missing_key_is_named_at_its_table() {
    let found = mistakes_of("name = \"a\"\n[[listen]]\n");
    assert_eq!(found, [("listen[0].address".to_owned(), 2, "missing field `address`".to_owned())]);
    assert_eq!(keys_and_lines("listen = []\n"), [("name".to_owned(), 1)]);
}

#[test]
fn a_text_that_is_not_toml_is_reported_by_line() {
    let found = keys_and_lines("name = \"a\"\nlimits = [\nother == 3\n");
    assert!(found.iter().all(|(_, line)| *line >= 2), "{found:?}");
}

#[test]
fn checks_report_the_line_of_their_key() {
    let text = "name = \"a\"\n[limits]\nupload = 7\n";
    let mistakes = parse_checked::<Example>(text, |example, checker| {
        if example.limits.upload < 10 {
            checker.reject("limits.upload", "must be at least 10 bytes");
        }
        checker.reject("limits.rates.login", "is needed");
    })
    .map(|_| ())
    .expect_err("both are rejected");
    let found: Vec<_> = mistakes.iter().map(|mistake| (mistake.key.as_str(), mistake.line)).collect();
    assert_eq!(found, [("limits.rates.login", 2), ("limits.upload", 3)]);
}

#[test]
fn what_is_right_is_read() {
    let text = "name = \"a\"\n[[listen]]\naddress = \"[::1]:8008\"\n";
    let example = parse_checked::<Example>(text, |_, _| {}).unwrap();
    assert_eq!(example.listen.first().unwrap().address.to_string(), "[::1]:8008");
    assert!(example.limits.rates.is_empty());
}

#[test]
fn a_secret_never_shows() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    std::fs::write(&file, "hunter2\n").unwrap();
    let text = format!("name = \"a\"\nsecret = {{ file = {:?} }}\n", file.to_str().unwrap());
    let example = parse_checked::<Example>(&text, |_, _| {}).unwrap();
    assert_eq!(example.name, "a");
    let secret = example.secret.unwrap();
    assert_eq!(secret.expose(), "hunter2");
    assert!(!format!("{secret:?} {secret} {}", serde_json::to_string(&secret).unwrap()).contains("hunter2"));
    assert_eq!(keys_and_lines("name = \"a\"\nsecret = { file = \"/nowhere/at/all\" }\n"), [("secret".to_owned(), 2)]);
    assert_eq!(keys_and_lines("name = \"a\"\nsecret = { env = \"GATEHOUSE_NOT_SET\" }\n"), [("secret".to_owned(), 2)]);
}

#[test]
fn a_report_reads_file_line_key_message() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("example.toml");
    std::fs::write(&file, "name = 3\n").unwrap();
    let report = load::<Example>(&file).map(|_| ()).expect_err("the name is a number").to_string();
    assert_eq!(report, format!("{}:1:8: name: invalid type: integer `3`, expected a string", file.display()));
}
