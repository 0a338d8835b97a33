//! Answers what operators ask about bans, and does what they order.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::protocol::Answer;
use crate::admission::ban_table::Ban;
use crate::admission::jail::Jail;
use crate::admission::offender::Offender;
use crate::bans::Bans;
use crate::config::policy::Counts;

/// One ban, as commands and the status page show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BanReport {
    /// An address, a prefix or a server name.
    pub(crate) offender: String,
    /// The jail that imposed it, or `operator`.
    pub(crate) jail: String,
    /// Since when, in milliseconds since the Unix epoch.
    pub(crate) since_ms: u64,
    /// Until when; null for a ban without end.
    pub(crate) until_ms: Option<u64>,
    /// How much of it is left, in seconds; null for a ban without end.
    pub(crate) left_seconds: Option<u64>,
}

/// One jail.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct JailReport {
    pub(crate) name: String,
    pub(crate) feeds: Vec<String>,
    /// `address` or `server`.
    pub(crate) counts: Counts,
    pub(crate) maxretry: u32,
    pub(crate) findtime_seconds: u64,
    pub(crate) bantime_seconds: u64,
    /// Its bans, the newest first.
    pub(crate) bans: Vec<BanReport>,
    /// Who is on the way there, the nearest first.
    pub(crate) counted: Vec<CountedReport>,
}

/// Somebody whom a jail counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CountedReport {
    pub(crate) offender: String,
    /// How many offences count at this moment.
    pub(crate) offences: usize,
}

/// An operator's order to ban.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BanOrder {
    /// An address, a prefix or a server name.
    pub(crate) offender: String,
    /// For how long, in seconds; null is for ever, unless a jail says how long.
    pub(crate) lasting_seconds: Option<u64>,
    /// The jail that is to ban in its own way.
    pub(crate) jail: Option<String>,
}

impl BanReport {
    fn new(ban: Ban, now_ms: u64) -> Self {
        // A ban that has half a second left has a second left for a person.
        let left_seconds = ban.left_ms(now_ms).map(|left| left.div_ceil(1_000));
        let Ban { offender, jail, since_ms, until_ms } = ban;
        Self { offender: offender.to_string(), jail, since_ms, until_ms, left_seconds }
    }
}

/// Every ban that holds.
pub(crate) fn list(bans: &Bans) -> Vec<BanReport> {
    let now_ms = bans.now_ms();
    bans.list().into_iter().map(|ban| BanReport::new(ban, now_ms)).collect()
}

/// Bans.
pub(crate) fn ban(bans: &Bans, order: &BanOrder) -> Answer {
    let offender: Offender = match order.offender.parse() {
        Ok(offender) => offender,
        Err(error) => return Answer::refused(format!("{error}")),
    };
    if let Offender::Prefix(prefix) = &offender
        && bans.rules().is_exempt(prefix.addr())
    {
        return Answer::refused(format!("{offender} is exempt from bans: addresses.exempt of the policy holds it"));
    }
    let lasting = order.lasting_seconds.map(Duration::from_secs);
    let ban = match &order.jail {
        None => bans.ban(offender, lasting),
        Some(name) => match bans.ban_by_jail(name, offender) {
            Some(ban) => ban,
            None => return no_such_jail(bans, name),
        },
    };
    Answer::done(&BanReport::new(ban, bans.now_ms()))
}

/// Lifts a ban.
pub(crate) fn unban(bans: &Bans, offender: &str) -> Answer {
    match offender.parse::<Offender>().map(|offender| bans.unban(&offender)) {
        Ok(Some(ban)) => Answer::done(&BanReport::new(ban, bans.now_ms())),
        Ok(None) => {
            let within = "`gatehouse bans` lists them, and a prefix is lifted as a whole";
            Answer::refused(format!("there is no ban of exactly {offender}; {within}"))
        }
        Err(error) => Answer::refused(format!("{error}")),
    }
}

/// All jails, or the one of this name.
pub(crate) fn jails(bans: &Bans, name: Option<&str>) -> Answer {
    let rules = bans.rules();
    let (now_ms, all) = (bans.now_ms(), list(bans));
    let report = |jail: &Jail| JailReport {
        name: jail.name.to_string(),
        feeds: jail.policy.feeds.iter().map(|feed| feed.as_str().to_owned()).collect(),
        counts: jail.policy.counts,
        maxretry: jail.policy.maxretry,
        findtime_seconds: jail.policy.findtime_seconds,
        bantime_seconds: jail.policy.bantime_seconds,
        bans: all.iter().filter(|ban| ban.jail == *jail.name).cloned().collect(),
        counted: counted(bans, jail, now_ms),
    };
    let wanted = rules.jails.iter().filter(|jail| name.is_none_or(|name| name == &*jail.name));
    let reports: Vec<JailReport> = wanted.map(report).collect();
    match name {
        Some(name) if reports.is_empty() => no_such_jail(bans, name),
        _ => Answer::done(&reports),
    }
}

fn counted(bans: &Bans, jail: &Jail, now_ms: u64) -> Vec<CountedReport> {
    let counted = bans.admission.jails.counted(jail, now_ms).into_iter();
    counted.map(|(offender, offences)| CountedReport { offender: offender.to_string(), offences }).collect()
}

fn no_such_jail(bans: &Bans, name: &str) -> Answer {
    let rules = bans.rules();
    let names: Vec<&str> = rules.jails.iter().map(|jail| &*jail.name).collect();
    Answer::refused(format!("the policy has no jail {name:?}; it has {}", names.join(", ")))
}
