//! Sets a report beside a baseline's and says which bars it passes.

use std::fmt::Write as _;

use crate::report::{Measurement, Report};

/// A comparison as text, and how many bars were missed.
#[derive(Debug)]
pub(crate) struct Comparison {
    pub(crate) text: String,
    pub(crate) missed: usize,
}

/// What a part must reach.
#[derive(Debug, Clone, Copy)]
enum Bar {
    /// The baseline's CPU per operation is at least this many times the candidate's.
    CpuRatio(f64),
    /// The baseline's median is at least this many times the candidate's.
    TimeRatio(f64),
    /// The 99th percentile is below this many milliseconds.
    P99Below(f64),
    /// The named process holds less than this many megabytes.
    ResidentBelow(&'static str, f64),
    /// The database grows by at most this many bytes per operation.
    BytesAtMost(f64),
    /// CPU per operation is at most this many times that of another part of the same report.
    CpuWithin(&'static str, f64),
}

/// The bars, by the name of the part.
const BARS: &[(&str, Bar)] = &[
    ("create-room-1", Bar::CpuRatio(40.0)),
    ("create-room-8", Bar::CpuRatio(40.0)),
    ("send-1-room-1-sender", Bar::CpuRatio(20.0)),
    ("send-1-room-16-senders", Bar::CpuRatio(50.0)),
    ("send-50-rooms-1-sender", Bar::CpuRatio(20.0)),
    ("send-50-rooms-16-senders", Bar::CpuRatio(50.0)),
    ("fan-out", Bar::CpuRatio(50.0)),
    ("fan-out", Bar::P99Below(15.0)),
    ("initial-sync-limit-10", Bar::TimeRatio(30.0)),
    ("initial-sync-limit-50", Bar::TimeRatio(30.0)),
    ("idle", Bar::ResidentBelow("shard", 50.0)),
    ("idle", Bar::ResidentBelow("edge", 35.0)),
    ("storage", Bar::BytesAtMost(2_500.0)),
    ("send-at-depth-deep", Bar::CpuWithin("send-at-depth-shallow", 1.1)),
];

pub(crate) fn compare(baseline: &Report, candidate: &Report, apart: &[String]) -> Comparison {
    let mut text = format!(
        "{} → {}; ratios are baseline / candidate, CPU without: {}\n{:<26} {:>19} {:>21} {:>21} {:>23} {:>7} {:>7}\n",
        baseline.label,
        candidate.label,
        apart.join(", "),
        "part",
        "per s",
        "p50 ms",
        "p99 ms",
        "CPU ms each",
        "ratio",
        "apart",
    );
    for measurement in &candidate.measurements {
        let before = baseline.find(&measurement.name);
        text.push_str(&row(before, measurement, apart));
    }
    let mut missed = 0;
    for (name, bar) in BARS {
        let Some(measurement) = candidate.find(name) else {
            continue;
        };
        let verdict = judge(*bar, baseline.find(name), measurement, candidate, apart);
        let Some((passed, sentence)) = verdict else {
            continue;
        };
        missed += usize::from(!passed);
        let _ = writeln!(text, "{} {name}: {sentence}", if passed { "passed" } else { "MISSED" });
    }
    Comparison { text, missed }
}

fn row(before: Option<&Measurement>, after: &Measurement, apart: &[String]) -> String {
    let pair = |old: Option<f64>, new: f64, digits: usize| match old {
        Some(old) => format!("{old:.digits$} → {new:.digits$}"),
        None => format!("{new:.digits$}"),
    };
    let new_cpu = cpu(after, apart);
    let old_cpu = before.map(|before| cpu(before, apart));
    let ratio = old_cpu.and_then(|old| ratio(old, new_cpu)).map_or_else(String::new, |ratio| format!("{ratio:.1}"));
    let apart_cpu = after.cpu_ms.iter().filter(|(name, _)| apart.contains(name)).fold(0.0, |sum, (_, cpu)| sum + cpu);
    format!(
        "{:<26} {:>19} {:>21} {:>21} {:>23} {ratio:>7} {apart_cpu:>7.3}\n",
        after.name,
        pair(before.map(Measurement::rate), after.rate(), 1),
        pair(before.map(|before| before.p50_ms), after.p50_ms, 2),
        pair(before.map(|before| before.p99_ms), after.p99_ms, 2),
        pair(old_cpu, new_cpu, 3),
    )
}

fn judge(
    bar: Bar,
    before: Option<&Measurement>,
    after: &Measurement,
    report: &Report,
    apart: &[String],
) -> Option<(bool, String)> {
    let at_least = |what: &str, measured: f64, bar: f64| {
        (measured >= bar, format!("{what} at 1/{measured:.1} of the baseline's, the bar is 1/{bar:.0}"))
    };
    match bar {
        Bar::CpuRatio(bar) => {
            ratio(cpu(before?, apart), cpu(after, apart)).map(|measured| at_least("CPU", measured, bar))
        }
        Bar::TimeRatio(bar) => ratio(before?.p50_ms, after.p50_ms).map(|measured| at_least("time", measured, bar)),
        Bar::P99Below(bar) => Some((after.p99_ms < bar, format!("p99 {:.2} ms, the bar is {bar:.0}", after.p99_ms))),
        Bar::ResidentBelow(process, bar) => {
            let measured = *after.rss_mb.get(process)?;
            Some((measured < bar, format!("{process} holds {measured:.1} MB, the bar is {bar:.0}")))
        }
        Bar::BytesAtMost(bar) => {
            let measured = after.bytes_per_operation?;
            Some((measured <= bar, format!("{measured:.0} bytes each, the bar is {bar:.0}")))
        }
        Bar::CpuWithin(other, bar) => {
            let measured = ratio(cpu(after, apart), cpu(report.find(other)?, apart))?;
            Some((measured <= bar, format!("{measured:.2} times the CPU of {other}, the bar is {bar:.1}")))
        }
    }
}

/// CPU per operation of everything but what is counted apart.
fn cpu(measurement: &Measurement, apart: &[String]) -> f64 {
    measurement.cpu_ms.iter().filter(|(name, _)| !apart.contains(name)).map(|(_, cpu)| cpu).sum()
}

fn ratio(dividend: f64, divisor: f64) -> Option<f64> {
    (divisor > 0.0 && dividend > 0.0).then(|| dividend / divisor)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn report(name: &str, cpu: &[(&str, f64)]) -> Report {
        let mut report = Report::new("test");
        report.put(Measurement {
            name: name.to_owned(),
            operations: 10,
            errors: 0,
            first_error: None,
            seconds: 1.0,
            p50_ms: 1.0,
            p95_ms: 1.0,
            p99_ms: 1.0,
            max_ms: 1.0,
            cpu_ms: cpu.iter().map(|(name, cpu)| ((*name).to_owned(), *cpu)).collect(),
            rss_mb: BTreeMap::new(),
            bytes_per_operation: None,
        });
        report
    }

    #[test]
    fn server_and_database_are_judged_together_and_the_edge_apart() {
        let baseline = report("create-room-1", &[("server", 60.0), ("db", 40.0)]);
        let apart = [String::from("edge")];
        let passes = report("create-room-1", &[("shard", 1.5), ("db", 0.9), ("edge", 9.0)]);
        assert_eq!(compare(&baseline, &passes, &apart).missed, 0);
        let misses = report("create-room-1", &[("shard", 1.5), ("db", 1.1), ("edge", 0.0)]);
        assert_eq!(compare(&baseline, &misses, &apart).missed, 1);
    }
}
