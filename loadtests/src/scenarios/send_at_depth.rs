//! Measures whether a send costs the same after many stored messages as after few.

use std::time::Duration;

use super::{Context, ScenarioError, pick};
use crate::measure::{Load, closed_loop};
use crate::report::Measurement;

const SENDERS: usize = 16;

/// Messages before the first measurement.
const SHALLOW: u64 = 1_000;

/// Messages of each measurement.
const MEASURED: u64 = 5_000;

pub(crate) async fn run(context: &Context) -> Result<Vec<Measurement>, ScenarioError> {
    let users = context.register_many(SENDERS).await?;
    let room_id = context.room_of(&users).await?;
    let send = |number| context.server.send(pick(&users, number), &room_id);
    let store = |operations| Load { at_once: SENDERS, operations, limit: Duration::MAX };
    let measured = Load { at_once: SENDERS, operations: MEASURED, limit: context.limit };
    closed_loop(&[], "", store(SHALLOW), send).await;
    let shallow = closed_loop(&context.probes, "send-at-depth-shallow", measured, send).await;
    let rest = context.sizes.depth.saturating_sub(SHALLOW + shallow.operations);
    closed_loop(&[], "", store(rest), send).await;
    let deep = closed_loop(&context.probes, "send-at-depth-deep", measured, send).await;
    Ok(vec![shallow, deep])
}
