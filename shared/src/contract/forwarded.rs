//! What the edge vouches for about a request, and the MAC that proves it was the edge that said so.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use hmac::{Hmac, KeyInit, Mac};
use http::header::HeaderMap;
use http::{Method, Uri};
use sha2::Sha256;

use crate::config::Secret;
use crate::hex::Hex;

/// Every header of the contract begins with this; the edge removes all of them from what comes from outside.
pub const HEADER_PREFIX: &str = "x-gatehouse-";
/// The client's canonical address.
pub const CLIENT: &str = "x-gatehouse-client";
/// `https` or `http`: how the client reached the edge.
pub const SCHEME: &str = "x-gatehouse-scheme";
/// The host that the client asked for, port included when it gave one.
pub const HOST: &str = "x-gatehouse-host";
/// The id under which both sides log the request.
pub const REQUEST_ID: &str = "x-gatehouse-request-id";
/// The MAC over all of these, the method, the target and the trace context, in lower-case hex.
pub const MAC: &str = "x-gatehouse-mac";
/// The W3C trace context, which the MAC covers too.
pub const TRACEPARENT: &str = "traceparent";

const LABEL: &[u8] = b"gatehouse forwarded request, version 1";
const MAC_BYTES: usize = 32;

/// The secret that every edge and shard of one cluster holds, keyed once so that a request costs one pass of SHA-256.
#[derive(Clone)]
pub struct ClusterSecret(Hmac<Sha256>);

impl ClusterSecret {
    /// The shortest secret that is taken, in bytes.
    pub const MIN_BYTES: usize = 32;

    /// Keys the MAC with the configured secret; `None` when it is shorter than [`Self::MIN_BYTES`].
    pub fn new(secret: &Secret) -> Option<Self> {
        let secret = secret.expose().as_bytes();
        if secret.len() < Self::MIN_BYTES {
            return None;
        }
        let mut mac = Hmac::<Sha256>::new_from_slice(secret).ok()?;
        mac.update(LABEL);
        Some(Self(mac))
    }
}

impl fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterSecret(<secret>)")
    }
}

/// How the client reached the edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Through TLS.
    Https,
    /// In the clear.
    Http,
}

impl Scheme {
    /// As it is written in the header.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http",
        }
    }
}

impl FromStr for Scheme {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "https" => Ok(Self::Https),
            "http" => Ok(Self::Http),
            _ => Err(()),
        }
    }
}

/// Everything the MAC covers, as it is written on the wire.
#[derive(Debug, Clone, Copy)]
pub struct Signed<'a> {
    /// The value of [`CLIENT`].
    pub client: &'a str,
    /// The value of [`SCHEME`].
    pub scheme: &'a str,
    /// The value of [`HOST`].
    pub host: &'a str,
    /// The value of [`REQUEST_ID`].
    pub request_id: &'a str,
    /// The value of [`TRACEPARENT`]; empty when there is none.
    pub traceparent: &'a str,
    /// The method.
    pub method: &'a str,
    /// Path and query exactly as they are on the request line.
    pub target: &'a str,
}

/// A MAC in lower-case hex.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HexMac(Hex<{ MAC_BYTES * 2 }>);

impl HexMac {
    /// The digits, ready to become a header's value.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The digits as text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Debug for HexMac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HexMac(..)")
    }
}

impl Signed<'_> {
    /// The MAC for [`MAC`].
    pub fn sign(&self, secret: &ClusterSecret) -> HexMac {
        HexMac(Hex::of(&self.feed(secret).finalize().into_bytes()))
    }

    /// Length before each field, so that no two requests feed the same bytes.
    fn feed(&self, secret: &ClusterSecret) -> Hmac<Sha256> {
        let mut mac = secret.0.clone();
        for field in [self.client, self.scheme, self.host, self.request_id, self.traceparent, self.method, self.target]
        {
            mac.update(&(field.len() as u64).to_le_bytes());
            mac.update(field.as_bytes());
        }
        mac
    }
}

/// What a shard may believe about a request whose MAC was right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forwarded {
    /// The client's canonical address.
    pub client: IpAddr,
    /// How the client reached the edge.
    pub scheme: Scheme,
    /// The host that the client asked for.
    pub host: String,
    /// The id under which both sides log the request.
    pub request_id: String,
}

