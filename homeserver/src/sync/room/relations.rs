//! Reads what relates to an event, and a room's threads. Specification: client-server API,
//! `GET /rooms/{roomId}/relations/{eventId}` with its two longer forms, and `GET /rooms/{roomId}/threads`.

use std::{collections::HashSet, sync::Arc};

use ruma::{EventId, RoomId};

use super::{Access, Direction, Reader, read};
use crate::{
    rules::pdu::ClientFormat,
    storage::{
        Snapshot, Stmt,
        event_cache::CachedEvent,
        relations::{self, Relation},
        timeline,
    },
    sync::{
        HistoryToken, ReadError, Syncer,
        write::{Object, push_list},
    },
};

/// The most events of one page.
const MAX_LIMIT: usize = 100;
/// How many steps a recursion goes; the specification asks for at least three.
const MAX_DEPTH: u8 = 3;

/// Whether relations of relations are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recursion {
    Off,
    On,
}

/// Which relations are asked for.
#[derive(Clone, Debug)]
pub struct RelationsQuery {
    pub rel_type: Option<String>,
    pub event_type: Option<String>,
    pub direction: Direction,
    pub from: Option<HistoryToken>,
    pub to: Option<HistoryToken>,
    pub limit: usize,
    pub recursion: Recursion,
}

impl Syncer {
    /// The events that relate to an event as JSON.
    ///
    /// # Errors
    /// [`ReadError::UnknownEvent`], also when the user may not see the event, and those of the database.
    pub async fn relations(
        &self,
        reader: Reader<'_>,
        room_id: &RoomId,
        event_id: &EventId,
        query: &RelationsQuery,
    ) -> Result<String, ReadError> {
        let mut snapshot = self.db().snapshot().await?;
        let access = self.access(&mut snapshot, reader, room_id).await?;
        self.visible_event(&mut snapshot, reader, &access, event_id).await?;
        let from = match &query.from {
            Some(token) => Some(self.position(&mut snapshot, &access, token).await?),
            None => None,
        };
        let to = match &query.to {
            Some(token) => Some(self.position(&mut snapshot, &access, token).await?),
            None => None,
        };
        let (found, depth) = related(&mut snapshot, event_id, query.recursion).await?;
        let is_asked_for = |relation: &&Relation| {
            let is_in = |from: Option<i64>, to: Option<i64>| match query.direction {
                Direction::Backward => {
                    from.is_none_or(|from| relation.position <= from) && to.is_none_or(|to| relation.position > to)
                }
                Direction::Forward => {
                    from.is_none_or(|from| relation.position > from) && to.is_none_or(|to| relation.position <= to)
                }
            };
            is_in(from, to)
                && query.rel_type.as_ref().is_none_or(|rel_type| *rel_type == relation.rel_type)
                && query.event_type.as_ref().is_none_or(|event_type| *event_type == relation.event_type)
        };
        let mut asked_for: Vec<&Relation> = found.iter().filter(is_asked_for).collect();
        asked_for.sort_unstable_by_key(|relation| relation.position);
        if query.direction == Direction::Backward {
            asked_for.reverse();
        }
        let limit = query.limit.clamp(1, MAX_LIMIT);
        let page = asked_for.get(..limit).unwrap_or(&asked_for);
        let next = asked_for.get(limit).map(|next| match query.direction {
            Direction::Backward => next.position,
            Direction::Forward => next.position - 1,
        });
        let events = self.shown(&mut snapshot, reader, &access, page).await?;
        let shown: Vec<&CachedEvent> = events.iter().map(|event| &**event).collect();
        let extras = self.extras(&mut snapshot, reader, &access, &shown).await?;
        let mut out = String::new();
        let mut object = Object::open(&mut out);
        push_list(object.key("chunk"), &shown, |out, event| extras.push_event(out, event, ClientFormat::Full));
        if let Some(next) = next {
            object.string("next_batch", &HistoryToken::Behind(next).to_string());
        }
        if let Some(from) = &query.from {
            object.string("prev_batch", &from.to_string());
        }
        if query.recursion == Recursion::On {
            object.plain("recursion_depth", depth);
        }
        object.close();
        Ok(out)
    }

