//! Checks the signature of a user's key on a JSON object.

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, SigningKeyAlgorithm, UserId,
    serde::{Base64, base64::Standard},
    signatures::{to_canonical_json_string_for_signing, verify_canonical_json_bytes},
};

/// The signature is missing, malformed or wrong.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signature is missing or wrong")]
pub struct BadSignature;

/// The signature of `signer` on `object` by the ed25519 key named `key_name`, after checking it with `public_key`
/// (base64).
pub(super) fn verified_signature(
    object: &CanonicalJsonObject,
    signer: &UserId,
    key_name: &str,
    public_key: &str,
) -> Result<String, BadSignature> {
    let signature = find_signature(object, signer, &format!("ed25519:{key_name}")).ok_or(BadSignature)?;
    let text = to_canonical_json_string_for_signing(object).map_err(|_| BadSignature)?;
    let public_key = decode(public_key)?;
    verify_canonical_json_bytes(&SigningKeyAlgorithm::Ed25519, &public_key, &decode(signature)?, text.as_bytes())
        .map_err(|_| BadSignature)?;
    Ok(signature.to_owned())
}

/// Whether two objects say the same, whatever was signed or added to them outside the signature.
pub(super) fn same_apart_from_signatures(one: &CanonicalJsonObject, other: &CanonicalJsonObject) -> bool {
    match (to_canonical_json_string_for_signing(one), to_canonical_json_string_for_signing(other)) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    }
}

fn find_signature<'a>(object: &'a CanonicalJsonObject, signer: &UserId, key_id: &str) -> Option<&'a str> {
    let of = |value: &'a CanonicalJsonValue, key: &str| match value {
        CanonicalJsonValue::Object(object) => object.get(key),
        _ => None,
    };
    match of(of(object.get("signatures")?, signer.as_str())?, key_id)? {
        CanonicalJsonValue::String(signature) => Some(signature),
        _ => None,
    }
}

fn decode(text: &str) -> Result<Vec<u8>, BadSignature> {
    Base64::<Standard>::parse(text).map(Base64::into_inner).map_err(|_| BadSignature)
}
