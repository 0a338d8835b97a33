//! What is told beside events: what they replaced, who redacted them, and what relates to them (bundled aggregations).
//!
//! Specification: client-server API, "Aggregations of child events", "Event replacements", "Threading", "Reference
//! relations".

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use ruma::UserId;
use serde_json::value::RawValue;

use super::{
    ReadError,
    write::{Extras, Object, push_list, push_string},
};
use crate::{
    rules::pdu::ClientFormat,
    storage::{
        DbError, Row, Snapshot, Stmt,
        event_cache::CachedEvent,
        relations::{self, Child, Tally},
        timeline,
    },
};

/// Reads the redactions of `events`, and what the state events with numbers `states` replaced.
pub(super) async fn read_extras(
    snapshot: &mut Snapshot,
    events: &[&CachedEvent],
    states: &[i64],
    extras: &mut Extras,
) -> Result<(), ReadError> {
    let redactions: Vec<&str> =
        events.iter().filter_map(|event| event.redacted_by.as_deref()).map(|event_id| event_id.as_str()).collect();
    let mut stmts = Vec::new();
    if !redactions.is_empty() {
        stmts.push(timeline::by_ids(&redactions));
    }
    if !states.is_empty() {
        stmts.push(timeline::replaced(states));
    }
    if stmts.is_empty() {
        return Ok(());
    }
    let mut answers = snapshot.query_all(stmts).await?.into_iter();
    if !redactions.is_empty() {
        for placed in timeline::read_events(&next(&mut answers)?)? {
            extras.redactions.insert(placed.event.pdu.event_id().to_string(), placed.event);
        }
    }
    if states.is_empty() {
        return Ok(());
    }
    let pairs = timeline::read_replaced(&next(&mut answers)?)?;
    let before: Vec<i64> = pairs.iter().map(|(_, before)| *before).collect();
    if before.is_empty() {
        return Ok(());
    }
    let Stmt { sql, params, .. } = timeline::by_nids(&before);
    let read = timeline::read_events(&snapshot.query(sql, params).await?)?;
    let read: HashMap<i64, Arc<CachedEvent>> =
        read.into_iter().map(|placed| (placed.event.event_nid, placed.event)).collect();
    let found = pairs.into_iter().filter_map(|(event_nid, before)| Some((event_nid, read.get(&before)?.clone())));
    extras.replaced.extend(found);
    Ok(())
}

/// Reads what relates to `parents`. State events have no bundled aggregations.
pub(super) async fn read_bundles(
    snapshot: &mut Snapshot,
    parents: &[&CachedEvent],
    reader: &UserId,
    extras: &mut Extras,
) -> Result<(), ReadError> {
    let by_id: HashMap<&str, &CachedEvent> = parents
        .iter()
        .filter(|event| !event.pdu.is_state() && event.redacted_by.is_none())
        .map(|event| (event.pdu.event_id().as_str(), *event))
        .collect();
    if by_id.is_empty() {
        return Ok(());
    }
    let ids: Vec<&str> = by_id.keys().copied().collect();
    let Stmt { sql, params, .. } = relations::tallies(&ids);
    let tallies = relations::read_tallies(&snapshot.query(sql, params).await?)?;
    if tallies.is_empty() {
        return Ok(());
    }
    let related: HashSet<&str> = tallies.iter().map(|tally| tally.relates_to.as_str()).collect();
    let related: Vec<&str> = related.into_iter().collect();
    let stmts = vec![relations::newest_children(&related), relations::threads_with(&related, reader.as_str())];
    let mut answers = snapshot.query_all(stmts).await?.into_iter();
    let children = relations::read_children(&next(&mut answers)?)?;
    let own_threads =
        next(&mut answers)?.iter().map(|row| row.get::<String>(0)).collect::<Result<HashSet<_>, DbError>>()?;
    let told: Vec<i64> =
        children.iter().filter(|child| child.rel_type != "m.reference").map(|child| child.event_nid).collect();
    let Stmt { sql, params, .. } = timeline::by_nids(&told);
    let read = timeline::read_events(&snapshot.query(sql, params).await?)?;
    let events: HashMap<i64, Arc<CachedEvent>> =
        read.into_iter().map(|placed| (placed.event.event_nid, placed.event)).collect();
    for parent_id in related {
        let Some(parent) = by_id.get(parent_id) else { continue };
        let bundle =
            Bundle { parent, tallies: &tallies, children: &children, events: &events, own_threads: &own_threads };
        if let Some(text) = bundle.text(extras) {
            extras.relations.insert(parent.event_nid, text);
        }
    }
    Ok(())
}

/// What relates to one event.
struct Bundle<'a> {
    parent: &'a CachedEvent,
    tallies: &'a [Tally],
    children: &'a [Child],
    events: &'a HashMap<i64, Arc<CachedEvent>>,
    own_threads: &'a HashSet<String>,
}

impl Bundle<'_> {
    fn text(&self, extras: &Extras) -> Option<Box<RawValue>> {
        let mut out = String::new();
        let mut object = Object::open(&mut out);
        if let Some(edit) = self.edit() {
            extras.push_state_event(object.key("m.replace"), edit, ClientFormat::Full);
        }
        if let Some(count) = self.count("m.thread")
            && let Some(latest) = self.of_kind("m.thread").find_map(|child| self.events.get(&child.event_nid))
        {
            let mut thread = Object::open(object.key("m.thread"));
            thread.plain("count", count);
            thread.plain("current_user_participated", self.participated());
            extras.push_state_event(thread.key("latest_event"), latest, ClientFormat::Full);
            thread.close();
        }
        if self.count("m.reference").is_some() {
            let mut reference = Object::open(object.key("m.reference"));
            push_list(reference.key("chunk"), self.of_kind("m.reference"), |out, child| {
                let mut entry = Object::open(out);
                push_string(entry.key("event_id"), &child.event_id);
                entry.close();
            });
            reference.close();
        }
        object.close();
        if out == "{}" { None } else { RawValue::from_string(out).ok() }
    }

    /// The newest valid replacement: by the same user, of the same type.
    fn edit(&self) -> Option<&CachedEvent> {
        let is_valid = |edit: &&Arc<CachedEvent>| {
            edit.pdu.sender() == self.parent.pdu.sender()
                && edit.pdu.event_type() == self.parent.pdu.event_type()
                && edit.room_nid == self.parent.room_nid
                && !edit.pdu.is_state()
        };
        self.of_kind("m.replace")
            .filter_map(|child| self.events.get(&child.event_nid))
            .find(is_valid)
            .map(|edit| &**edit)
    }

    fn participated(&self) -> bool {
        self.own_threads.contains(self.parent.pdu.event_id().as_str())
    }

    fn count(&self, rel_type: &str) -> Option<i64> {
        let parent_id = self.parent.pdu.event_id().as_str();
        let is_it = |tally: &&Tally| tally.relates_to == parent_id && tally.rel_type == rel_type;
        self.tallies.iter().find(is_it).map(|tally| tally.count)
    }

    fn of_kind<'a>(&'a self, rel_type: &'a str) -> impl Iterator<Item = &'a Child> {
        let parent_id = self.parent.pdu.event_id().as_str();
        self.children.iter().filter(move |child| child.relates_to == parent_id && child.rel_type == rel_type)
    }
}

fn next(answers: &mut impl Iterator<Item = Vec<Row>>) -> Result<Vec<Row>, DbError> {
    answers.next().ok_or(DbError::NoRow)
}
