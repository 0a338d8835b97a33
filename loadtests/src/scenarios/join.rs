//! Measures joins of a public room of this server that has many members.

use super::{Context, ScenarioError, pick};
use crate::measure::{Load, closed_loop};
use crate::report::Measurement;

const JOINS: usize = 100;

pub(crate) async fn run(context: &Context) -> Result<Vec<Measurement>, ScenarioError> {
    let users = context.register_many(context.sizes.members + JOINS).await?;
    let (members, joining) = users.split_at(context.sizes.members);
    let room_id = context.room_of(members).await?;
    let load = Load { at_once: 1, operations: JOINS as u64, limit: context.limit };
    let join = |number| context.server.join(pick(joining, number), &room_id);
    let mut measurements = vec![closed_loop(&context.probes, "join-large-room", load, join).await];
    let send = |number| context.server.send(pick(members, number), &room_id);
    let load = Load { at_once: 4, operations: JOINS as u64, limit: context.limit };
    measurements.push(closed_loop(&context.probes, "send-large-room", load, send).await);
    Ok(measurements)
}
