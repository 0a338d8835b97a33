//! Writes the answer to a sync from what was gathered.

use std::{
    collections::{HashMap, HashSet},
    fmt::Write as _,
};

use ruma::OwnedUserId;

use super::{
    SyncRequest, Syncer,
    gather::{Gathered, Kind, Passing, Room},
    unread::{Count, Unread},
    write::{Object, push_list, push_plain_event, push_string},
};
use crate::{
    rules::pdu::ClientFormat,
    storage::{device_lists::DeviceListChanges, presence::PresenceRow, receipts::ReceiptRow, unread::AccountData},
};

impl Syncer {
    /// The answer, and whether there is anything in it that a client would want to be woken for.
    pub(super) fn answer(&self, request: &SyncRequest<'_>, mut gathered: Gathered) -> (String, bool) {
        gathered.extras.shape = request.filter.shape.clone();
        let mut out = String::with_capacity(4096);
        let mut object = Object::open(&mut out);
        object.string("next_batch", &gathered.token.to_string());
        object.out().push_str(&gathered.keys);
        let account_data = push_account_data(&mut object, request, &gathered);
        let told: Vec<(&str, &PresenceRow)> = gathered
            .presence
            .iter()
            .filter_map(|row| Some((gathered.names.get(&row.user_nid)?.as_str(), row)))
            .filter(|(user_id, _)| request.filter.presence.allows_sender(user_id))
            .collect();
        let presence = !told.is_empty();
        if presence {
            object.events("presence", told, |out, (user_id, row)| {
                push_presence(out, user_id, row, gathered.extras.now_ms);
            });
        }
        let to_device = !gathered.to_device.is_empty();
        if to_device {
            object.events("to_device", &gathered.to_device, |out, event| out.push_str(event));
        }
        let DeviceListChanges { changed, left } = &gathered.device_lists;
        let device_lists = !changed.is_empty() || !left.is_empty();
        if device_lists {
            let mut lists = Object::open(object.key("device_lists"));
            for (key, users) in [("changed", changed), ("left", left)] {
                push_users(lists.key(key), users, &gathered.names);
            }
            lists.close();
        }
        let rooms = push_rooms(&mut object, request, &gathered);
        object.close();
        (out, account_data || presence || to_device || device_lists || rooms)
    }
}

fn push_account_data(object: &mut Object<'_>, request: &SyncRequest<'_>, gathered: &Gathered) -> bool {
    let filter = &request.filter.account_data;
    let is_told = |data: &&AccountData| {
        // Push rules are told as they are in effect; what was deleted is of no interest to a new client.
        data.data_type != "m.push_rules"
            && filter.allows_type(&data.data_type)
            && !(request.since.is_none() && data.content == "{}")
    };
    let told: Vec<&AccountData> = gathered.account_data.iter().filter(is_told).collect();
    let tells_rules = gathered.tells_push_rules && filter.allows_type("m.push_rules");
    if told.is_empty() && !tells_rules {
        return false;
    }
    let mut section = Object::open(object.key("account_data"));
    let out = section.key("events");
    out.push('[');
    if tells_rules {
        let rules = serde_json::to_string(&gathered.personal.rules).unwrap_or_else(|_| "{}".to_owned());
        push_plain_event(out, "m.push_rules", &format!("{{\"global\":{rules}}}"));
    }
    for (index, data) in told.iter().enumerate() {
        if index > 0 || tells_rules {
            out.push(',');
        }
        push_plain_event(out, &data.data_type, &data.content);
    }
    out.push(']');
    section.close();
    true
}

fn push_presence(out: &mut String, user_id: &str, row: &PresenceRow, now_ms: u64) {
    let mut event = Object::open(out);
    let mut content = Object::open(event.key("content"));
    content.plain("currently_active", row.presence == "online");
    content.plain("last_active_ago", now_ms.saturating_sub(row.last_active_ts));
    content.string("presence", &row.presence);
    if let Some(message) = &row.status_msg {
        content.string("status_msg", message);
    }
    content.close();
    event.string("sender", user_id);
    event.string("type", "m.presence");
    event.close();
}

fn push_rooms(object: &mut Object<'_>, request: &SyncRequest<'_>, gathered: &Gathered) -> bool {
    let is_told = |room: &&Room| !room.is_empty();
    let joined: Vec<&Room> = gathered.joined.iter().filter(is_told).collect();
    let sections = [("invite", "invite_state", &gathered.invited), ("knock", "knock_state", &gathered.knocked)];
    if joined.is_empty() && gathered.left.is_empty() && sections.iter().all(|(_, _, rooms)| rooms.is_empty()) {
        return false;
    }
    let mut rooms = Object::open(object.key("rooms"));
    for (key, list) in [("join", &joined), ("leave", &gathered.left.iter().collect())] {
        if list.is_empty() {
            continue;
        }
        let mut section = Object::open(rooms.key(key));
        for room in list.iter() {
            push_room(section.key(&room.row.room_id), request, gathered, room);
        }
        section.close();
    }
    for (key, state_key, list) in sections {
        if list.is_empty() {
            continue;
        }
        let mut section = Object::open(rooms.key(key));
        for (room_id, events) in list {
            let mut room = Object::open(section.key(room_id));
            room.events(state_key, events, |out, event| out.push_str(event));
            room.close();
        }
        section.close();
    }
    rooms.close();
    true
}

