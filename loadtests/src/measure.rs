//! Measures operations: their time at the client, and the CPU and memory of the servers as /proc tells them.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::str::FromStr;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::client::CallError;
use crate::report::Measurement;

/// Clock ticks per second in /proc: 100 on every architecture that Linux exports to programs.
const TICKS_PER_SECOND: f64 = 100.0;

/// A process whose whole tree is counted under a name.
#[derive(Debug, Clone)]
pub(crate) struct Probe {
    name: String,
    pid: u32,
}

impl FromStr for Probe {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, pid) = text.split_once('=').ok_or("write it as NAME=PID")?;
        let pid = pid.parse().map_err(|_| format!("`{pid}` is no process id"))?;
        Ok(Self { name: name.to_owned(), pid })
    }
}

/// What one probe's tree has used since its processes began, and holds now.
#[derive(Debug, Clone, Copy, Default)]
struct Usage {
    ticks: u64,
    resident_bytes: u64,
}

/// Collects the latencies of one measured part, and the servers' CPU over its duration.
#[derive(Debug)]
pub(crate) struct Stopwatch<'a> {
    probes: &'a [Probe],
    before: BTreeMap<String, Usage>,
    started: Instant,
    latencies: RefCell<Vec<Duration>>,
    errors: Cell<u64>,
    first_error: RefCell<Option<String>>,
}

impl<'a> Stopwatch<'a> {
    pub(crate) fn start(probes: &'a [Probe]) -> Self {
        Self {
            probes,
            before: usage(probes),
            started: now(),
            latencies: RefCell::default(),
            errors: Cell::new(0),
            first_error: RefCell::default(),
        }
    }

    /// How long the part has run.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Counts one operation that began at `began` and has ended now.
    pub(crate) fn record<T>(&self, began: Instant, outcome: Result<T, CallError>) {
        self.record_at(began, now(), outcome);
    }

    /// Counts one operation that began and ended at the given times.
    pub(crate) fn record_at<T>(&self, began: Instant, ended: Instant, outcome: Result<T, CallError>) {
        match outcome {
            Ok(_) => self.latencies.borrow_mut().push(ended.saturating_duration_since(began)),
            Err(error) => {
                self.errors.set(self.errors.get() + 1);
                self.first_error.borrow_mut().get_or_insert_with(|| error.to_string());
            }
        }
    }

    pub(crate) fn finish(self, name: impl Into<String>) -> Measurement {
        let elapsed = self.started.elapsed();
        let after = usage(self.probes);
        let mut latencies = self.latencies.into_inner();
        latencies.sort_unstable();
        let operations = latencies.len() as u64;
        let per_operation = |milliseconds: f64| {
            if operations == 0 { 0.0 } else { milliseconds / operations as f64 }
        };
        let mut cpu_ms = BTreeMap::new();
        let mut rss_mb = BTreeMap::new();
        for (name, after) in after {
            let before = self.before.get(&name).copied().unwrap_or_default();
            let ticks = after.ticks.saturating_sub(before.ticks);
            cpu_ms.insert(name.clone(), per_operation(ticks as f64 * 1000.0 / TICKS_PER_SECOND));
            rss_mb.insert(name, after.resident_bytes as f64 / 1_000_000.0);
        }
        Measurement {
            name: name.into(),
            operations,
            errors: self.errors.get(),
            first_error: self.first_error.into_inner(),
            seconds: elapsed.as_secs_f64(),
            p50_ms: percentile(&latencies, 50.0),
            p95_ms: percentile(&latencies, 95.0),
            p99_ms: percentile(&latencies, 99.0),
            max_ms: percentile(&latencies, 100.0),
            cpu_ms,
            rss_mb,
            bytes_per_operation: None,
        }
    }
}

/// How many operations a part makes at once, and at most.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) at_once: usize,
    pub(crate) operations: u64,
    pub(crate) limit: Duration,
}

/// Makes operations, each worker the next as soon as its last has ended. `operation` gets the number of the operation.
pub(crate) async fn closed_loop<T, F, Fut>(
    probes: &[Probe],
    name: impl Into<String>,
    load: Load,
    operation: F,
) -> Measurement
where
    F: Fn(u64) -> Fut,
    Fut: Future<Output = Result<T, CallError>>,
{
    let watch = Stopwatch::start(probes);
    let next = Cell::new(0);
    let workers = (0..load.at_once).map(|_| async {
        while next.get() < load.operations && watch.elapsed() < load.limit {
            let number = next.get();
            next.set(number + 1);
            let began = now();
            watch.record(began, operation(number).await);
        }
    });
    join_all(workers).await;
    watch.finish(name)
}

