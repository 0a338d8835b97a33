//! Knows where each key of a TOML text stands, and finds every mistake by setting the wrong key aside and reading on.

use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue, Deserializer};

use super::Mistake;

/// A place in the text, both counted from 1.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Position {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// Where each key of one text stands.
#[derive(Debug)]
pub(super) struct Places {
    keys: Vec<Place>,
    line_starts: Vec<usize>,
    text: String,
}

#[derive(Debug)]
struct Place {
    path: Vec<Step>,
    key: Range<usize>,
    value: Range<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

/// Reads `text` into `T`, or answers every mistake that can be told apart in one pass.
pub(super) fn read<T: DeserializeOwned>(text: &str) -> Result<(T, Places), Vec<Mistake>> {
    let (document, syntax_errors) = DeTable::parse_recoverable(text);
    let places = Places::of(text, document.get_ref());
    let mut mistakes: Vec<Mistake> = syntax_errors.iter().map(|error| places.mistake_of(error)).collect();
    if mistakes.is_empty() {
        match read_setting_aside(document, &places, &mut mistakes) {
            Some(value) => return Ok((value, places)),
            None => mistakes.sort_by_key(|mistake| (mistake.line, mistake.column)),
        }
    }
    Err(mistakes)
}

/// Each round either succeeds or removes one key from the document, so there are at most as many rounds as keys.
fn read_setting_aside<T: DeserializeOwned>(
    mut document: Spanned<DeTable<'_>>,
    places: &Places,
    mistakes: &mut Vec<Mistake>,
) -> Option<T> {
    let mut set_aside: Vec<Vec<Step>> = Vec::new();
    loop {
        let error = match T::deserialize(Deserializer::from(document.clone())) {
            Ok(value) if mistakes.is_empty() => return Some(value),
            Ok(_) => return None,
            Err(error) => error,
        };
        let missing = missing_field(error.message());
        let place = places.of_error(&error);
        let caused_by_us = missing.is_some_and(|name| {
            let table = place.map(|place| place.path.as_slice()).unwrap_or_default();
            set_aside.iter().any(|path| path.split_last() == Some((&Step::Key(name.to_owned()), table)))
        });
        if !caused_by_us {
            mistakes.push(places.mistake_of(&error));
        }
        let place = place.filter(|place| remove(document.get_mut(), place))?;
        set_aside.push(place.path.clone());
    }
}

/// The name in serde's message for a key that must be there.
fn missing_field(message: &str) -> Option<&str> {
    message.strip_prefix("missing field `")?.split('`').next()
}

/// Takes the key or array element that stands at `place` out of the document. Its own span names it, because indexes
/// shift when elements are taken out.
fn remove(table: &mut DeTable<'_>, place: &Place) -> bool {
    let stands_there = |key: &Spanned<DeString<'_>>, value: &Spanned<DeValue<'_>>| {
        key.span() == place.key && value.span() == place.value
    };
    let found = table.iter().find(|(key, value)| stands_there(key, value)).map(|(key, _)| key.get_ref().to_string());
    match found {
        Some(key) => table.remove(key.as_str()).is_some(),
        None => table.iter_mut().any(|(_, value)| remove_within(value.get_mut(), place)),
    }
}

fn remove_within(value: &mut DeValue<'_>, place: &Place) -> bool {
    match value {
        DeValue::Table(table) => remove(table, place),
        DeValue::Array(array) => {
            let before = array.len();
            *array = array.iter().filter(|element| element.span() != place.value).cloned().collect();
            array.len() < before || array.iter_mut().any(|element| remove_within(element.get_mut(), place))
        }
        _ => false,
    }
}

impl Places {
    fn of(text: &str, document: &DeTable<'_>) -> Self {
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        let mut keys = Vec::new();
        collect(document, &mut Vec::new(), &mut keys);
        Self { keys, line_starts, text: text.to_owned() }
    }

    /// The key that an error is about: the smallest key or value that holds its span, the deepest among equals. A missing
    /// key is about the table that lacks it, whose span is exactly the error's; `None` then stands for the document.
    fn of_error(&self, error: &toml::de::Error) -> Option<&Place> {
        let span = error.span()?;
        if missing_field(error.message()).is_some() {
            return self.keys.iter().filter(|place| place.value == span).max_by_key(|place| place.path.len());
        }
        let size = |range: &Range<usize>| {
            if range.start <= span.start && span.end <= range.end { range.len() } else { usize::MAX }
        };
        self.keys
            .iter()
            .map(|place| (size(&place.key).min(size(&place.value)), place))
            .filter(|(size, _)| *size < usize::MAX)
            .min_by_key(|(size, place)| (*size, usize::MAX - place.path.len()))
            .map(|(_, place)| place)
    }

    /// Where `key` stands, or else the nearest table above it; line 0 when none of it is in the file.
    pub(super) fn nearest(&self, key: &str) -> Position {
        let mut key = key;
        loop {
            if let Some(place) = self.keys.iter().find(|place| written(&place.path) == key) {
                return self.position(place.key.start);
            }
            match key.rfind(['.', '[']) {
                Some(end) => key = key.get(..end).unwrap_or_default(),
                None => return Position::default(),
            }
        }
    }

    fn mistake_of(&self, error: &toml::de::Error) -> Mistake {
        let start = error.span().map_or(0, |span| span.start);
        let Position { line, column } = self.position(start);
        let mut path = self.of_error(error).map(|place| place.path.clone()).unwrap_or_default();
        path.extend(missing_field(error.message()).map(|name| Step::Key(name.to_owned())));
        Mistake { key: written(&path), line, column, message: error.message().to_owned() }
    }

    fn position(&self, offset: usize) -> Position {
        let line = self.line_starts.partition_point(|start| *start <= offset);
        let start = self.line_starts.get(line.saturating_sub(1)).copied().unwrap_or_default();
        let column = self.text.get(start..offset).map_or(0, |before| before.chars().count()) + 1;
        Position { line, column }
    }
}

fn collect(table: &DeTable<'_>, path: &mut Vec<Step>, keys: &mut Vec<Place>) {
    for (key, value) in table {
        path.push(Step::Key(key.get_ref().to_string()));
        keys.push(Place { path: path.clone(), key: key.span(), value: value.span() });
        collect_value(value.get_ref(), path, keys);
        path.pop();
    }
}

fn collect_value(value: &DeValue<'_>, path: &mut Vec<Step>, keys: &mut Vec<Place>) {
    match value {
        DeValue::Table(table) => collect(table, path, keys),
        DeValue::Array(array) => {
            for (index, element) in array.iter().enumerate() {
                path.push(Step::Index(index));
                keys.push(Place { path: path.clone(), key: element.span(), value: element.span() });
                collect_value(element.get_ref(), path, keys);
                path.pop();
            }
        }
        _ => {}
    }
}

fn written(path: &[Step]) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for step in path {
        // Writing to a String cannot fail.
        let _ = match step {
            Step::Key(name) if text.is_empty() => write!(text, "{name}"),
            Step::Key(name) => write!(text, ".{name}"),
            Step::Index(index) => write!(text, "[{index}]"),
        };
    }
    text
}
