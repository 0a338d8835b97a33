//! Decides whether a request comes from the server that it names, and proves the same for ours.
//!
//! Specification: server-server API, "Request Authentication".

use std::collections::BTreeMap;

use bytes::Bytes;
use ruma::{
    OwnedServerName, ServerName, ServerSigningKeyId,
    api::federation::authentication::{XMatrix, XMatrixFromRequestError, XMatrixSigningInput},
    serde::Base64,
};

use super::{
    key_ring::{KeyError, KeyRing},
    signing_key::SigningKey,
};

/// Puts the `Authorization` header on a request whose URI is the target alone.
pub(super) fn sign(
    request: &mut http::Request<Vec<u8>>,
    key: &SigningKey,
    destination: &ServerName,
) -> Result<(), XMatrixFromRequestError> {
    let input = XMatrixSigningInput::new(key.server_name().to_owned(), destination.to_owned(), key.pair());
    let value = http::HeaderValue::from(&XMatrix::sign_http_request(request, input)?);
    request.headers_mut().insert(http::header::AUTHORIZATION, value);
    Ok(())
}

/// Why a request is not believed to come from another server.
#[derive(Debug, thiserror::Error)]
pub enum RequestAuthError {
    /// The operator switched federation off.
    #[error("this server does not federate")]
    Disabled,
    /// No `X-Matrix` header, or one that cannot be read.
    #[error("the request bears no signature of a server")]
    Unsigned,
    /// Signed for somebody else.
    #[error("the request is meant for another server")]
    OtherDestination,
    /// The keys that could prove it cannot be had now.
    #[error("the keys of {origin} cannot be had")]
    NoKey { origin: OwnedServerName, source: KeyError },
    /// The signature is wrong.
    #[error("the signature of {origin} is wrong")]
    Wrong { origin: OwnedServerName },
}

/// Verifies the signatures of incoming requests. Clones share the key ring.
#[derive(Clone)]
pub struct RequestAuth {
    key: SigningKey,
    key_ring: KeyRing,
}

impl RequestAuth {
    pub fn new(key: SigningKey, key_ring: KeyRing) -> Self {
        Self { key, key_ring }
    }

    /// The server that signed `request`, whose URI and body must be exactly those that came over the wire.
    ///
    /// # Errors
    /// See [`RequestAuthError`]; all of it is the sender's blame, but [`RequestAuthError::NoKey`], which may be better
    /// later.
    pub async fn verify(&self, request: &http::Request<Bytes>) -> Result<OwnedServerName, RequestAuthError> {
        let header = request.headers().get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let header = header.and_then(parse).ok_or(RequestAuthError::Unsigned)?;
        let us = self.key.server_name();
        if header.destination.as_deref().is_some_and(|destination| destination != us) {
            return Err(RequestAuthError::OtherDestination);
        }
        let origin = header.origin.clone();
        if origin == us {
            return Err(RequestAuthError::Wrong { origin });
        }
        let keys = match self.key_ring.current(&origin, header.key.as_str()).await {
            Ok(keys) => keys,
            Err(source) => return Err(RequestAuthError::NoKey { origin, source }),
        };
        let keys = [(origin.to_string(), keys)].into();
        match header.verify_http_request(request, us, &keys) {
            Ok(()) => Ok(origin),
            Err(error) => {
                tracing::debug!(%error, %origin, "a request's signature is wrong");
                Err(RequestAuthError::Wrong { origin })
            }
        }
    }
}

/// Reads the header. ruma's own parser refuses colons in values without quotes, which older servers write and the
/// specification asks recipients to take.
fn parse(header: &str) -> Option<XMatrix> {
    let (scheme, params) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case(XMatrix::AUTH_SCHEME) {
        return None;
    }
    let mut values = BTreeMap::new();
    let mut rest = params.trim_matches([' ', '\t', ',']);
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=')?;
        let (value, after) = parse_value(after)?;
        if values.insert(name.trim().to_ascii_lowercase(), value).is_some() {
            return None;
        }
        rest = after.trim_start_matches([' ', '\t', ',']);
    }
    let mut value = |name: &str| values.remove(name);
    let origin = OwnedServerName::try_from(value("origin")?).ok()?;
    let key = ServerSigningKeyId::parse(value("key")?).ok()?;
    let sig = Base64::parse(value("sig")?).ok()?;
    let destination = value("destination").map(OwnedServerName::try_from).transpose().ok()?;
    let mut header = XMatrix::new(origin.clone(), origin, key, sig);
    header.destination = destination;
    Some(header)
}

/// A value in quotes, unescaped, or as it stands up to the next comma; and what follows it.
fn parse_value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, after) = text.split_once(',').unwrap_or((text, ""));
        return Some((value.trim().to_owned(), after));
    };
    let mut value = String::new();
    let mut chars = quoted.chars();
    loop {
        match chars.next()? {
            '"' => return Some((value, chars.as_str())),
            '\\' => value.push(chars.next()?),
            other => value.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_the_header_is_read() {
        let spellings = [
            r#"X-Matrix origin="a.test:8448",destination="b.test",key="ed25519:1",sig="dGVzdA""#,
            r#"X-Matrix origin=a.test:8448,destination=b.test,key=ed25519:1,sig="dGVzdA""#,
            r#"x-matrix  Sig=dGVzdA== ,	KEY="ed25519:1" , other="\"," ,destination="b\.test",origin="a.test:8448","#,
        ];
        for spelling in spellings {
            let header = parse(spelling).unwrap();
            assert_eq!(header.origin, "a.test:8448", "{spelling}");
            assert_eq!(header.destination.unwrap(), "b.test", "{spelling}");
            assert_eq!(header.key.as_str(), "ed25519:1", "{spelling}");
            assert_eq!(header.sig.as_bytes(), b"test", "{spelling}");
        }
        assert!(parse(r#"X-Matrix origin="a.test",key="ed25519:1",sig="dGVzdA""#).unwrap().destination.is_none());
    }

    #[test]
    fn broken_headers_are_none() {
        let broken = [
            "",
            "X-Matrix",
            "Bearer abc",
            "X-Matrix origin",
            "X-Matrix origin=\"a.test",
            "X-Matrix origin=\"a.test\\",
            "X-Matrix origin=a.test,origin=a.test,key=ed25519:1,sig=dGVzdA",
            "X-Matrix origin=a.test,key=ed25519:1",
            "X-Matrix origin=a.test,key=ed25519:1,sig=!",
            "X-Matrix origin=,key=ed25519:1,sig=dGVzdA",
        ];
        for header in broken {
            assert!(parse(header).is_none(), "{header}");
        }
    }
}
