//! Measures `/sync` without waiting when nothing is new.

use super::{Context, ScenarioError, pick};
use crate::client::encode;
use crate::measure::closed_loop;
use crate::report::Measurement;

pub(crate) async fn run(context: &Context) -> Result<Vec<Measurement>, ScenarioError> {
    let mut measurements = Vec::new();
    for at_once in [1, 16] {
        let users = context.register_many(at_once).await?;
        context.room_of(&users).await?;
        let mut queries = Vec::new();
        for user in &users {
            let since = context.server.position(user).await?;
            queries.push(format!("timeout=0&since={}", encode(&since)));
        }
        let sync = |number| context.server.sync(pick(&users, number), pick::<String>(&queries, number));
        let name = format!("idle-sync-{at_once}");
        measurements.push(closed_loop(&context.probes, name, context.load(at_once), sync).await);
    }
    Ok(measurements)
}
