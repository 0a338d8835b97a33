//! Measures the making of private rooms.

use serde_json::json;

use super::{Context, ScenarioError, pick};
use crate::measure::closed_loop;
use crate::report::Measurement;

pub(crate) async fn run(context: &Context) -> Result<Vec<Measurement>, ScenarioError> {
    let mut measurements = Vec::new();
    for at_once in [1, 8] {
        let users = context.register_many(at_once).await?;
        let content = json!({"preset": "private_chat", "name": "A room of a load test"});
        let create = |number| context.server.create_room(pick(&users, number), &content);
        let name = format!("create-room-{at_once}");
        measurements.push(closed_loop(&context.probes, name, context.load(at_once), create).await);
    }
    Ok(measurements)
}
