//! Counts offences and decides who is to be banned, and for how long.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::ban_table::Ban;
use super::offender::Offender;
use super::prefix_map::PrefixMap;
use crate::config::policy::{Counts, Feed, JailPolicy};

/// So many offenders are counted, and so many remembered, at one time.
const MOST: usize = 100_000;
/// So many offences are told to the process that goes on counting.
const MOST_TOLD: usize = 500_000;

/// Something that a jail may count.
#[derive(Debug, Clone)]
pub(crate) struct Offence {
    pub(crate) feed: Feed,
    pub(crate) client: IpAddr,
    /// The server whose signature the shard found right.
    pub(crate) server: Option<String>,
    /// What is equal for the same thing tried again, such as a token's hash.
    pub(crate) mark: Option<u64>,
}

/// What one ban leaves behind, so that the next one is longer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Past {
    pub(crate) offender: Offender,
    pub(crate) jail: String,
    /// How many bans there were.
    pub(crate) bans: u32,
    /// When the last of them ends or ended, in milliseconds since the Unix epoch.
    pub(crate) until_ms: u64,
}

/// What a jail has counted against somebody who is not banned yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tally {
    pub(crate) offender: Offender,
    pub(crate) jail: String,
    /// When each offence was that has no mark, in milliseconds since the Unix epoch; the newest last.
    pub(crate) offences_ms: Vec<u64>,
}

/// A ban that a jail wants, and what is to be remembered of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sentence {
    pub(crate) ban: Ban,
    pub(crate) past: Past,
}

/// One jail of the policy, ready to decide.
#[derive(Debug)]
pub(crate) struct Jail {
    pub(crate) name: Arc<str>,
    pub(crate) policy: JailPolicy,
    ignore: PrefixMap<()>,
}

impl Jail {
    pub(crate) fn new(name: &str, policy: &JailPolicy) -> Self {
        Self { name: name.into(), policy: policy.clone(), ignore: policy.ignore.iter().copied().collect() }
    }

    fn hears(&self, feed: Feed) -> bool {
        self.policy.feeds.contains(&feed)
    }

    fn bantime_ms(&self, bans_before: u32) -> u64 {
        let factor = self.policy.increment_factor.powi(i32::try_from(bans_before).unwrap_or(i32::MAX));
        let seconds = (self.policy.bantime_seconds as f64 * factor).min(self.policy.bantime_max_seconds as f64);
        // Between one second and some years: neither end is lost in the conversion.
        (seconds * 1_000.0) as u64
    }
}

/// What all jails have counted, and whom they remember. A policy may come and go without a loss here.
#[derive(Debug, Default)]
pub(crate) struct Jails(Mutex<State>);

type Key = (Arc<str>, Offender);

#[derive(Debug, Default)]
struct State {
    /// When, and what, for each offence that still may count; the newest last.
    tallies: HashMap<Key, VecDeque<(u64, Option<u64>)>>,
    past: HashMap<Key, Past>,
}

impl Jails {
    /// Counts an offence. `prefix` is the client's, and `None` when no jail may count it.
    pub(crate) fn hear(
        &self,
        jails: &[Jail],
        offence: &Offence,
        prefix: Option<ipnet::IpNet>,
        now_ms: u64,
    ) -> Vec<Sentence> {
        let mut hearing = jails.iter().filter(|jail| jail.hears(offence.feed)).peekable();
        if hearing.peek().is_none() {
            return Vec::new();
        }
        let mut state = self.0.lock();
        let mut sentences = Vec::new();
        for jail in hearing {
            let offender = match jail.policy.counts {
                Counts::Server => offence.server.as_deref().map(Offender::server),
                // What a verified server did is not laid at the door of an address that many servers may share.
                Counts::Address if offence.server.is_some() => None,
                Counts::Address if jail.ignore.contains(offence.client) => None,
                Counts::Address => prefix.map(Offender::Prefix),
            };
            let sentence = offender.and_then(|offender| state.count(jail, offender, offence.mark, now_ms));
            let Some(sentence) = sentence else { continue };
            // A jail for repeat offenders counts what the others impose, never what it imposes itself.
            for repeat in jails.iter().filter(|repeat| repeat.hears(Feed::Banned) && !jail.hears(Feed::Banned)) {
                sentences.extend(state.count(repeat, sentence.ban.offender.clone(), None, now_ms));
            }
            sentences.push(sentence);
        }
        sentences
    }

    /// The ban of this jail for somebody whom it need not have counted.
    pub(crate) fn convict(&self, jail: &Jail, offender: Offender, now_ms: u64) -> Sentence {
        self.0.lock().sentence(jail, (jail.name.clone(), offender), now_ms)
    }

    /// Takes over what is remembered of an earlier run or another edge.
    pub(crate) fn remember(&self, past: Past) {
        let mut state = self.0.lock();
        let key = (Arc::from(past.jail.as_str()), past.offender.clone());
        let known = state.past.get(&key).is_some_and(|known| known.until_ms >= past.until_ms);
        if !known {
            state.past.insert(key, past);
        }
    }

    /// Forgets what was counted against an offender, and that it was ever banned.
    pub(crate) fn forgive(&self, offender: &Offender) {
        let mut state = self.0.lock();
        state.tallies.retain(|(_, counted), _| counted != offender);
        state.past.retain(|(_, banned), _| banned != offender);
    }

    /// Everything that is remembered.
    pub(crate) fn past(&self) -> Vec<Past> {
        self.0.lock().past.values().cloned().collect()
    }

