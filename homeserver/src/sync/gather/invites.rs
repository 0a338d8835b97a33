//! Invites and knocks: a few stripped state events of rooms that the user is not in.

use std::collections::{HashMap, HashSet};

use serde_json::value::RawValue;

use super::{Context, Gathered, Reads, by_room};
use crate::{
    rules::{
        membership::target_of,
        stripped_state::{STRIPPED_STATE_TYPES, strip},
    },
    storage::{memberships::UserRoom, timeline},
    sync::ReadError,
};

impl Context<'_> {
    pub(super) async fn read_invites(&mut self, rows: &[UserRoom], gathered: &mut Gathered) -> Result<(), ReadError> {
        if rows.is_empty() {
            return Ok(());
        }
        // What came along from afar tells of rooms that we are not in; of the others we know ourselves.
        let ours: Vec<i64> = rows.iter().filter(|row| row.stripped_state.is_none()).map(|row| row.room_nid).collect();
        let members: Vec<i64> = rows.iter().map(|row| row.member_event_nid).collect();
        let mut reads = Reads::default();
        let states = reads.add_if(!ours.is_empty(), || timeline::current_of_types(&ours, &STRIPPED_STATE_TYPES));
        let members = reads.add(timeline::by_nids(&members));
        reads.run(&mut self.snapshot).await?;
        let mut states = by_room(timeline::read_events(reads.rows(states))?, |placed| placed.event.room_nid);
        let members: HashMap<i64, _> = timeline::read_events(reads.rows(members))?
            .into_iter()
            .map(|placed| (placed.event.event_nid, placed.event))
            .collect();
        let senders: HashSet<&str> = members.values().map(|event| event.pdu.sender().as_str()).collect();
        let senders: Vec<&str> = senders.into_iter().collect();
        let inviters = reads_inviters(self, &ours, &senders).await?;
        for row in rows {
            let own = members.get(&row.member_event_nid);
            if row.membership == "invite"
                && own.is_some_and(|event| gathered.personal.ignored.contains(event.pdu.sender().as_str()))
            {
                continue;
            }
            let mut events: Vec<String> = match &row.stripped_state {
                Some(list) => parse_list(list),
                None => {
                    let states = states.remove(&row.room_nid).unwrap_or_default();
                    let inviter = inviters.iter().filter(|placed| {
                        placed.event.room_nid == row.room_nid
                            && own.is_some_and(|own| {
                                own.event_nid != placed.event.event_nid
                                    && target_of(&placed.event.pdu) == Some(own.pdu.sender())
                            })
                    });
                    states.iter().chain(inviter).filter_map(|placed| strip(&placed.event.pdu)).map(text).collect()
                }
            };
            if let Some(own) = own.and_then(|event| strip(&event.pdu)).map(text)
                && !events.contains(&own)
            {
                events.push(own);
            }
            let list = if row.membership == "invite" { &mut gathered.invited } else { &mut gathered.knocked };
            list.push((row.room_id.clone(), events));
        }
        Ok(())
    }
}

/// The memberships of those who invited, in rooms that we are in.
async fn reads_inviters(
    context: &mut Context<'_>,
    room_nids: &[i64],
    senders: &[&str],
) -> Result<Vec<timeline::Placed>, ReadError> {
    if room_nids.is_empty() || senders.is_empty() {
        return Ok(Vec::new());
    }
    let mut reads = Reads::default();
    let place = reads.add(timeline::current_members(room_nids, senders));
    reads.run(&mut context.snapshot).await?;
    Ok(timeline::read_events(reads.rows(place))?)
}

fn text(event: Box<RawValue>) -> String {
    String::from(Box::<str>::from(event))
}

fn parse_list(list: &str) -> Vec<String> {
    let events: Vec<&RawValue> = serde_json::from_str(list).unwrap_or_default();
    events.into_iter().map(|event| event.get().to_owned()).collect()
}