    /// A room's threads by their newest event, newest first, as JSON: the roots, each with its bundled aggregation.
    ///
    /// # Errors
    /// [`ReadError::NotInRoom`], and those of the database.
    pub async fn threads(
        &self,
        reader: Reader<'_>,
        room_id: &RoomId,
        from: Option<&HistoryToken>,
        limit: usize,
        only_participated: bool,
    ) -> Result<String, ReadError> {
        let mut snapshot = self.db().snapshot().await?;
        let access = self.access(&mut snapshot, reader, room_id).await?;
        let before = match from {
            Some(token) => self.position(&mut snapshot, &access, token).await?,
            None => access.newest.saturating_add(1),
        };
        let limit = limit.clamp(1, MAX_LIMIT);
        let count = i64::try_from(limit).unwrap_or(i64::MAX);
        let Stmt { sql, params, .. } = relations::threads(access.room_nid, before, count);
        let threads = relations::read_threads(&snapshot.query(sql, params).await?)?;
        let ids: Vec<&str> = threads.iter().map(|(root, _)| root.as_str()).collect();
        let roots = read(&mut snapshot, timeline::by_ids(&ids)).await?;
        let own = if only_participated { own_threads(&mut snapshot, reader, &ids).await? } else { HashSet::new() };
        let mut shown: Vec<Arc<CachedEvent>> = Vec::new();
        for (root, _) in &threads {
            let event = roots.iter().find(|placed| placed.event.pdu.event_id().as_str() == root);
            let Some(event) = event.map(|placed| &placed.event) else { continue };
            let is_own = !only_participated || own.contains(root) || event.pdu.sender() == reader.user_id;
            if event.room_nid == access.room_nid && is_own && access.allows(event, reader.user_id) {
                shown.push(event.clone());
            }
        }
        let events: Vec<&CachedEvent> = shown.iter().map(|event| &**event).collect();
        let extras = self.extras(&mut snapshot, reader, &access, &events).await?;
        let mut out = String::new();
        let mut object = Object::open(&mut out);
        push_list(object.key("chunk"), &events, |out, event| extras.push_event(out, event, ClientFormat::Full));
        if let Some((_, position)) = threads.last().filter(|_| threads.len() >= limit) {
            object.string("next_batch", &HistoryToken::Behind(*position).to_string());
        }
        object.close();
        Ok(out)
    }

    /// The events behind relations, in their order, as far as the user may see them.
    async fn shown(
        &self,
        snapshot: &mut Snapshot,
        reader: Reader<'_>,
        access: &Access,
        page: &[&Relation],
    ) -> Result<Vec<Arc<CachedEvent>>, ReadError> {
        let nids: Vec<i64> = page.iter().map(|relation| relation.event_nid).collect();
        let events = read(snapshot, timeline::by_nids(&nids)).await?;
        Ok(nids
            .iter()
            .filter_map(|nid| events.iter().find(|placed| placed.event.event_nid == *nid))
            .map(|placed| placed.event.clone())
            .filter(|event| event.room_nid == access.room_nid && access.allows(event, reader.user_id))
            .collect())
    }
}

/// What relates to an event, and with recursion to those, and how far that went.
async fn related(
    snapshot: &mut Snapshot,
    event_id: &EventId,
    recursion: Recursion,
) -> Result<(Vec<Relation>, u8), ReadError> {
    let mut seen: HashSet<String> = HashSet::from([event_id.to_string()]);
    let mut parents = vec![event_id.to_string()];
    let mut found = Vec::new();
    let mut depth = 0;
    while depth < MAX_DEPTH && !parents.is_empty() {
        let ids: Vec<&str> = parents.iter().map(String::as_str).collect();
        let Stmt { sql, params, .. } = relations::children(&ids);
        let children = relations::read_relations(&snapshot.query(sql, params).await?)?;
        depth += 1;
        // Two events can relate to each other in a circle.
        let new: Vec<Relation> = children.into_iter().filter(|child| seen.insert(child.event_id.clone())).collect();
        parents = new.iter().map(|child| child.event_id.clone()).collect();
        found.extend(new);
        if recursion == Recursion::Off {
            break;
        }
    }
    Ok((found, depth))
}

async fn own_threads(
    snapshot: &mut Snapshot,
    reader: Reader<'_>,
    roots: &[&str],
) -> Result<HashSet<String>, ReadError> {
    let Stmt { sql, params, .. } = relations::threads_with(roots, reader.user_id.as_str());
    let rows = snapshot.query(sql, params).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect::<Result<_, _>>()?)
}
