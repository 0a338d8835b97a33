//! Whether the server's clock agrees with this machine's.

use super::super::finding::{Finding, Mend, Severity, Verdict};
use super::super::observed::{Answer, Observed, unix_seconds};

const CHECK: &str = "clock";
/// `Date` has whole seconds, and an answer takes a while.
const NOTICED: i64 = 30;
/// Beyond this, tokens and keys are taken for expired and events for events of the future.
const HARMFUL: i64 = 300;

pub(super) fn judge(observed: &Observed) -> Verdict {
    let mut findings: Vec<Finding> = Vec::new();
    let mut worst: Option<i64> = None;
    for endpoint in &observed.endpoints {
        let Some(skew) = endpoint.answers().filter_map(skew).max_by_key(|skew| skew.abs()) else { continue };
        worst = worst.into_iter().chain([skew]).max_by_key(|skew| skew.abs());
        if skew.abs() < NOTICED || !findings.is_empty() {
            continue;
        }
        let way = if skew > 0 { "ahead of" } else { "behind" };
        findings.push(Finding {
            id: "clock-skew",
            severity: if skew.abs() < HARMFUL { Severity::Warning } else { Severity::Error },
            at: endpoint.address.to_string(),
            seen: format!("its clock is {} s {way} the one here", skew.abs()),
            why: "keys and certificates are judged, and events dated, by a wrong time (of this machine, perhaps)",
            mend: Mend::system("timedatectl set-ntp true"),
        });
    }
    let summary = worst.map_or_else(|| "no answer tells the time".to_owned(), |skew| format!("{} s off", skew.abs()));
    Verdict::new(CHECK, summary, findings)
}

/// Seconds by which the server is ahead. A cached answer tells the time at which it was made.
fn skew(answer: &Answer) -> Option<i64> {
    if answer.headers.contains_key("age") {
        return None;
    }
    let date = httpdate::parse_http_date(answer.header("date")?).ok()?;
    Some(unix_seconds(date) - unix_seconds(answer.at))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::super::testing::{NOW, ids, observed};
    use super::*;

    fn judged(ahead: i64) -> Verdict {
        let mut seen = observed();
        let date = SystemTime::UNIX_EPOCH + Duration::from_secs((NOW + ahead).try_into().unwrap());
        let date = httpdate::fmt_http_date(date).parse().unwrap();
        if let Ok(answer) = &mut seen.endpoints[0].keys {
            answer.headers.insert("date", date);
        }
        judge(&seen)
    }

    #[test]
    fn small_differences_are_nothing() {
        assert!(judged(-5).findings.is_empty());
        assert_eq!(judged(-5).summary, "5 s off");
    }

    #[test]
    fn large_ones_are_told_with_their_direction() {
        let behind = judged(-100);
        assert_eq!((ids(&behind), behind.worst()), (vec!["clock-skew"], Some(Severity::Warning)));
        let ahead = judged(1000);
        assert_eq!(ahead.worst(), Some(Severity::Error));
        assert!(ahead.findings[0].seen.contains("1000 s ahead of"));
    }
}
