//! Whether the federation API answers, by its simplest question.

use serde_json::Value;

use super::super::finding::{Finding, Mend, Severity, Verdict};
use super::super::observed::{Answer, Observed};

const CHECK: &str = "version";

pub(super) fn judge(observed: &Observed) -> Verdict {
    let mut findings: Vec<Finding> = Vec::new();
    let mut summary = None;
    for endpoint in &observed.endpoints {
        let Ok(answer) = &endpoint.version else { continue };
        let at = format!("/_matrix/federation/v1/version at {}", endpoint.address);
        match told(answer) {
            Ok(version) => summary = summary.or(Some(version)),
            Err(seen) => findings.push(Finding {
                id: "version",
                severity: Severity::Error,
                at,
                seen,
                why: "requests of other servers do not reach the homeserver",
                mend: Mend::edge(
                    "[upstream] shards = […]   # a shard that runs; everything below /_matrix/ must reach it",
                ),
            }),
        }
    }
    Verdict::new(CHECK, summary.unwrap_or_else(|| "unknown".to_owned()), findings)
}

fn told(answer: &Answer) -> Result<String, String> {
    if answer.status != 200 {
        return Err(format!("the status is {}", answer.status));
    }
    let object = answer.object().map_err(|error| format!("it is no JSON object: {}", super::quoted(&error)))?;
    let text = |key| object.get("server").and_then(|server| server.get(key)).and_then(Value::as_str);
    match (text("name"), text("version")) {
        (Some(name), Some(version)) => Ok(super::quoted(&format!("{name} {version}"))),
        _ => Err("it has no server.name and server.version".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{answer, ids, observed};
    use super::*;

    #[test]
    fn the_version_must_be_told() {
        assert_eq!(judge(&observed()).summary, "Gatehouse 1");
        for wrong in [answer(404, "{}"), answer(200, "x"), answer(200, "{}")] {
            let mut seen = observed();
            seen.endpoints[0].version = Ok(wrong);
            assert_eq!(ids(&judge(&seen)), ["version"]);
        }
    }
}
