//! Joins inserts of the same text into statements of many rows, which cost a database far less than one each.

use std::{collections::HashMap, fmt::Write as _, sync::LazyLock};

use parking_lot::Mutex;

use super::{Stmt, Value};

/// How many rows one statement may have: few sizes, so that few texts are prepared on each connection.
const SIZES: [usize; 5] = [32, 16, 8, 4, 2];

impl Stmt {
    /// The same statements, where those that were made by [`Stmt::insert`] with the same text stand together, in the place
    /// of the first one. What is inserted earlier than it was asked for disturbs nothing: the statements that it overtakes
    /// change rows that were there before.
    pub fn join_inserts(stmts: Vec<Self>) -> Vec<Self> {
        if stmts.iter().filter(|stmt| stmt.inserts_a_row).nth(1).is_none() {
            return stmts;
        }
        let mut groups: Vec<Vec<Self>> = Vec::with_capacity(stmts.len());
        let mut places: HashMap<&'static str, usize> = HashMap::new();
        for stmt in stmts {
            let place = match stmt.inserts_a_row {
                true => *places.entry(stmt.sql).or_insert(groups.len()),
                false => groups.len(),
            };
            match groups.get_mut(place) {
                Some(group) => group.push(stmt),
                None => groups.push(vec![stmt]),
            }
        }
        groups.into_iter().flat_map(in_sizes).collect()
    }
}

fn in_sizes(mut group: Vec<Stmt>) -> Vec<Stmt> {
    let mut sized = Vec::new();
    for size in SIZES {
        while group.len() >= size {
            let rest = group.split_off(size);
            let (sql, width) = (group[0].sql, group[0].params.len());
            let params: Vec<Value> = group.into_iter().flat_map(|stmt| stmt.params).collect();
            sized.push(Stmt::new(with_rows(sql, width, size), params));
            group = rest;
        }
    }
    sized.extend(group);
    sized
}

/// The text that inserts `rows` rows as `sql` inserts one of `width` values. Texts are kept for good, as those in the
/// program are: there are as many as inserts that can be joined, times the sizes.
fn with_rows(sql: &'static str, width: usize, rows: usize) -> &'static str {
    static TEXTS: LazyLock<Mutex<HashMap<(&'static str, usize), &'static str>>> = LazyLock::new(Mutex::default);
    TEXTS.lock().entry((sql, rows)).or_insert_with(|| {
        let mut text = sql.to_owned();
        for row in 1..rows {
            for column in 1..=width {
                let opening = if column == 1 { ", (" } else { ", " };
                let _ = write!(text, "{opening}${}", row * width + column);
            }
            text.push(')');
        }
        text.leak()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params;

    const ONE: &str = "INSERT INTO one (a, b) VALUES ($1, $2)";
    const OTHER: &str = "INSERT INTO other (a) VALUES ($1)";

    #[test]
    fn inserts_of_one_text_become_few_statements() {
        let mut stmts = Vec::new();
        for number in 0..7_i64 {
            stmts.push(Stmt::insert(ONE, params![number, "x"]));
            stmts.push(Stmt::new("UPDATE one SET b = $1", params![number]));
            stmts.push(Stmt::insert(OTHER, params![number]));
        }
        let joined = Stmt::join_inserts(stmts);
        let texts: Vec<&str> = joined.iter().map(|stmt| stmt.sql).filter(|sql| sql.contains("INTO one")).collect();
        assert_eq!(
            texts,
            [
                "INSERT INTO one (a, b) VALUES ($1, $2), ($3, $4), ($5, $6), ($7, $8)",
                "INSERT INTO one (a, b) VALUES ($1, $2), ($3, $4)",
                ONE,
            ]
        );
        assert_eq!(joined.iter().filter(|stmt| stmt.sql.starts_with("UPDATE")).count(), 7);
        let others: Vec<Value> =
            joined.iter().filter(|stmt| stmt.sql.contains("other")).flat_map(|stmt| stmt.params.clone()).collect();
        assert_eq!(others, (0..7).map(Value::Int).collect::<Vec<_>>());
    }
}
