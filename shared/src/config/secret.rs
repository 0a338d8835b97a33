//! A secret of the configuration: written inline, in a file of its own, or in the environment; never shown.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde::{Serialize, Serializer};

/// A secret that neither `Debug` nor `Display` nor `Serialize` shows.
///
/// In a configuration it is `"inline"`, `{ file = "/path" }` (one trailing line break is dropped) or `{ env = "NAME" }`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

const HIDDEN: &str = "<secret>";

impl Secret {
    /// Wraps a secret that did not come from a configuration.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// The secret itself, for the one call that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(HIDDEN)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SecretVisitor)
    }
}

struct SecretVisitor;

impl<'de> Visitor<'de> for SecretVisitor {
    type Value = Secret;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a secret: \"inline\", { file = \"/path\" } or { env = \"NAME\" }")
    }

    fn visit_str<E: de::Error>(self, inline: &str) -> Result<Secret, E> {
        not_empty(inline)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Secret, A::Error> {
        let Some((source, name)) = map.next_entry::<String, String>()? else {
            return Err(de::Error::custom("expected `file` or `env`, found an empty table"));
        };
        let secret = match source.as_str() {
            "file" => read_file(&name)?,
            "env" => std::env::var(&name)
                .map_err(|error| de::Error::custom(format_args!("environment variable {name}: {error}")))
                .and_then(|value| not_empty(&value))?,
            other => return Err(de::Error::unknown_field(other, &["file", "env"])),
        };
        if map.next_key::<String>()?.is_some() {
            return Err(de::Error::custom("expected one of `file` and `env`, found more"));
        }
        Ok(secret)
    }
}

fn read_file<E: de::Error>(path: &str) -> Result<Secret, E> {
    let text = std::fs::read_to_string(path).map_err(|error| E::custom(format_args!("cannot read {path}: {error}")))?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    not_empty(line.strip_suffix('\r').unwrap_or(line))
}

fn not_empty<E: de::Error>(secret: &str) -> Result<Secret, E> {
    if secret.is_empty() { Err(E::custom("the secret is empty")) } else { Ok(Secret::new(secret)) }
}
