//! Reads a TOML file into its type, and names the place of every mistake in it.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

mod places;
mod secret;

pub use secret::Secret;

use places::{Places, Position};

/// One mistake in a configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mistake {
    /// The path of the key, such as `listen.https[0]`; empty when the file is not TOML at that place.
    pub key: String,
    /// The line, counted from 1; 0 when nothing in the file stands for it.
    pub line: usize,
    /// The column in characters, counted from 1; 0 when nothing in the file stands for it.
    pub column: usize,
    /// What is wrong and what was expected.
    pub message: String,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file holds mistakes; `Display` writes each on a line of its own as `file:line:column: key: message`.
    #[error("{}", Report { path, mistakes })]
    Mistakes {
        /// The file.
        path: PathBuf,
        /// At least one, in the order of the file.
        mistakes: Vec<Mistake>,
    },
}

impl ConfigError {
    /// The mistakes, for reports that are read by programs; empty when the file could not be read.
    pub fn mistakes(&self) -> &[Mistake] {
        match self {
            Self::Read { .. } => &[],
            Self::Mistakes { mistakes, .. } => mistakes,
        }
    }
}

/// Reads `path` into `T`, which refuses unknown keys by `#[serde(deny_unknown_fields)]`.
///
/// # Errors
/// When the file cannot be read, or with every mistake that one pass can find.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    load_checked(path, |_, _| {})
}

/// Like [`load`], followed by the checks that types alone cannot express; what `check` rejects is reported with the
/// line of its key.
///
/// # Errors
/// As [`load`], and when `check` rejects something.
pub fn load_checked<T: DeserializeOwned>(
    path: &Path,
    check: impl FnOnce(&T, &mut Checker<'_>),
) -> Result<T, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    parse_checked(&text, check).map_err(|mistakes| ConfigError::Mistakes { path: path.to_owned(), mistakes })
}

/// Like [`load_checked`], for a text that is already in memory.
///
/// # Errors
/// With every mistake that one pass can find.
pub fn parse_checked<T: DeserializeOwned>(
    text: &str,
    check: impl FnOnce(&T, &mut Checker<'_>),
) -> Result<T, Vec<Mistake>> {
    let (value, places) = places::read::<T>(text)?;
    let mut checker = Checker { places: &places, mistakes: Vec::new() };
    check(&value, &mut checker);
    let mut mistakes = checker.mistakes;
    if mistakes.is_empty() {
        return Ok(value);
    }
    mistakes.sort_by_key(|mistake| (mistake.line, mistake.column));
    Err(mistakes)
}

/// Collects what a value's own checks reject.
#[derive(Debug)]
pub struct Checker<'a> {
    places: &'a Places,
    mistakes: Vec<Mistake>,
}

impl Checker<'_> {
    /// Rejects the value of `key` (a path such as `listen.https[0]`). A key that the file leaves out is reported at the
    /// nearest table that is there.
    pub fn reject(&mut self, key: &str, message: impl fmt::Display) {
        let Position { line, column } = self.places.nearest(key);
        self.mistakes.push(Mistake { key: key.to_owned(), line, column, message: message.to_string() });
    }
}

struct Report<'a> {
    path: &'a Path,
    mistakes: &'a [Mistake],
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.mistakes.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}", self.path.display())?;
            if mistake.line > 0 {
                write!(f, ":{}:{}", mistake.line, mistake.column)?;
            }
            if !mistake.key.is_empty() {
                write!(f, ": {}", mistake.key)?;
            }
            write!(f, ": {}", mistake.message)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
