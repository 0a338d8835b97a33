//! Measures plain messages: into one room that all senders share, and into fifty rooms of five members.

use super::{Context, ScenarioError, pick};
use crate::client::Session;
use crate::measure::closed_loop;
use crate::report::Measurement;

const SENDERS: [usize; 3] = [1, 16, 64];
const ROOMS: usize = 50;
const MEMBERS: usize = 5;

pub(crate) async fn run(context: &Context) -> Result<Vec<Measurement>, ScenarioError> {
    let users = context.register_many(SENDERS[2].max(ROOMS)).await?;
    let mut measurements = one_room(context, &users).await?;
    measurements.extend(many_rooms(context, &users[..ROOMS]).await?);
    Ok(measurements)
}

async fn one_room(context: &Context, users: &[Session]) -> Result<Vec<Measurement>, ScenarioError> {
    let room_id = context.room_of(users).await?;
    let send = |number| context.server.send(pick(users, number), &room_id);
    let mut measurements = Vec::new();
    for senders in SENDERS {
        let name = format!("send-1-room-{senders}-{}", plural(senders));
        measurements.push(closed_loop(&context.probes, name, context.load(senders), send).await);
    }
    Ok(measurements)
}

async fn many_rooms(context: &Context, users: &[Session]) -> Result<Vec<Measurement>, ScenarioError> {
    let mut rooms = Vec::new();
    for first in 0..users.len() {
        let members: Vec<Session> = users.iter().cycle().skip(first).take(MEMBERS).cloned().collect();
        let room_id = context.room_of(&members).await?;
        rooms.push((room_id, members));
    }
    let send = |number: u64| {
        let (room_id, members) = pick(&rooms, number);
        context.server.send(pick(members, number / ROOMS as u64), room_id)
    };
    let mut measurements = Vec::new();
    for senders in SENDERS {
        let name = format!("send-{ROOMS}-rooms-{senders}-{}", plural(senders));
        measurements.push(closed_loop(&context.probes, name, context.load(senders), send).await);
    }
    Ok(measurements)
}

fn plural(senders: usize) -> &'static str {
    if senders == 1 { "sender" } else { "senders" }
}
