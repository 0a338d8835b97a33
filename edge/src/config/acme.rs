//! `[[tls.acme]]`: certificates that the edge orders itself, and how it proves that their names are its own.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use gatehouse_shared::config::{Checker, Secret};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};

use super::{ListenConfig, ServerConfig};

/// One certificate that the edge orders and renews by ACME (RFC 8555).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AcmeConfig {
    /// Names on the certificate. Left out: the hosts of `server.name`, `server.base_url` and `server.federation_address`.
    #[serde(default)]
    pub names: Vec<String>,
    /// How the authority verifies the names: `http-01`, `tls-alpn-01` or `dns-01`.
    #[serde(default)]
    pub challenge: ChallengeKind,
    /// Must be true: the operator has read the authorities' terms of service and agrees.
    #[serde(default)]
    pub agree_to_terms: bool,
    /// Where the authority writes to, as `mailto:` URLs.
    #[serde(default)]
    pub contact: Vec<String>,
    /// Authorities in the order of preference. Left out: Let's Encrypt.
    #[serde(default = "lets_encrypt")]
    pub authorities: Vec<AuthorityConfig>,
    /// How records are set for `dns-01`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<DnsConfig>,
}

/// How an authority verifies a name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChallengeKind {
    /// A document on port 80.
    #[default]
    #[serde(rename = "http-01")]
    Http01,
    /// A certificate on port 443.
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
    /// A record in the DNS; the only one that verifies a wildcard.
    #[serde(rename = "dns-01")]
    Dns01,
}

impl ChallengeKind {
    /// The name of RFC 8555 and RFC 8737.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http01 => "http-01",
            Self::TlsAlpn01 => "tls-alpn-01",
            Self::Dns01 => "dns-01",
        }
    }
}

/// A certificate authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthorityConfig {
    /// URL of the ACME directory.
    pub directory: String,
    /// The profile of certificates to ask for, such as `shortlived`. Left out: the authority's own choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// PEM file with the roots that the directory's own certificate ends in. Left out: the roots of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_root: Option<PathBuf>,
    /// The account at the authority's company that the ACME account belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_account: Option<ExternalAccountConfig>,
}

/// External account binding (RFC 8555, section 7.3.4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExternalAccountConfig {
    /// The key's identifier.
    pub kid: String,
    /// The key, in base64url as authorities hand it out.
    pub hmac_key: Secret,
}

/// How records are set for `dns-01`: by dynamic update or by a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DnsConfig {
    /// A command, run as `COMMAND… present NAME VALUE` and `COMMAND… cleanup NAME VALUE`.
    #[serde(default)]
    pub hook: Vec<String>,
    /// Dynamic update (RFC 2136), signed with TSIG (RFC 8945).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rfc2136: Option<Rfc2136Config>,
    /// Name servers that must show the record before the authority is told to look. Left out: none is asked.
    #[serde(default)]
    pub visible_at: Vec<SocketAddr>,
    /// How long they may take to show it, in seconds.
    #[serde(default = "visible_seconds")]
    pub visible_seconds: u64,
}

/// A name server that takes dynamic updates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rfc2136Config {
    /// HOST:PORT of the primary name server; it is spoken to over TCP.
    pub server: String,
    /// The zone that the records are set in.
    pub zone: String,
    /// The key's name, as the name server knows it.
    pub key_name: String,
    /// The key's algorithm.
    #[serde(default)]
    pub algorithm: TsigAlgorithm,
    /// The key, in base64.
    pub key: Secret,
}

/// Algorithms for TSIG.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TsigAlgorithm {
    /// HMAC with SHA-256.
    #[default]
    HmacSha256,
    /// HMAC with SHA-384.
    HmacSha384,
    /// HMAC with SHA-512.
    HmacSha512,
}

/// The directory of Let's Encrypt.
const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";

fn lets_encrypt() -> Vec<AuthorityConfig> {
    vec![AuthorityConfig { directory: LETS_ENCRYPT.to_owned(), profile: None, ca_root: None, external_account: None }]
}

pub(super) fn visible_seconds() -> u64 {
    120
}

impl AcmeConfig {
    /// The names on the certificate, in lower case, the first one first.
    pub fn names_for(&self, server: &ServerConfig) -> Vec<String> {
        let mut names = Vec::new();
        let mut add = |name: &str| {
            let name = name.to_ascii_lowercase();
            if !names.contains(&name) {
                names.push(name);
            }
        };
        if self.names.is_empty() {
            let public = |host: &&str| host.contains('.') && host.parse::<IpAddr>().is_err();
            server.hosts().iter().map(String::as_str).filter(public).for_each(&mut add);
        } else {
            self.names.iter().for_each(|name| add(name));
        }
        names
    }

    pub(super) fn check(&self, key: &str, server: &ServerConfig, listen: &ListenConfig, checker: &mut Checker<'_>) {
        if !self.agree_to_terms {
            checker.reject(&format!("{key}.agree_to_terms"), "must be true once you agree to the authorities' terms");
        }
        self.check_names(key, server, checker);
        for (index, contact) in self.contact.iter().enumerate() {
            if !contact.starts_with("mailto:") {
                checker.reject(&format!("{key}.contact[{index}]"), "is not a mailto: URL");
            }
        }
        match self.challenge {
            ChallengeKind::Http01 if listen.http.is_empty() => checker
                .reject(&format!("{key}.challenge"), "http-01 needs an address in listen.http that port 80 leads to"),
            ChallengeKind::TlsAlpn01 if !listen.speaks_tls() => checker.reject(
                &format!("{key}.challenge"),
                "tls-alpn-01 needs an address in listen.https that port 443 leads to",
            ),
            ChallengeKind::Dns01 if self.dns.is_none() => {
                checker.reject(&format!("{key}.dns"), "dns-01 needs this section, with `hook` or `rfc2136`");
            }
            _ => {}
        }
        if let Some(dns) = &self.dns {
            if self.challenge != ChallengeKind::Dns01 {
                checker.reject(&format!("{key}.dns"), "is used by dns-01 only; set `challenge` to it");
            }
            dns.check(&format!("{key}.dns"), &self.names_for(server), checker);
        }
        if self.authorities.is_empty() {
            checker.reject(&format!("{key}.authorities"), "names no authority; leave it out to use Let's Encrypt");
        }
        for (index, authority) in self.authorities.iter().enumerate() {
            authority.check(&format!("{key}.authorities[{index}]"), checker);
        }
    }

