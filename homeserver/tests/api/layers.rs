//! Reads the sources and says whether each room uses only the rooms that it may.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// Who may use whom: docs/architecture.md, "Who may call whom". `config` is read by the wiring only, which hands each
/// room what it needs.
const TABLE: &[(&str, &str)] = &[
    // Errors of every layer become errcodes in `api/error`, hence `storage` and `stream` there.
    (
        "api",
        "accounts appservices e2ee ephemeral federation media membership moderation push remote rooms rules search sync",
    ),
    (
        "api/error",
        "accounts appservices e2ee ephemeral federation media membership moderation push remote rooms rules search sync api storage stream",
    ),
    ("workers", "accounts federation push appservices media"),
    ("moderation", "accounts membership rooms media storage"),
    ("accounts", "membership e2ee stream storage rules"),
    ("membership", "federation remote rooms stream storage rules"),
    ("federation", "rooms e2ee ephemeral remote stream storage rules"),
    ("sync", "stream storage rules"),
    ("push", "remote stream storage"),
    ("appservices", "remote stream storage"),
    ("rooms", "stream storage rules"),
    ("e2ee", "remote stream storage"),
    ("ephemeral", "stream storage"),
    ("media", "remote storage"),
    ("remote", "storage rules"),
    ("stream", "storage"),
    ("search", "stream storage"),
    ("config", ""),
    // The event cache keeps events as `rules` has parsed them.
    ("storage", "rules"),
    ("rules", ""),
];

/// The rooms that wire the others together.
const WIRING: &[&str] = &["app", "command", "lib", "main"];

/// What is in no room: macros of the crate.
const MACROS: &[&str] = &["params"];

#[test]
fn each_room_uses_only_the_rooms_in_its_row() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut used = BTreeMap::new();
    read_folder(&sources, &sources, &mut used);
    let mut mistakes = Vec::new();
    for (room, others) in &used {
        if WIRING.contains(&room.as_str()) {
            continue;
        }
        let Some(allowed) = row(room) else {
            // A room that uses none is in nobody's way.
            if !others.is_empty() {
                mistakes.push(format!("`{room}` has no row in the table"));
            }
            continue;
        };
        for (other, file) in others {
            let own = room.split('/').next() == Some(other);
            if !own && !allowed.contains(&other.as_str()) && !MACROS.contains(&other.as_str()) {
                mistakes.push(format!("`{room}` may not use `{other}`: {file}"));
            }
        }
    }
    assert!(used.contains_key("accounts"), "the sources were not found: {used:?}");
    assert!(mistakes.is_empty(), "\n{}", mistakes.join("\n"));
}

fn row(room: &str) -> Option<Vec<&'static str>> {
    TABLE.iter().find(|(name, _)| *name == room).map(|(_, others)| others.split(' ').collect())
}

/// Which rooms each room uses, with a file that does.
type Used = BTreeMap<String, BTreeMap<String, String>>;

fn read_folder(folder: &Path, sources: &Path, used: &mut Used) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            read_folder(&path, sources, used);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let file = path.strip_prefix(sources).unwrap().to_str().unwrap();
            // Tests may build whatever they need.
            if file.ends_with("tests.rs") || file.contains("/tests/") || file.ends_with("testing.rs") {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let product = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            let others = used.entry(room_of(file)).or_default();
            for other in rooms_named_in(product) {
                others.entry(other).or_insert_with(|| file.to_owned());
            }
        }
    }
}

fn room_of(file: &str) -> String {
    if file.starts_with("api/error/") {
        return "api/error".to_owned();
    }
    file.split('/').next().unwrap_or_default().trim_end_matches(".rs").to_owned()
}

/// The first word of every path that begins with `crate::`, groups in braces included.
fn rooms_named_in(text: &str) -> BTreeSet<String> {
    let code: String = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut rooms = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        if code[..at].ends_with('$') || code[..at].ends_with("pub(in ") {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(group) => first_words(group, &mut rooms),
            None => drop(rooms.insert(first_word(rest))),
        }
    }
    rooms
}

fn first_words(group: &str, rooms: &mut BTreeSet<String>) {
    let mut depth = 0;
    let mut is_start = true;
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => return,
            '}' => depth -= 1,
            ',' if depth == 0 => is_start = true,
            _ if is_start && character.is_alphanumeric() => {
                rooms.insert(first_word(&group[at..]));
                is_start = false;
            }
            _ => {}
        }
    }
}

fn first_word(text: &str) -> String {
    text.chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect()
}

#[test]
fn paths_are_read_with_their_groups() {
    let text = "use crate::{\n    rules::{self, a::b},\n    storage::Db,\n};\n// crate::comment\nlet x = crate::stream::Y;\n\
                macro ($crate::params![])";
    let rooms: Vec<String> = rooms_named_in(text).into_iter().collect();
    assert_eq!(rooms, ["rules", "storage", "stream"]);
}
