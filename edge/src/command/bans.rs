//! `gatehouse bans`, `ban`, `unban` and `jail`: who is kept out by the running edge, and why.

use std::process::ExitCode;

use clap::Args;

use super::CommandError;
use super::edge::RunningEdge;
use super::times::{seconds, short};
use crate::control::bans::{BanOrder, BanReport, JailReport};
use crate::control::protocol::Request;

/// The options of `gatehouse bans`.
#[derive(Debug, Args)]
pub(super) struct Bans {
    #[command(flatten)]
    edge: RunningEdge,
}

/// The options of `gatehouse ban`.
#[derive(Debug, Args)]
pub(super) struct Ban {
    /// An address, a prefix such as 192.0.2.0/24, or the name of another server
    #[arg(value_name = "WHOM")]
    offender: String,
    /// For how long, such as 90s, 15m, 1h30m or 7d; left out: for ever
    #[arg(long = "for", value_name = "TIME", value_parser = seconds, conflicts_with = "jail")]
    lasting_seconds: Option<u64>,
    /// Let this jail ban in its own way: for its time, longer each time
    #[arg(long, value_name = "NAME")]
    jail: Option<String>,
    #[command(flatten)]
    edge: RunningEdge,
}

/// The options of `gatehouse unban`.
#[derive(Debug, Args)]
pub(super) struct Unban {
    /// What `gatehouse bans` shows: an address, a prefix or the name of another server
    #[arg(value_name = "WHOM")]
    offender: String,
    #[command(flatten)]
    edge: RunningEdge,
}

/// The options of `gatehouse jail`.
#[derive(Debug, Args)]
pub(super) struct Jail {
    /// The jail; left out: all of them
    #[arg(value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    edge: RunningEdge,
}

impl Bans {
    pub(super) fn execute(&self) -> Result<ExitCode, CommandError> {
        self.edge.ask(&Request::Bans, |bans: &Vec<BanReport>| print!("{}", table(bans)))
    }
}

impl Ban {
    pub(super) fn execute(self) -> Result<ExitCode, CommandError> {
        let Self { offender, lasting_seconds, jail, edge } = self;
        let order = BanOrder { offender, lasting_seconds, jail };
        edge.ask(&Request::Ban(order), |ban: &BanReport| {
            println!("{} is banned {}", ban.offender, left(ban));
        })
    }
}

impl Unban {
    pub(super) fn execute(self) -> Result<ExitCode, CommandError> {
        self.edge.ask(&Request::Unban { offender: self.offender }, |ban: &BanReport| {
            println!("{} is banned no more; the jail {} had banned it", ban.offender, ban.jail);
        })
    }
}

impl Jail {
    pub(super) fn execute(self) -> Result<ExitCode, CommandError> {
        self.edge.ask(&Request::Jails { name: self.name }, |jails: &Vec<JailReport>| {
            for (index, jail) in jails.iter().enumerate() {
                print!("{}{}", if index == 0 { "" } else { "\n" }, describe(jail));
            }
        })
    }
}

/// One line a ban, in columns.
fn table(bans: &[BanReport]) -> String {
    if bans.is_empty() {
        return "nobody is banned\n".to_owned();
    }
    let width =
        |column: fn(&BanReport) -> usize, head: &str| bans.iter().map(column).max().unwrap_or(0).max(head.len());
    let offender = width(|ban| ban.offender.len(), "BANNED");
    let jail = width(|ban| ban.jail.len(), "JAIL");
    let mut text = format!("{:offender$}  {:jail$}  {:>8}  TIME LEFT\n", "BANNED", "JAIL", "LASTS");
    for ban in bans {
        let lasts =
            ban.until_ms.map_or("for ever".to_owned(), |until| short(until.saturating_sub(ban.since_ms) / 1_000));
        let left = ban.left_seconds.map_or(String::new(), short);
        text.push_str(&format!("{:offender$}  {:jail$}  {lasts:>8}  {left}\n", ban.offender, ban.jail));
    }
    text
}

fn describe(jail: &JailReport) -> String {
    let JailReport { name, feeds, maxretry, findtime_seconds, bantime_seconds, bans, counted, .. } = jail;
    let (within, lasting) = (short(*findtime_seconds), short(*bantime_seconds));
    let mut text = format!("{name}: {maxretry} × {} within {within} ban for {lasting}\n", feeds.join(" or "));
    for counted in counted {
        text.push_str(&format!("  {}  {} of {maxretry}\n", counted.offender, counted.offences));
    }
    for ban in bans {
        text.push_str(&format!("  {}  banned {}\n", ban.offender, left(ban)));
    }
    text
}

fn left(ban: &BanReport) -> String {
    ban.left_seconds.map_or("for ever".to_owned(), |seconds| format!("for {}", short(seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_can_read_the_table() {
        let ban = |offender: &str, jail: &str, until_ms, left_seconds| BanReport {
            offender: offender.to_owned(),
            jail: jail.to_owned(),
            since_ms: 0,
            until_ms,
            left_seconds,
        };
        let bans = [
            ban("192.0.2.1", "login", Some(600_000), Some(599)),
            ban("2001:db8:1:2::/64", "repeat", Some(604_800_000), Some(86_400)),
            ban("evil.example", "operator", None, None),
        ];
        let expected = "BANNED             JAIL         LASTS  TIME LEFT\n\
                        192.0.2.1          login          10m  9m59s\n\
                        2001:db8:1:2::/64  repeat          7d  1d\n\
                        evil.example       operator  for ever  \n";
        assert_eq!(table(&bans), expected);
        assert_eq!(table(&[]), "nobody is banned\n");
    }
}
