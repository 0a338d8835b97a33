//! Measures `/messages` in pages of a hundred, from the end of a room towards its beginning.

use std::cell::RefCell;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Context, ScenarioError, pick};
use crate::client::{CallError, encode};
use crate::measure::closed_loop;
use crate::report::Measurement;

const MESSAGES: usize = 1_000;

#[derive(Deserialize)]
struct Page {
    end: Option<String>,
    chunk: Vec<Box<RawValue>>,
}

pub(crate) async fn run(context: &Context) -> Result<Vec<Measurement>, ScenarioError> {
    let users = context.register_many(1).await?;
    let room_id = context.room_of(&users).await?;
    context.send_many(&users[0], &room_id, MESSAGES).await?;
    let path = format!("/_matrix/client/v3/rooms/{}/messages?dir=b&limit=100", encode(&room_id));
    let mut measurements = Vec::new();
    for at_once in [1, 8] {
        // Where each of the readers continues; none is at the end of the room.
        let places: Vec<RefCell<Option<String>>> = (0..at_once).map(|_| RefCell::default()).collect();
        let read = |number| {
            let place = pick(&places, number);
            let from = place.borrow().as_ref().map_or_else(String::new, |from| format!("&from={}", encode(from)));
            let (path, user) = (&path, &users[0]);
            async move {
                let page: Page = context.server.get(Some(user), &format!("{path}{from}")).await?;
                if page.chunk.is_empty() && page.end.is_some() {
                    return Err(CallError::Answer("events"));
                }
                // A short page is the last one; the reader begins again.
                *place.borrow_mut() = page.end.filter(|_| page.chunk.len() == 100);
                Ok(())
            }
        };
        let name = format!("messages-{at_once}");
        measurements.push(closed_loop(&context.probes, name, context.load(at_once), read).await);
    }
    Ok(measurements)
}
