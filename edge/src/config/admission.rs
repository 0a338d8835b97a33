//! `[admission]`: where the policy is, and where bans are kept and handed to.

use std::path::PathBuf;

use gatehouse_shared::config::{Checker, ConfigError, Secret};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::policy::Policy;

/// Where the policy is, and where bans are kept and handed to.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdmissionConfig {
    /// The policy file. Left out: the built-in policy, which is what `conf/policy.toml` shows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<PathBuf>,
    /// Folder for bans and the history of offenders; made with mode 0700. Left out: a restart forgets them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_folder: Option<PathBuf>,
    /// URL of a PostgreSQL database through which several edges share their bans. Left out: each has its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared_database: Option<Secret>,
    /// Prefixes of proxies and load balancers whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Sets of the packet filter that bans are added to. Left out: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nftables: Option<NftablesConfig>,
}

/// Sets of the packet filter that bans are added to, each with its time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NftablesConfig {
    /// The family of the table.
    #[serde(default = "family")]
    pub family: String,
    /// The table.
    pub table: String,
    /// The set for IPv4 prefixes; its flags are `interval, timeout`.
    pub ipv4_set: String,
    /// The set for IPv6 prefixes; its flags are `interval, timeout`.
    pub ipv6_set: String,
    /// The program that is run.
    #[serde(default = "program")]
    pub program: PathBuf,
}

pub(super) fn family() -> String {
    "inet".to_owned()
}

pub(super) fn program() -> PathBuf {
    "/usr/sbin/nft".into()
}

impl AdmissionConfig {
    /// Reads the policy, or takes the built-in one.
    ///
    /// # Errors
    /// When there is a file and it cannot be read, or with every mistake in it.
    pub fn load_policy(&self) -> Result<Policy, ConfigError> {
        self.policy.as_deref().map_or_else(|| Ok(Policy::default()), Policy::load)
    }

    pub(super) fn check(&self, checker: &mut Checker<'_>) {
        if let Err(error) = self.load_policy() {
            checker.reject("admission.policy", error);
        }
        if let Some(url) = &self.shared_database
            && url.expose().parse::<tokio_postgres::Config>().is_err()
        {
            checker.reject("admission.shared_database", "is not postgres://USER:PASSWORD@HOST/DATABASE");
        }
        let Some(nftables) = &self.nftables else { return };
        let names = [("table", &nftables.table), ("ipv4_set", &nftables.ipv4_set), ("ipv6_set", &nftables.ipv6_set)];
        for (key, name) in names {
            let word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
            if name.is_empty() || !name.bytes().all(word) {
                checker.reject(&format!("admission.nftables.{key}"), "is not a name of nftables");
            }
        }
        if !nftables.program.is_file() {
            let program = nftables.program.display();
            checker.reject("admission.nftables.program", format_args!("{program} is not a file; install nftables"));
        }
    }
}
