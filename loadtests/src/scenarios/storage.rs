//! Measures the bytes by which plain messages in one room grow the database.

use std::process::Command;
use std::time::Duration;

use super::{Context, ScenarioError, pick};
use crate::measure::{Load, closed_loop};
use crate::report::Measurement;

const SENDERS: usize = 16;

pub(crate) async fn run(context: &Context) -> Result<Vec<Measurement>, ScenarioError> {
    let command = context.size_command.as_deref().ok_or(ScenarioError::NoSizeCommand)?;
    let users = context.register_many(SENDERS).await?;
    let room_id = context.room_of(&users).await?;
    let before = size(command)?;
    // All messages are sent, however long that takes.
    let load = Load { at_once: SENDERS, operations: context.sizes.stored, limit: Duration::MAX };
    let send = |number| context.server.send(pick(&users, number), &room_id);
    let mut measurement = closed_loop(&context.probes, "storage", load, send).await;
    let grown = size(command)? - before;
    measurement.bytes_per_operation = Some(grown / measurement.operations.max(1) as f64);
    Ok(vec![measurement])
}

fn size(command: &str) -> Result<f64, ScenarioError> {
    let failed = |what: String| ScenarioError::SizeCommand(what);
    let output = Command::new("/bin/sh").args(["-c", command]).output().map_err(|error| failed(error.to_string()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().map_err(|_| failed(format!("{text}{}", String::from_utf8_lossy(&output.stderr))))
}