    /// What is counted, the latest offenders first. What has a mark is left out: marks mean nothing to another process, which
    /// would count the same thing twice.
    pub(crate) fn tallies(&self) -> Vec<Tally> {
        let state = self.0.lock();
        let tally = |((jail, offender), tally): (&Key, &VecDeque<(u64, Option<u64>)>)| Tally {
            offender: offender.clone(),
            jail: jail.to_string(),
            offences_ms: tally.iter().filter(|(_, mark)| mark.is_none()).map(|(when, _)| *when).collect(),
        };
        let mut tallies: Vec<Tally> = state.tallies.iter().map(tally).collect();
        tallies.sort_by_key(|tally| std::cmp::Reverse(tally.offences_ms.last().copied()));
        let mut told = 0;
        tallies.retain(|tally| {
            told += tally.offences_ms.len();
            !tally.offences_ms.is_empty() && told <= MOST_TOLD
        });
        tallies
    }

    /// Somebody else has banned an offender for what is counted here as well.
    pub(crate) fn settle(&self, jail: &str, offender: &Offender) {
        self.0.lock().tallies.remove(&(Arc::from(jail), offender.clone()));
    }

    /// Goes on counting where another process was.
    pub(crate) fn go_on_from(&self, tallies: Vec<Tally>) {
        let mut state = self.0.lock();
        for Tally { offender, jail, offences_ms } in tallies {
            let tally = state.tallies.entry((jail.into(), offender)).or_default();
            offences_ms.into_iter().rev().for_each(|when| tally.push_front((when, None)));
        }
    }

    /// Whom the jail of this name counts, and how many offences of each may still count.
    pub(crate) fn counted(&self, jail: &Jail, now_ms: u64) -> Vec<(Offender, usize)> {
        let state = self.0.lock();
        let own = state.tallies.iter().filter(|((name, _), _)| *name == jail.name);
        let findtime_ms = jail.policy.findtime_seconds.saturating_mul(1_000);
        let counts = |(when, _): &&(u64, Option<u64>)| when.saturating_add(findtime_ms) > now_ms;
        let counted = own.map(|((_, offender), tally)| (offender.clone(), tally.iter().filter(counts).count()));
        let mut counted: Vec<_> = counted.filter(|(_, count)| *count > 0).collect();
        counted.sort_by(|one, other| (other.1, &one.0).cmp(&(one.1, &other.0)));
        counted
    }

    /// Forgets what cannot count any more.
    pub(crate) fn prune(&self, jails: &[Jail], now_ms: u64) {
        let mut state = self.0.lock();
        let of = |name: &Arc<str>| jails.iter().find(|jail| jail.name == *name);
        state.tallies.retain(|(name, _), tally| {
            let newest = tally.back().map_or(0, |(when, _)| *when);
            of(name)
                .is_some_and(|jail| newest.saturating_add(jail.policy.findtime_seconds.saturating_mul(1_000)) > now_ms)
        });
        state.past.retain(|(name, _), past| {
            of(name).is_some_and(|jail| {
                past.until_ms.saturating_add(jail.policy.remember_seconds.saturating_mul(1_000)) > now_ms
            })
        });
    }
}

impl State {
    fn count(&mut self, jail: &Jail, offender: Offender, mark: Option<u64>, now_ms: u64) -> Option<Sentence> {
        let key = (jail.name.clone(), offender);
        if self.tallies.len() >= MOST && !self.tallies.contains_key(&key) {
            make_room(&mut self.tallies, |tally| tally.back().map_or(0, |(when, _)| *when));
        }
        let tally = self.tallies.entry(key.clone()).or_default();
        let findtime_ms = jail.policy.findtime_seconds.saturating_mul(1_000);
        tally.retain(|(when, _)| when.saturating_add(findtime_ms) > now_ms);
        if jail.policy.distinct && mark.is_some() {
            tally.retain(|(_, other)| *other != mark);
        }
        tally.push_back((now_ms, mark));
        if tally.len() < jail.policy.maxretry as usize {
            return None;
        }
        self.tallies.remove(&key);
        Some(self.sentence(jail, key, now_ms))
    }

    fn sentence(&mut self, jail: &Jail, key: Key, now_ms: u64) -> Sentence {
        let remember_ms = jail.policy.remember_seconds.saturating_mul(1_000);
        let remembered = self.past.get(&key).filter(|past| past.until_ms.saturating_add(remember_ms) > now_ms);
        let bans_before = remembered.map_or(0, |past| past.bans);
        let until_ms = now_ms.saturating_add(jail.bantime_ms(bans_before));
        let (offender, name) = (key.1.clone(), jail.name.to_string());
        let past = Past { offender: offender.clone(), jail: name.clone(), bans: bans_before + 1, until_ms };
        if self.past.len() >= MOST && !self.past.contains_key(&key) {
            make_room(&mut self.past, |past| past.until_ms);
        }
        self.past.insert(key, past.clone());
        Sentence { ban: Ban { offender, jail: name, since_ms: now_ms, until_ms: Some(until_ms) }, past }
    }
}

/// Forgets the older half.
fn make_room<V>(map: &mut HashMap<Key, V>, age: impl Fn(&V) -> u64) {
    let mut ages: Vec<u64> = map.values().map(&age).collect();
    let middle = ages.len() / 2;
    let (_, median, _) = ages.select_nth_unstable(middle);
    let median = *median;
    let mut left = middle;
    // Many may be of the same millisecond as the median: no more than half are kept in any case.
    map.retain(|_, value| {
        let keep = age(value) >= median && left > 0;
        left -= usize::from(keep);
        keep
    });
}

#[cfg(test)]
mod tests;