fn push_room(out: &mut String, request: &SyncRequest<'_>, gathered: &Gathered, room: &Room) {
    let extras = &gathered.extras;
    let mut object = Object::open(out);
    let mut timeline = Object::open(object.key("timeline"));
    push_list(timeline.key("events"), &room.timeline.events, |out, event| {
        extras.push_event(out, event, ClientFormat::Sync);
    });
    timeline.plain("limited", room.timeline.limited);
    if let Some(position) = room.timeline.prev_batch {
        timeline.string("prev_batch", &format!("t{position}"));
    }
    timeline.close();
    let state_key = if request.use_state_after { "state_after" } else { "state" };
    object.events(state_key, &room.state, |out, event| extras.push_state_event(out, event, ClientFormat::Sync));
    object.events("account_data", &room.account_data, |out, data| {
        push_plain_event(out, &data.data_type, &data.content);
    });
    if room.kind == Kind::Joined {
        push_passing(&mut object, &room.passing, &gathered.names);
        let mut summary = Object::open(object.key("summary"));
        if let Some(told) = &room.summary {
            if let Some(heroes) = &told.heroes {
                push_list(summary.key("m.heroes"), heroes, |out, user_id| push_string(out, user_id));
            }
            summary.plain("m.joined_member_count", told.counts.joined);
            summary.plain("m.invited_member_count", told.counts.invited);
        }
        summary.close();
        if let Some(unread) = &room.unread {
            push_counts(&mut object, unread, request.filter.separates_threads);
        }
    }
    object.close();
}

fn push_passing(object: &mut Object<'_>, passing: &Passing, names: &Names) {
    let mut ephemeral = Object::open(object.key("ephemeral"));
    let out = ephemeral.key("events");
    out.push('[');
    let mut is_first = true;
    if let Some(users) = &passing.typing {
        let mut content = String::new();
        let mut typing = Object::open(&mut content);
        push_users(typing.key("user_ids"), users, names);
        typing.close();
        push_plain_event(out, "m.typing", &content);
        is_first = false;
    }
    for layer in layers(passing, names) {
        if !is_first {
            out.push(',');
        }
        is_first = false;
        push_plain_event(out, "m.receipt", &receipts_content(&layer));
    }
    out.push(']');
    ephemeral.close();
}

/// The names of users by number.
type Names = HashMap<i64, OwnedUserId>;

/// Where a receipt stands in the content: event, kind and user.
type Place<'a> = (&'a str, &'a str, &'a str);

type Receipt<'a> = (&'a str, &'a ReceiptRow);

/// The content of a receipt event has one place for each event, kind and user; a user's receipts for threads may need
/// more. Receipts come sorted by event and kind.
fn layers<'a>(passing: &'a Passing, names: &'a Names) -> Vec<Vec<Receipt<'a>>> {
    let mut layers: Vec<(HashSet<Place<'_>>, Vec<Receipt<'_>>)> = Vec::new();
    for receipt in &passing.receipts {
        let Some(user_id) = names.get(&receipt.user_nid) else { continue };
        let place = (receipt.event_id.as_str(), receipt.receipt_type.as_str(), user_id.as_str());
        match layers.iter_mut().find(|(taken, _)| !taken.contains(&place)) {
            Some((taken, layer)) => {
                taken.insert(place);
                layer.push((user_id.as_str(), receipt));
            }
            None => layers.push((HashSet::from([place]), vec![(user_id.as_str(), receipt)])),
        }
    }
    layers.into_iter().map(|(_, layer)| layer).collect()
}

fn receipts_content(layer: &[Receipt<'_>]) -> String {
    let mut out = String::from("{");
    for (index, of_event) in layer.chunk_by(|(_, a), (_, b)| a.event_id == b.event_id).enumerate() {
        if index > 0 {
            out.push(',');
        }
        push_string(&mut out, of_event.first().map_or("", |(_, receipt)| &receipt.event_id));
        out.push_str(":{");
        for (index, of_kind) in of_event.chunk_by(|(_, a), (_, b)| a.receipt_type == b.receipt_type).enumerate() {
            if index > 0 {
                out.push(',');
            }
            push_string(&mut out, of_kind.first().map_or("", |(_, receipt)| &receipt.receipt_type));
            out.push(':');
            let mut users = Object::open(&mut out);
            for (user_id, receipt) in of_kind {
                let mut entry = Object::open(users.key(user_id));
                if !receipt.thread_id.is_empty() {
                    entry.string("thread_id", &receipt.thread_id);
                }
                entry.plain("ts", receipt.receipt_ts);
                entry.close();
            }
            users.close();
        }
        out.push('}');
    }
    out.push('}');
    out
}

/// Writes a room's unread counts.
pub(super) fn push_counts(object: &mut Object<'_>, unread: &Unread, separates_threads: bool) {
    let main = if separates_threads { unread.main() } else { unread.total() };
    push_count(object.key("unread_notifications"), main);
    if separates_threads {
        let mut threads = Object::open(object.key("unread_thread_notifications"));
        for (thread, count) in unread.threads().filter(|(_, count)| count.notifications > 0) {
            push_count(threads.key(thread), count);
        }
        threads.close();
    }
}

fn push_count(out: &mut String, count: Count) {
    // Formatting into a String cannot fail.
    let _ = write!(out, "{{\"highlight_count\":{},\"notification_count\":{}}}", count.highlights, count.notifications);
}

fn push_users(out: &mut String, users: &[i64], names: &Names) {
    push_list(out, users.iter().filter_map(|user| names.get(user)), |out, user_id| push_string(out, user_id.as_str()));
}
