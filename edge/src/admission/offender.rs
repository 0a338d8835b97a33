//! Whom a ban is about.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use gatehouse_shared::net::client_ip::canonical;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Whom a ban is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Offender {
    /// Every address of a prefix.
    Prefix(IpNet),
    /// Another server, by its name in lower case.
    Server(String),
}

impl Offender {
    pub(crate) fn server(name: &str) -> Self {
        Self::Server(name.to_ascii_lowercase())
    }
}

/// A prefix that holds one address is written as that address.
impl fmt::Display for Offender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix(prefix) if prefix.prefix_len() == prefix.max_prefix_len() => prefix.addr().fmt(f),
            Self::Prefix(prefix) => prefix.fmt(f),
            Self::Server(name) => f.write_str(name),
        }
    }
}

/// What was written is neither an address, nor a prefix, nor a server name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither an address, nor a prefix such as 192.0.2.0/24, nor a server name")]
pub(crate) struct NoOffender(String);

impl FromStr for Offender {
    type Err = NoOffender;

    fn from_str(text: &str) -> Result<Self, NoOffender> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Prefix(IpNet::from(canonical(address))));
        }
        if let Ok(prefix) = text.parse::<IpNet>() {
            return Ok(Self::Prefix(prefix.trunc()));
        }
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']');
        // A name without a letter is a mistyped address.
        let is_name =
            text.len() <= 255 && text.bytes().all(fits) && text.bytes().any(|byte| byte.is_ascii_alphabetic());
        if is_name { Ok(Self::server(text)) } else { Err(NoOffender(text.to_owned())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_operator_writes_is_understood() {
        for (text, written) in [
            ("192.0.2.7", "192.0.2.7"),
            ("192.0.2.7/24", "192.0.2.0/24"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8::1", "2001:db8::1"),
            ("2001:db8::1/64", "2001:db8::/64"),
            ("Evil.Example:8448", "evil.example:8448"),
        ] {
            assert_eq!(text.parse::<Offender>().unwrap().to_string(), written);
        }
        for text in ["", "192.0.2.300", "192.0.2.7/33", "a b", "é.example"] {
            assert!(text.parse::<Offender>().is_err(), "{text}");
        }
    }
}
