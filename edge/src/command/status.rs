//! `gatehouse status`: what the running edge is doing, as the status page shows it.

use std::process::ExitCode;

use clap::Args;

use super::CommandError;
use super::edge::RunningEdge;
use super::shards;
use super::times::short;
use crate::control::bans::BanReport;
use crate::control::protocol::Request;
use crate::status::routes::SlowRoute;
use crate::status::traffic::ClassTraffic;
use crate::status::{CertificateStatus, Status as Now};

/// The options of `gatehouse status`.
#[derive(Debug, Args)]
pub(super) struct Status {
    #[command(flatten)]
    edge: RunningEdge,
}

impl Status {
    pub(super) fn execute(&self) -> Result<ExitCode, CommandError> {
        self.edge.ask(&Request::Status, show)
    }
}

/// How many numbers of a history one block of a sparkline stands for, at 2 s each: five minutes are 30 blocks.
const STEPS_PER_BLOCK: usize = 5;
const MOST_BANS: usize = 10;

fn show(status: &Now) {
    let Now { version, process_id, uptime_seconds, server_name, connections, .. } = status;
    let uptime = short(*uptime_seconds);
    println!("{server_name}: gatehouse {version}, process {process_id}, up {uptime}, {connections} connections\n");
    println!("{:<14} {:>10} {:>10} {:>10}  five minutes", "class", "requests/s", "refused/s", "failed/s");
    for ClassTraffic { class, per_second, refused_per_second, failed_per_second, history } in &status.traffic {
        let history = sparkline(history);
        println!("{class:<14} {per_second:>10.1} {refused_per_second:>10.1} {failed_per_second:>10.1}  {history}");
    }
    println!("\nshards");
    shards::show(&status.shards);
    section("certificates", &status.certificates, |CertificateStatus { names, source, expires, problem }| {
        let expires = match expires.map(|at| at.checked_sub(status.now)) {
            None => "missing".to_owned(),
            Some(None) => "expired".to_owned(),
            Some(Some(left)) => format!("expires in {}", short(left)),
        };
        let problem = problem.as_ref().map(|problem| format!("; {problem}")).unwrap_or_default();
        format!("{}  {source}, {expires}{problem}", names.join(" "))
    });
    section("slowest endpoints", &status.slow_routes, |SlowRoute { route, requests, p95_ms, slowest_ms }| {
        format!("{p95_ms:>8.0} ms  {slowest_ms:>8.0} ms at most  {requests:>8} requests  {route}")
    });
    let shown = status.bans.get(..MOST_BANS).unwrap_or(&status.bans);
    section(&format!("bans: {}", status.bans.len()), shown, |BanReport { offender, jail, left_seconds, .. }| {
        let left = left_seconds.map_or_else(|| "for ever".to_owned(), |left| format!("for {}", short(left)));
        format!("{offender}  {jail}, {left}")
    });
}

fn section<T>(title: &str, all: &[T], line: impl Fn(&T) -> String) {
    if !all.is_empty() {
        println!("\n{title}");
        all.iter().for_each(|one| println!("{}", line(one)));
    }
}

fn sparkline(history: &[u64]) -> String {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let sums: Vec<u64> = history.rchunks(STEPS_PER_BLOCK).rev().map(|chunk| chunk.iter().sum()).collect();
    let top = sums.iter().max().copied().unwrap_or_default().max(1);
    let block = |sum: &u64| BLOCKS.get((sum * 7 / top) as usize).copied().unwrap_or('█');
    sums.iter().map(block).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sparklines_are_short() {
        assert_eq!(sparkline(&[0; 150]).chars().count(), 30);
        assert_eq!(sparkline(&[0, 0, 0, 0, 0, 1, 1, 1, 1, 10]), "▁█");
        assert_eq!(sparkline(&[]), "");
    }
}
