//! Decides whether an event is what its servers signed, and signs for this server.
//!
//! Specification: appendices, "Signing JSON"; server-server API, "Validating hashes and signatures on received events".

use std::fmt;

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, MilliSecondsSinceUnixEpoch, OwnedServerName, ServerName,
    signatures::{
        Ed25519KeyPairParseError, JsonError, required_server_signatures_to_verify_event, sign_event, sign_json,
        verify_event as verify_object, verify_json,
    },
};

use super::{pdu::Pdu, redaction::redact, room_version::RoomVersion};

#[cfg(test)]
mod tests;

pub use ruma::signatures::{Ed25519KeyPair, PublicKeyMap, PublicKeySet, VerificationError};

/// What the signatures and the content hash of an event say.
#[derive(Clone, Debug)]
pub enum Verified {
    /// Signed by every server that has to, and the content is what they signed.
    Valid(Pdu),
    /// Signed by every server that has to, but the content hash does not fit, as of an event that was redacted on the
    /// way. Only this redacted form may be used.
    Redacted(Pdu),
}

impl Verified {
    /// The event in the form that may be used.
    pub fn into_pdu(self) -> Pdu {
        match self {
            Self::Valid(pdu) | Self::Redacted(pdu) => pdu,
        }
    }
}

/// A server that must have signed an event, with the keys it used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequiredSignature {
    /// The server.
    pub server_name: OwnedServerName,
    /// The ids of the keys that the event claims to be signed with. Empty when the server did not sign.
    pub key_ids: Vec<String>,
    /// When the keys must have been valid; `None` where the room version does not care (before version 5).
    pub valid_at: Option<MilliSecondsSinceUnixEpoch>,
}

/// Which servers must have signed an event: its sender's (except for invites by third-party id), in versions 1 and 2
/// that of its id, and from version 8 on that of `join_authorised_via_users_server`.
///
/// # Errors
///
/// When the event is too malformed to tell.
pub fn required_signatures(pdu: &Pdu) -> Result<Vec<RequiredSignature>, VerificationError> {
    let rules = pdu.room_version().rules();
    let object = pdu.to_object();
    let signatures = object.get("signatures").and_then(CanonicalJsonValue::as_object);
    let servers = required_server_signatures_to_verify_event(&object, &rules.signatures)?;
    let required = servers.into_iter().map(|server_name| {
        let of_server =
            signatures.and_then(|all| all.get(server_name.as_str())).and_then(CanonicalJsonValue::as_object);
        RequiredSignature {
            key_ids: of_server.map(|keys| keys.keys().cloned().collect()).unwrap_or_default(),
            valid_at: rules.enforce_key_validity.then(|| pdu.origin_server_ts()),
            server_name,
        }
    });
    Ok(required.collect())
}

/// Verifies an event's signatures and content hash.
///
/// `keys` holds, for each server of [`required_signatures`], the keys that were valid then.
///
/// # Errors
///
/// When a required signature is absent or wrong: the event is dropped.
pub fn verify(pdu: &Pdu, keys: &PublicKeyMap) -> Result<Verified, VerificationError> {
    match verify_object(keys, &pdu.to_object(), pdu.room_version().rules())? {
        ruma::signatures::Verified::All => Ok(Verified::Valid(pdu.clone())),
        ruma::signatures::Verified::Signatures => {
            let redacted = redact(pdu).map_err(|error| VerificationError::Json(JsonError::from(error)))?;
            Ok(Verified::Redacted(redacted))
        }
    }
}

/// Adds this server's signature to an event that another server made, as for invites and restricted joins.
///
/// # Errors
///
/// When the object is no event.
pub fn countersign(
    version: RoomVersion,
    event: &mut CanonicalJsonObject,
    key_pair: &Ed25519KeyPair,
    server_name: &ServerName,
) -> Result<(), JsonError> {
    sign_event(server_name.as_str(), key_pair, event, &version.rules().redaction)
}

/// Signs any JSON object, such as the answer of `/_matrix/key/v2/server`.
///
/// # Errors
///
/// When the object holds a `signatures` that is no object.
pub fn sign_object(
    object: &mut CanonicalJsonObject,
    key_pair: &Ed25519KeyPair,
    server_name: &ServerName,
) -> Result<(), JsonError> {
    sign_json(server_name.as_str(), key_pair, object)
}

/// Verifies every signature of an object; each signing entity must be in `keys`.
///
/// # Errors
///
/// When any entity's signature is absent or wrong.
pub fn verify_object_signatures(object: &CanonicalJsonObject, keys: &PublicKeyMap) -> Result<(), VerificationError> {
    verify_json(keys, object)
}

/// A signing key from its 32-byte seed, which is how Synapse's `signing.key` files hold it, and its version.
///
/// # Errors
///
/// Never for 32 bytes; the error is that of the wrapped parser.
pub fn key_pair_from_seed(
    seed: &[u8; 32],
    version: impl fmt::Display,
) -> Result<Ed25519KeyPair, Ed25519KeyPairParseError> {
    /// PKCS#8 version 1 of an Ed25519 private key, up to the key itself (RFC 8410, section 10.3).
    const PREFIX: [u8; 16] =
        [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
    let mut document = PREFIX.to_vec();
    document.extend_from_slice(seed);
    Ed25519KeyPair::from_der(&document, version.to_string())
}
