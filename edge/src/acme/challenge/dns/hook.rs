//! Has a command of the operator's set and delete records.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::DnsError;

const WITHIN: Duration = Duration::from_secs(120);
/// So much of what it wrote is told when it fails.
const TOLD_CHARACTERS: usize = 300;

/// Runs `COMMAND… ACTION NAME VALUE`; whatever the command writes is told only when it fails.
pub(super) async fn run(command: &[String], action: &'static str, name: &str, value: &str) -> Result<(), DnsError> {
    let (program, arguments) = command.split_first().ok_or(DnsError::NotConfigured)?;
    let mut child = Command::new(program);
    child.args(arguments).args([action, name, value]).stdin(Stdio::null()).kill_on_drop(true);
    let failed = |status: String, told: String| DnsError::Hook { program: program.clone(), action, status, told };
    match tokio::time::timeout(WITHIN, child.output()).await {
        Ok(Ok(output)) if output.status.success() => Ok(()),
        Ok(Ok(output)) => {
            let wrote = String::from_utf8_lossy(&output.stderr).into_owned();
            let told: String = wrote.trim().chars().take(TOLD_CHARACTERS).collect();
            Err(failed(output.status.to_string(), told))
        }
        Ok(Err(source)) => Err(DnsError::HookStart { program: program.clone(), source }),
        Err(_) => Err(failed("no result".to_owned(), format!("not done within {} s", WITHIN.as_secs()))),
    }
}
