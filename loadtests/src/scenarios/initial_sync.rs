//! Measures the first `/sync` of a user in many rooms, with a short and a long timeline.

use serde_json::Value;

use super::{Context, ScenarioError};
use crate::client::{CallError, encode};
use crate::measure::{Load, closed_loop};
use crate::report::Measurement;

const REPETITIONS: u64 = 20;

pub(crate) async fn run(context: &Context) -> Result<Vec<Measurement>, ScenarioError> {
    let users = context.register_many(2).await?;
    for _ in 0..context.sizes.rooms {
        let room_id = context.room_of(&users).await?;
        context.send_many(&users[0], &room_id, context.sizes.messages_per_room).await?;
    }
    let user = &users[1];
    let mut measurements = Vec::new();
    for limit in [10, 50] {
        let filter = encode(&format!(r#"{{"room":{{"timeline":{{"limit":{limit}}}}}}}"#));
        // Synapse keeps answers and gives them to equal requests. The timeout, which an initial `/sync` never waits
        // for, makes every request differ, so that every answer is computed.
        let sync = |number| {
            let query = format!("timeout={}&filter={filter}", number + 1);
            async move { context.server.sync(user, &query).await }
        };
        check(&sync(REPETITIONS).await?, context.sizes.rooms, limit)?;
        let load = Load { at_once: 1, operations: REPETITIONS, limit: context.limit };
        let name = format!("initial-sync-limit-{limit}");
        measurements.push(closed_loop(&context.probes, name, load, sync).await);
    }
    Ok(measurements)
}

/// A server that leaves out rooms or events would look fast.
fn check(answer: &[u8], rooms: usize, limit: usize) -> Result<(), CallError> {
    let answer: Value = serde_json::from_slice(answer).map_err(CallError::Json)?;
    let joined = answer.pointer("/rooms/join").and_then(Value::as_object);
    let joined = joined.filter(|joined| joined.len() == rooms).ok_or(CallError::Answer("every room"))?;
    let full = |room: &Value| room.pointer("/timeline/events")?.as_array().map(|events| events.len() == limit);
    if joined.values().all(|room| full(room) == Some(true)) { Ok(()) } else { Err(CallError::Answer("full timelines")) }
}
