//! Reads the sources and says whether each room uses only the rooms that it may.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// The table under "Who may call whom": `| room (what it is) | rooms that it may use |`.
const DESCRIPTION: &str = include_str!("../../../docs/architecture.md");

/// What the table means by the words "domain rooms", and what errors of the API are made from.
const LOWER_ROOMS: &[&str] = &["storage", "stream"];

/// The rooms that wire the others together.
const WIRING: &[&str] = &["app", "command", "lib", "main", "server"];

/// What is in no room: macros of the crate.
const MACROS: &[&str] = &["params"];

#[test]
fn each_room_uses_only_the_rooms_in_its_row() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut used = BTreeMap::new();
    read_folder(&sources, &sources, &mut used);
    let table = table();
    assert!(table.len() > 10, "the table was not found: {table:?}");
    let mut mistakes = Vec::new();
    for (room, others) in &used {
        if WIRING.contains(&room.as_str()) {
            continue;
        }
        let Some(allowed) = table.get(room) else {
            // A room that uses none is in nobody's way.
            if !others.is_empty() {
                mistakes.push(format!("`{room}` has no row in the table"));
            }
            continue;
        };
        for (other, file) in others {
            let own = room.split('/').next() == Some(other);
            if !own && !allowed.contains(other) && !MACROS.contains(&other.as_str()) {
                mistakes.push(format!("`{room}` may not use `{other}`: {file}"));
            }
        }
    }
    assert!(used.contains_key("accounts"), "the sources were not found: {used:?}");
    assert!(mistakes.is_empty(), "\n{}", mistakes.join("\n"));
}

/// Each room with the rooms that it may use, as the description has it.
fn table() -> BTreeMap<String, Vec<String>> {
    // The edge has a table of its own before.
    let lines = DESCRIPTION.lines().skip_while(|line| !line.starts_with("Homeserver, "));
    let lines = lines.skip_while(|line| *line != "| room | may use |").skip(2);
    let rows = lines.take_while(|line| line.starts_with('|')).filter_map(|line| {
        let mut cells = line.trim_matches('|').split(" | ");
        Some((without_remarks(cells.next()?), without_remarks(cells.next()?)))
    });
    let mut table = BTreeMap::new();
    for (rooms, may_use) in rows {
        for room in words(&rooms) {
            table.insert(room, words(&may_use));
        }
    }
    let above: Vec<String> = table.keys().filter(|room| !LOWER_ROOMS.contains(&room.as_str())).cloned().collect();
    // The API speaks to rooms and not to the database, whose errors it has to tell all the same.
    let lower = LOWER_ROOMS.iter().map(|room| (*room).to_owned());
    table.insert("api/error".to_owned(), above.iter().cloned().chain(lower).collect());
    table.insert("api".to_owned(), above);
    // Types of events, which storage keeps and answers.
    table.entry("storage".to_owned()).or_default().push("rules".to_owned());
    table
}

fn without_remarks(cell: &str) -> String {
    let mut depth = 0_usize;
    let kept = |character: &char| {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => return depth == 0,
        }
        false
    };
    cell.chars().filter(kept).collect()
}

fn words(cell: &str) -> Vec<String> {
    cell.split([' ', ',']).filter(|word| !word.is_empty()).map(str::to_owned).collect()
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
