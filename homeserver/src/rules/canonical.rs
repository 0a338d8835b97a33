//! Decides what JSON may enter: strict parsing into canonical JSON, with a bound on nesting.
//!
//! Specification: appendices, "Canonical JSON". Integers of ±(2^53 - 1) only, no floats, no exponents, keys sorted.

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue,
    canonical_json::{CanonicalJsonError, to_canonical_value},
};
use serde::Serialize;

#[cfg(test)]
mod tests;

/// Why bytes are not a canonical JSON object.
#[derive(Debug, thiserror::Error)]
pub enum CanonicalError {
    /// The bytes are no JSON at all, are not UTF-8, or nest deeper than 127 levels: `M_NOT_JSON`.
    #[error("not JSON")]
    NotJson(#[source] serde_json::Error),
    /// JSON, but not an object: `M_BAD_JSON`.
    #[error("a JSON object was expected")]
    NotAnObject,
    /// JSON that has no canonical form, such as floats or integers beyond ±(2^53 - 1): `M_BAD_JSON`.
    #[error("no canonical form")]
    NotCanonical(#[source] CanonicalJsonError),
}

/// Parses a JSON object. Nesting is bounded at 127 levels, so that no input can exhaust the stack.
///
/// # Errors
///
/// See [`CanonicalError`]; each variant names its errcode.
pub fn parse_object(json: &[u8]) -> Result<CanonicalJsonObject, CanonicalError> {
    parse_object_without(json, None)
}

/// As [`parse_object`], leaving out one field, which then need not be canonical.
///
/// # Errors
///
/// See [`CanonicalError`].
pub(super) fn parse_object_without(json: &[u8], field: Option<&str>) -> Result<CanonicalJsonObject, CanonicalError> {
    let value: serde_json::Value = serde_json::from_slice(json).map_err(CanonicalError::NotJson)?;
    let serde_json::Value::Object(mut map) = value else { return Err(CanonicalError::NotAnObject) };
    if let Some(field) = field {
        map.remove(field);
    }
    ruma::canonical_json::try_from_json_map(map).map_err(CanonicalError::NotCanonical)
}

/// The canonical object of a value that serializes to an object, such as an event content of ruma's.
///
/// # Errors
///
/// When the value is no object, or holds what canonical JSON cannot.
pub fn to_object<T: Serialize>(value: &T) -> Result<CanonicalJsonObject, CanonicalError> {
    match to_canonical_value(value).map_err(CanonicalError::NotCanonical)? {
        CanonicalJsonValue::Object(object) => Ok(object),
        _ => Err(CanonicalError::NotAnObject),
    }
}

/// The canonical text of an object: shortest form, keys sorted by code point.
pub fn to_text(object: &CanonicalJsonObject) -> String {
    serde_json::to_string(object).expect("canonical values have string keys and no floats, which always serializes")
}
