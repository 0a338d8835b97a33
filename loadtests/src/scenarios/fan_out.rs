//! Measures how soon a message reaches everybody who waits in `/sync`. One operation is one delivery.

use std::time::Duration;

use futures_util::future::{join, join_all};

use super::{Context, ScenarioError};
use crate::client::{CallError, Session, encode, next_batch};
use crate::measure::{Stopwatch, now};
use crate::report::Measurement;

/// How long all requests are left to arrive and wait before the message is sent.
const SETTLE: Duration = Duration::from_millis(100);

/// Rounds that are made unless the time is over first.
const ROUNDS: u64 = 100;

pub(crate) async fn run(context: &Context) -> Result<Vec<Measurement>, ScenarioError> {
    let server = &context.server;
    let users = context.register_many(context.sizes.listeners + 1).await?;
    let room_id = context.room_of(&users).await?;
    let [sender, listeners @ ..] = users.as_slice() else {
        return Ok(Vec::new());
    };
    let mut positions = Vec::new();
    for listener in listeners {
        positions.push(server.position(listener).await?);
    }
    drain(context, listeners, &mut positions).await?;

    let watch = Stopwatch::start(&context.probes);
    let mut round = 0;
    while round < ROUNDS && watch.elapsed() < context.limit {
        round += 1;
        let sent_at = now() + SETTLE;
        let deliveries = listeners.iter().zip(&mut positions).map(|(listener, position)| {
            let (watch, room_id) = (&watch, room_id.as_str());
            async move {
                let answer = server.sync(listener, &format!("timeout=30000&since={}", encode(position))).await;
                let arrived = now();
                let outcome = answer.and_then(|answer| {
                    *position = next_batch(&answer)?;
                    contains(&answer, room_id).then_some(()).ok_or(CallError::Answer("the message"))
                });
                watch.record_at(sent_at, arrived, outcome);
            }
        });
        let sending = async {
            tokio::time::sleep(sent_at.saturating_duration_since(now())).await;
            server.send(sender, &room_id).await
        };
        let (sent, _) = join(sending, join_all(deliveries)).await;
        sent?;
    }
    Ok(vec![watch.finish("fan-out")])
}

/// Moves every listener past what the joins have left to read.
async fn drain(context: &Context, listeners: &[Session], positions: &mut [String]) -> Result<(), CallError> {
    for (listener, position) in listeners.iter().zip(positions) {
        let answer = context.server.sync(listener, &format!("timeout=0&since={}", encode(position))).await?;
        *position = next_batch(&answer)?;
    }
    Ok(())
}

fn contains(answer: &[u8], room_id: &str) -> bool {
    answer.windows(room_id.len()).any(|window| window == room_id.as_bytes())
}
