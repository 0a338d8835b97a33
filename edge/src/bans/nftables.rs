//! Hands bans to sets of nftables, each with its own time, so that the kernel drops what the edge would refuse.

use std::io;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::sync::mpsc::UnboundedReceiver;
use tracing::{info, warn};

use super::{Bans, Change};
use crate::admission::offender::Offender;
use crate::config::NftablesConfig;

/// A program that hangs is waited for so long.
const WITHIN: Duration = Duration::from_secs(10);
/// So many changes go into one run of the program.
const BATCH: usize = 500;

/// Hands every ban over that holds, and then each change, for as long as it is polled.
pub(super) async fn hand_over(config: NftablesConfig, bans: Arc<Bans>, mut changes: UnboundedReceiver<Change>) {
    let standing: Vec<Change> = bans.list().into_iter().map(|ban| Change::Banned { ban, past: None }).collect();
    for batch in standing.chunks(BATCH) {
        apply(&config, batch, bans.now_ms()).await;
    }
    info!(bans = standing.len(), table = config.table, "bans are handed to nftables");
    let mut batch = Vec::with_capacity(BATCH);
    while changes.recv_many(&mut batch, BATCH).await > 0 {
        apply(&config, &batch, bans.now_ms()).await;
        batch.clear();
    }
}

/// One transaction for all of them. When nftables refuses it, each is tried alone, so that one that overlaps with what
/// somebody else has put into the set keeps none of the others out.
async fn apply(config: &NftablesConfig, changes: &[Change], now_ms: u64) {
    let commands: Vec<Vec<Value>> =
        changes.iter().map(|change| commands(config, change, now_ms)).filter(|commands| !commands.is_empty()).collect();
    if commands.is_empty() {
        return;
    }
    let Err(refusal) = run(config, &commands.concat()).await else { return };
    if let [_] = *commands {
        return warn!(%refusal, "nftables takes a ban not over; the edge itself goes on refusing");
    }
    for one in &commands {
        if let Err(refusal) = run(config, one).await {
            warn!(%refusal, "nftables takes a ban not over; the edge itself goes on refusing");
        }
    }
}

/// What one change means to the set: added and deleted first, because neither adding what is there nor deleting what is
/// not there does what is meant; then added with its time.
fn commands(config: &NftablesConfig, change: &Change, now_ms: u64) -> Vec<Value> {
    let (offender, ban) = match change {
        Change::Banned { ban, .. } => (&ban.offender, Some(ban)),
        Change::Lifted { offender, .. } => (offender, None),
    };
    let Offender::Prefix(prefix) = offender else { return Vec::new() };
    let set = if prefix.addr().is_ipv4() { &config.ipv4_set } else { &config.ipv6_set };
    let value = if prefix.prefix_len() == prefix.max_prefix_len() {
        json!(prefix.addr())
    } else {
        json!({ "prefix": { "addr": prefix.network(), "len": prefix.prefix_len() } })
    };
    let command = |verb: &str, element: &Value| {
        let NftablesConfig { family, table, .. } = config;
        json!({ verb: { "element": { "family": family, "table": table, "name": set, "elem": [element] } } })
    };
    let mut commands = vec![command("add", &value), command("delete", &value)];
    if let Some(ban) = ban {
        let element = match ban.left_ms(now_ms) {
            // The kernel counts whole seconds here; the edge itself ends a ban to the millisecond.
            Some(left_ms) => json!({ "elem": { "val": value, "timeout": left_ms.div_ceil(1_000).max(1) } }),
            None => value,
        };
        commands.push(command("add", &element));
    }
    commands
}

async fn run(config: &NftablesConfig, commands: &[Value]) -> io::Result<()> {
    let text = json!({ "nftables": commands }).to_string();
    let mut command = Command::new(&config.program);
    command.args(["-j", "-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut running = command.kill_on_drop(true).spawn()?;
    let answer = async {
        if let Some(mut stdin) = running.stdin.take() {
            // A program that does not read says why on its way out.
            let _ = stdin.write_all(text.as_bytes()).await;
        }
        running.wait_with_output().await
    };
    let output = tokio::time::timeout(WITHIN, answer).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    if output.status.success() {
        return Ok(());
    }
    let told = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(told.lines().next().unwrap_or("it does not say why").to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::ban_table::Ban;

    #[test]
    fn a_ban_is_an_element_with_its_time() {
        let config = NftablesConfig {
            family: "inet".to_owned(),
            table: "t".to_owned(),
            ipv4_set: "four".to_owned(),
            ipv6_set: "six".to_owned(),
            program: "/usr/sbin/nft".into(),
        };
        let of = |offender: &str, until_ms| {
            let ban = Ban { offender: offender.parse().unwrap(), jail: "x".to_owned(), since_ms: 0, until_ms };
            commands(&config, &Change::Banned { ban, past: None }, 500)
        };
        let last = |offender, until_ms| of(offender, until_ms).pop().unwrap()["add"]["element"].take();
        let expected = json!({ "family": "inet", "table": "t", "name": "four",
            "elem": [{ "elem": { "val": "192.0.2.1", "timeout": 2 } }] });
        assert_eq!(last("192.0.2.1", Some(1_600)), expected);
        let expected = json!({ "family": "inet", "table": "t", "name": "six",
            "elem": [{ "prefix": { "addr": "2001:db8::", "len": 32 } }] });
        assert_eq!(last("2001:db8::/32", None), expected);
        assert!(of("evil.example", None).is_empty(), "the kernel knows no server names");
    }
}