    fn check_names(&self, key: &str, server: &ServerConfig, checker: &mut Checker<'_>) {
        let key = format!("{key}.names");
        let names = self.names_for(server);
        if names.is_empty() {
            checker.reject(&key, "must be given, because [server] holds no name that an authority could verify");
        }
        for name in names {
            let is_wildcard = name.starts_with("*.");
            if is_wildcard && self.challenge != ChallengeKind::Dns01 {
                checker.reject(&key, format_args!("{name} is a wildcard, which only dns-01 verifies"));
            } else if name.parse::<IpAddr>().is_ok() {
                if self.challenge != ChallengeKind::Http01 {
                    checker.reject(&key, format_args!("{name} is an address, which needs http-01"));
                }
            } else if !is_dns_name(name.strip_prefix("*.").unwrap_or(&name)) {
                checker.reject(&key, format_args!("{name} is not a DNS name"));
            }
        }
    }
}

fn is_dns_name(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() < 64
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    name.len() < 254 && name.split('.').all(label)
}

impl AuthorityConfig {
    fn check(&self, key: &str, checker: &mut Checker<'_>) {
        if !url::Url::parse(&self.directory).is_ok_and(|url| url.scheme() == "https" && url.has_host()) {
            checker.reject(&format!("{key}.directory"), "is not an https URL");
        }
        if let Some(file) = &self.ca_root {
            let roots = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
            match roots {
                Ok(roots) if roots.is_empty() => {
                    checker.reject(&format!("{key}.ca_root"), format_args!("{} holds no certificate", file.display()));
                }
                Ok(_) => {}
                Err(error) => {
                    checker.reject(&format!("{key}.ca_root"), format_args!("{}: {error}", file.display()));
                }
            }
        }
        if let Some(account) = &self.external_account
            && account.key_bytes().is_none()
        {
            checker.reject(&format!("{key}.external_account.hmac_key"), "is not base64url");
        }
    }
}

impl ExternalAccountConfig {
    /// The key itself.
    pub(crate) fn key_bytes(&self) -> Option<Vec<u8>> {
        BASE64_URL_SAFE_NO_PAD.decode(self.hmac_key.expose().trim_end_matches('=')).ok()
    }
}

impl DnsConfig {
    fn check(&self, key: &str, names: &[String], checker: &mut Checker<'_>) {
        match (&self.rfc2136, self.hook.as_slice()) {
            (Some(_), [_, ..]) => checker.reject(key, "has both `hook` and `rfc2136`; records are set by one of them"),
            (None, []) => checker.reject(key, "needs `hook` or `rfc2136`"),
            (None, [program, ..]) if program.is_empty() => {
                checker.reject(&format!("{key}.hook"), "names no program");
            }
            _ => {}
        }
        let Some(update) = &self.rfc2136 else { return };
        let key = format!("{key}.rfc2136");
        if update.key_bytes().is_none_or(|bytes| bytes.is_empty()) {
            checker.reject(&format!("{key}.key"), "is not base64");
        }
        if !update.server.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()) {
            checker.reject(&format!("{key}.server"), "is not HOST:PORT");
        }
        let zone = update.zone.trim_end_matches('.').to_ascii_lowercase();
        if !is_dns_name(&zone) {
            checker.reject(&format!("{key}.zone"), "is not a DNS name");
            return;
        }
        for name in names {
            let host = name.strip_prefix("*.").unwrap_or(name);
            if !(format!("_acme-challenge.{host}").ends_with(&format!(".{zone}"))) {
                checker.reject(&format!("{key}.zone"), format_args!("does not hold the record of {name}"));
            }
        }
    }
}

impl Rfc2136Config {
    /// The key itself.
    pub(crate) fn key_bytes(&self) -> Option<Vec<u8>> {
        BASE64_STANDARD.decode(self.key.expose()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_names_are_told_from_others() {
        for name in ["example.org", "a.b-c.example", "localhost"] {
            assert!(is_dns_name(name), "{name}");
        }
        for name in ["", "a..b", "-a.example", "a_b.example", "a.example."] {
            assert!(!is_dns_name(name), "{name}");
        }
    }

    #[test]
    fn the_names_come_from_the_server_unless_they_are_given() {
        let text = "name = \"Example.org\"\nbase_url = \"https://matrix.example.org\"\n\
                    federation_address = \"matrix.example.org:443\"";
        let server: ServerConfig = toml::from_str(text).unwrap();
        let config: AcmeConfig = toml::from_str("agree_to_terms = true").unwrap();
        assert_eq!(config.names_for(&server), ["example.org", "matrix.example.org"]);
        let config: AcmeConfig = toml::from_str("names = [\"B.example\", \"b.example\"]").unwrap();
        assert_eq!(config.names_for(&server), ["b.example"]);
        assert_eq!(config.authorities[0].directory, LETS_ENCRYPT);
    }
}