/// The one place that reads the clock.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The value below which `percent` of the sorted latencies lie, in milliseconds; 0 when there are none.
fn percentile(sorted: &[Duration], percent: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else {
        return 0.0;
    };
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted[rank.saturating_sub(1).min(last)].as_secs_f64() * 1000.0
}

/// One line of /proc/PID/stat, as far as it matters here.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    /// User and system time of the process and of its children that it has waited for.
    ticks: u64,
}

fn usage(probes: &[Probe]) -> BTreeMap<String, Usage> {
    if probes.is_empty() {
        return BTreeMap::new();
    }
    let processes = processes();
    let roots: BTreeSet<u32> = probes.iter().map(|probe| probe.pid).collect();
    let mut usages: BTreeMap<String, Usage> = BTreeMap::new();
    for probe in probes {
        let tree = tree(&processes, probe.pid, &roots);
        let usage = usages.entry(probe.name.clone()).or_default();
        usage.ticks += tree.iter().filter_map(|pid| processes.get(pid)).map(|stat| stat.ticks).sum::<u64>();
        usage.resident_bytes += match tree.as_slice() {
            [single] => resident_bytes(*single),
            many => many.iter().map(|pid| proportional_bytes(*pid)).sum(),
        };
    }
    usages
}

fn processes() -> BTreeMap<u32, Stat> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            Some((pid, parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?))
        })
        .collect()
}

fn parse_stat(line: &str) -> Option<Stat> {
    // The second field is the program's name in parentheses, which may contain spaces and parentheses.
    let (_, rest) = line.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Stat { parent: fields.get(1)?.parse().ok()?, ticks: number(11)? + number(12)? + number(13)? + number(14)? })
}

/// The process and its descendants, without the subtrees of other probes.
fn tree(processes: &BTreeMap<u32, Stat>, root: u32, roots: &BTreeSet<u32>) -> Vec<u32> {
    let mut found = vec![root];
    let mut looked_at = 0;
    while let Some(&parent) = found.get(looked_at) {
        looked_at += 1;
        let children = processes.iter().filter(|(pid, stat)| stat.parent == parent && !roots.contains(pid));
        found.extend(children.map(|(pid, _)| *pid));
    }
    found
}

fn resident_bytes(pid: u32) -> u64 {
    kilobytes(&format!("/proc/{pid}/status"), "VmRSS:") * 1024
}

/// Memory with shared pages divided among those who share them, since PostgreSQL's processes share most of theirs.
fn proportional_bytes(pid: u32) -> u64 {
    kilobytes(&format!("/proc/{pid}/smaps_rollup"), "Pss:") * 1024
}

fn kilobytes(file: &str, key: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|rest| rest.split_ascii_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let latencies: Vec<Duration> = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(percentile(&latencies, 50.0), 50.0);
        assert_eq!(percentile(&latencies, 99.0), 99.0);
        assert_eq!(percentile(&latencies, 100.0), 100.0);
        assert_eq!(percentile(&latencies[..1], 99.0), 1.0);
        assert_eq!(percentile(&[], 99.0), 0.0);
    }

    #[test]
    fn a_program_may_have_any_name() {
        let line = "42 (post) (gres: a) S 7 42 42 0 -1 4194560 1 2 3 4 11 12 13 14 20 0 1 0";
        assert_eq!(parse_stat(line), Some(Stat { parent: 7, ticks: 50 }));
        assert_eq!(parse_stat("42 (cut"), None);
    }

    #[test]
    fn a_probe_below_another_counts_for_itself() {
        let stat = |parent| Stat { parent, ticks: 1 };
        let processes = BTreeMap::from([(1, stat(0)), (2, stat(1)), (3, stat(2)), (4, stat(1)), (5, stat(4))]);
        let roots = BTreeSet::from([1, 4]);
        assert_eq!(tree(&processes, 1, &roots), [1, 2, 3]);
        assert_eq!(tree(&processes, 4, &roots), [4, 5]);
    }
}