/// Why a request did not come from the edge. All of it is the sender's blame; the answer is 403 and says no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ContractError {
    /// A header of the contract is missing.
    #[error("header {0} is missing")]
    Missing(&'static str),
    /// A header of the contract is there twice, or is not what it must be.
    #[error("header {0} is malformed")]
    Malformed(&'static str),
    /// The MAC is not the one that this cluster's secret gives.
    #[error("the MAC is wrong")]
    WrongMac,
}

/// Checks the contract's headers on a request that arrived at a shard.
///
/// # Errors
/// When a header is missing or malformed, or the MAC is wrong.
pub fn verify(
    secret: &ClusterSecret,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Forwarded, ContractError> {
    let mac = decode_mac(the_one(headers, MAC)?).ok_or(ContractError::Malformed(MAC))?;
    let signed = Signed {
        client: the_one(headers, CLIENT)?,
        scheme: the_one(headers, SCHEME)?,
        host: the_one(headers, HOST)?,
        request_id: the_one(headers, REQUEST_ID)?,
        traceparent: match the_one(headers, TRACEPARENT) {
            Err(ContractError::Missing(_)) => "",
            other => other?,
        },
        method: method.as_str(),
        target: uri.path_and_query().map_or("", |target| target.as_str()),
    };
    signed.feed(secret).verify_slice(&mac).map_err(|_| ContractError::WrongMac)?;
    Ok(Forwarded {
        client: signed.client.parse().map_err(|_| ContractError::Malformed(CLIENT))?,
        scheme: signed.scheme.parse().map_err(|()| ContractError::Malformed(SCHEME))?,
        host: signed.host.to_owned(),
        request_id: signed.request_id.to_owned(),
    })
}

fn the_one<'h>(headers: &'h HeaderMap, name: &'static str) -> Result<&'h str, ContractError> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().ok_or(ContractError::Missing(name))?;
    if values.next().is_some() {
        return Err(ContractError::Malformed(name));
    }
    value.to_str().map_err(|_| ContractError::Malformed(name))
}

fn decode_mac(hex: &str) -> Option<[u8; MAC_BYTES]> {
    let digits: &[u8; MAC_BYTES * 2] = hex.as_bytes().try_into().ok()?;
    let mut mac = [0; MAC_BYTES];
    for (byte, pair) in mac.iter_mut().zip(digits.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(mac)
}

fn digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn secret() -> ClusterSecret {
        ClusterSecret::new(&Secret::new("0123456789abcdef0123456789abcdef")).unwrap()
    }

    fn signed_request() -> (Method, Uri, HeaderMap) {
        let signed = Signed {
            client: "192.0.2.7",
            scheme: "https",
            host: "example.org",
            request_id: "r1",
            traceparent: "",
            method: "PUT",
            target: "/_matrix/client/v3/x%2F..//y?z=1",
        };
        let mac = signed.sign(&secret());
        let mut headers = HeaderMap::new();
        for (name, value) in
            [(CLIENT, signed.client), (SCHEME, signed.scheme), (HOST, signed.host), (REQUEST_ID, signed.request_id)]
        {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        headers.insert(MAC, HeaderValue::from_bytes(mac.as_bytes()).unwrap());
        (Method::PUT, signed.target.parse().unwrap(), headers)
    }

    #[test]
    fn what_the_edge_signs_the_shard_believes() {
        let (method, uri, headers) = signed_request();
        let forwarded = verify(&secret(), &method, &uri, &headers).unwrap();
        assert_eq!(forwarded.client.to_string(), "192.0.2.7");
        assert_eq!(forwarded.scheme, Scheme::Https);
        assert_eq!(forwarded.host, "example.org");
        assert_eq!(forwarded.request_id, "r1");
    }

    #[test]
    fn a_change_to_anything_signed_is_seen() {
        let (method, uri, headers) = signed_request();
        let wrong = Err(ContractError::WrongMac);
        assert_eq!(verify(&secret(), &Method::POST, &uri, &headers), wrong);
        assert_eq!(verify(&secret(), &method, &"/_matrix/client/v3/x".parse().unwrap(), &headers), wrong);
        for name in [CLIENT, SCHEME, HOST, REQUEST_ID, TRACEPARENT] {
            let mut changed = headers.clone();
            changed.insert(name, HeaderValue::from_static("other"));
            assert_eq!(verify(&secret(), &method, &uri, &changed), wrong, "{name}");
        }
        let other = ClusterSecret::new(&Secret::new("another secret of thirty-two bytes")).unwrap();
        assert_eq!(verify(&other, &method, &uri, &headers), wrong);
    }

    #[test]
    fn a_header_twice_or_missing_is_refused() {
        let (method, uri, headers) = signed_request();
        for name in [CLIENT, SCHEME, HOST, REQUEST_ID, MAC] {
            let mut twice = headers.clone();
            twice.append(name, HeaderValue::from_static("192.0.2.8"));
            assert_eq!(verify(&secret(), &method, &uri, &twice), Err(ContractError::Malformed(name)));
            let mut without = headers.clone();
            without.remove(name);
            assert_eq!(verify(&secret(), &method, &uri, &without), Err(ContractError::Missing(name)));
        }
    }

    #[test]
    fn fields_cannot_borrow_from_their_neighbours() {
        let base =
            Signed { client: "ab", scheme: "c", host: "", request_id: "", traceparent: "", method: "GET", target: "/" };
        let moved = Signed { client: "a", scheme: "bc", ..base };
        assert!(base.sign(&secret()) != moved.sign(&secret()));
    }

    #[test]
    fn a_short_secret_is_refused() {
        assert!(ClusterSecret::new(&Secret::new("short")).is_none());
    }
}
