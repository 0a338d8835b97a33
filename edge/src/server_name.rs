//! What a server name says: host and port, by the grammar of the specification's appendix "Server Name".

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// As the specification recommends, so that user ids stay within their 255 bytes.
const LONGEST: usize = 230;

/// Why a text is no server name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ServerNameError {
    /// There is nothing before the port.
    #[error("it has no host")]
    NoHost,
    /// It is longer than any host name with a port.
    #[error("it is too long")]
    TooLong,
    /// Brackets hold an IPv6 address and nothing else.
    #[error("its brackets hold no IPv6 address")]
    Brackets,
    /// A character that is in no host name.
    #[error("a host name holds letters, digits, dots and hyphens only, not {0:?}")]
    Character(char),
    /// The port is no number up to 65535.
    #[error("its port is not a number from 1 to 65535")]
    Port,
}

/// The host of a server name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Host {
    /// A name for the DNS.
    Name(String),
    /// An address.
    Address(IpAddr),
}

/// A server name, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServerName {
    pub(crate) host: Host,
    pub(crate) port: Option<u16>,
    text: String,
}

impl ServerName {
    /// The name as it was written.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// The host as a URL writes it, with brackets around IPv6.
    pub(crate) fn host_text(&self) -> String {
        match &self.host {
            Host::Name(name) => name.clone(),
            Host::Address(IpAddr::V6(address)) => format!("[{address}]"),
            Host::Address(address) => address.to_string(),
        }
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for ServerName {
    type Err = ServerNameError;

    fn from_str(text: &str) -> Result<Self, ServerNameError> {
        if text.len() > LONGEST {
            return Err(ServerNameError::TooLong);
        }
        let (host, after) = match text.strip_prefix('[') {
            Some(rest) => {
                let (inside, after) = rest.split_once(']').ok_or(ServerNameError::Brackets)?;
                let address: Ipv6Addr = inside.parse().map_err(|_| ServerNameError::Brackets)?;
                (Host::Address(address.into()), after)
            }
            None => {
                let (name, after) = text.find(':').map_or((text, ""), |colon| text.split_at(colon));
                (host_of(name)?, after)
            }
        };
        let port = match after.strip_prefix(':') {
            Some(digits) => Some(port_of(digits).ok_or(ServerNameError::Port)?),
            None if after.is_empty() => None,
            None => return Err(ServerNameError::Port),
        };
        Ok(Self { host, port, text: text.to_owned() })
    }
}

fn host_of(name: &str) -> Result<Host, ServerNameError> {
    if name.is_empty() {
        return Err(ServerNameError::NoHost);
    }
    let stranger = name.chars().find(|letter| !letter.is_ascii_alphanumeric() && !matches!(letter, '-' | '.'));
    if let Some(stranger) = stranger {
        return Err(ServerNameError::Character(stranger));
    }
    Ok(name.parse::<Ipv4Addr>().map_or_else(|_| Host::Name(name.to_owned()), |address| Host::Address(address.into())))
}

/// One to five digits and nothing else: `u16::from_str` would take a sign.
fn port_of(digits: &str) -> Option<u16> {
    let plain = (1..=5).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten().filter(|port| *port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_names_follow_the_grammar() {
        for name in ["example.org", "localhost:8448", "192.0.2.1", "[::1]:8448", "[2001:db8::1]", "1.2.3", "A-b.C"] {
            assert_eq!(name.parse::<ServerName>().unwrap().as_str(), name);
        }
        for name in
            ["", "exa mple", "a:b:c", "a:99999", "[::1", "[zz]", "a/b", ":1", "a:", "a:+1", "a_b", "[::1]x", "a:0"]
        {
            assert!(name.parse::<ServerName>().is_err(), "{name}");
        }
        assert_eq!("a_b".parse::<ServerName>(), Err(ServerNameError::Character('_')));
    }

    #[test]
    fn host_and_port_are_told_apart() {
        let name: ServerName = "[2001:DB8::1]:443".parse().unwrap();
        assert_eq!((name.host_text().as_str(), name.port), ("[2001:db8::1]", Some(443)));
        let name: ServerName = "192.0.2.7".parse().unwrap();
        assert_eq!(name.host, Host::Address([192, 0, 2, 7].into()));
    }
}
