//! `[jails.NAME]`: what ends in a ban, in the words of fail2ban.

use std::collections::BTreeMap;

use gatehouse_shared::config::Checker;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// What a jail hears of: verdicts of shards, and what the edge sees itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Feed {
    /// Verdict: a password or token of a login was wrong.
    LoginFailed,
    /// Verdict: an access token is unknown.
    BadToken,
    /// Verdict: the signature of another server's request was wrong.
    BadSignature,
    /// Verdict: a registration was refused.
    RegistrationRefused,
    /// Verdict: a limit of the shard's own refused the request.
    RateLimited,
    /// A limit of this policy refused the request.
    LimitExceeded,
    /// Bytes that are no TLS where TLS begins.
    TlsGarbage,
    /// A request whose end two readers could see in two places, or whose header is none.
    Smuggling,
    /// A header that was not complete in time.
    SlowHeader,
    /// A body that was sent, or an answer that was taken, too slowly.
    SlowBody,
    /// A ban by another jail.
    Banned,
}

impl Feed {
    /// As it is written in a policy.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LoginFailed => "login-failed",
            Self::BadToken => "bad-token",
            Self::BadSignature => "bad-signature",
            Self::RegistrationRefused => "registration-refused",
            Self::RateLimited => "rate-limited",
            Self::LimitExceeded => "limit-exceeded",
            Self::TlsGarbage => "tls-garbage",
            Self::Smuggling => "smuggling",
            Self::SlowHeader => "slow-header",
            Self::SlowBody => "slow-body",
            Self::Banned => "banned",
        }
    }
}

/// Whom a jail counts and bans.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Counts {
    /// The client's prefix; what a verified server did is not counted.
    #[default]
    Address,
    /// The server whose signature the shard found right; what cannot be laid at a server's door is not counted.
    Server,
}

/// One jail.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JailPolicy {
    /// What it hears of.
    pub feeds: Vec<Feed>,
    /// Whom it counts and bans: `address` or `server`.
    #[serde(default)]
    pub counts: Counts,
    /// Whether the same thing again counts once: one token, however often it is tried.
    #[serde(default)]
    pub distinct: bool,
    /// How many of them within `findtime_seconds` end in a ban.
    pub maxretry: u32,
    /// How long one of them counts, in seconds.
    pub findtime_seconds: u64,
    /// How long the first ban lasts, in seconds.
    pub bantime_seconds: u64,
    /// By how much each further ban is longer than the one before.
    #[serde(default = "increment_factor")]
    pub increment_factor: f64,
    /// How long a ban lasts at most, in seconds.
    #[serde(default = "bantime_max_seconds")]
    pub bantime_max_seconds: u64,
    /// How long after its end a ban still makes the next one longer, in seconds.
    #[serde(default = "remember_seconds")]
    pub remember_seconds: u64,
    /// Prefixes that this jail does not count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignore: Vec<IpNet>,
}

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

pub(super) fn increment_factor() -> f64 {
    2.0
}

pub(super) fn bantime_max_seconds() -> u64 {
    7 * DAY
}

pub(super) fn remember_seconds() -> u64 {
    7 * DAY
}

/// The jails of a server without a policy file. None of them bans a household for one device that has not understood
/// that its session ended: the same token again counts once.
pub(super) fn built_in() -> BTreeMap<String, JailPolicy> {
    let jail = |feeds: &[Feed], maxretry, findtime_seconds, bantime_seconds| JailPolicy {
        feeds: feeds.to_vec(),
        counts: Counts::Address,
        distinct: false,
        maxretry,
        findtime_seconds,
        bantime_seconds,
        increment_factor: increment_factor(),
        bantime_max_seconds: bantime_max_seconds(),
        remember_seconds: remember_seconds(),
        ignore: Vec::new(),
    };
    let jails = [
        ("login", jail(&[Feed::LoginFailed], 5, 10 * MINUTE, 10 * MINUTE)),
        ("token", JailPolicy { distinct: true, ..jail(&[Feed::BadToken], 30, 10 * MINUTE, 10 * MINUTE) }),
        ("registration", jail(&[Feed::RegistrationRefused], 20, HOUR, HOUR)),
        ("signature", jail(&[Feed::BadSignature], 50, 10 * MINUTE, 10 * MINUTE)),
        ("server", JailPolicy { counts: Counts::Server, ..jail(&[Feed::RateLimited], 100, 10 * MINUTE, 10 * MINUTE) }),
        ("protocol", jail(&[Feed::TlsGarbage, Feed::Smuggling], 30, 10 * MINUTE, HOUR)),
        ("slow", jail(&[Feed::SlowHeader, Feed::SlowBody], 200, 10 * MINUTE, 10 * MINUTE)),
        ("repeat", JailPolicy { increment_factor: 1.0, ..jail(&[Feed::Banned], 5, DAY, 7 * DAY) }),
    ];
    jails.into_iter().map(|(name, jail)| (name.to_owned(), jail)).collect()
}

impl JailPolicy {
    pub(super) fn check(&self, name: &str, checker: &mut Checker<'_>) {
        let key = |key: &str| format!("jails.{name}.{key}");
        let word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if name.is_empty() || !name.bytes().all(word) {
            checker.reject(&format!("jails.{name}"), "the name of a jail is made of letters, digits, `-` and `_`");
        }
        if self.feeds.is_empty() {
            checker.reject(&key("feeds"), "a jail that hears of nothing bans nobody: name at least one feed");
        }
        if !(1..=10_000).contains(&self.maxretry) {
            checker.reject(&key("maxretry"), "must be between 1 and 10000");
        }
        for (field, seconds) in [("findtime_seconds", self.findtime_seconds), ("bantime_seconds", self.bantime_seconds)]
        {
            if seconds == 0 {
                checker.reject(&key(field), "must be at least 1 second");
            }
        }
        if !(1.0..=100.0).contains(&self.increment_factor) {
            checker.reject(&key("increment_factor"), "must be between 1 and 100");
        }
        if self.bantime_max_seconds < self.bantime_seconds {
            checker.reject(&key("bantime_max_seconds"), "must not be shorter than bantime_seconds");
        }
    }
}
