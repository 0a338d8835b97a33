//! Reads what the lanes changed and decides which servers have to know.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use ruma::{OwnedServerName, ServerName, UserId};
use serde_json::{Value, json, value::RawValue};

use super::{LEASED_FOR, Mailboxes, SenderParts, millis};
use crate::{
    remote::FederationClient,
    rules::{
        membership::{Membership, target_of},
        pdu::Pdu,
    },
    storage::{
        DbError, Stmt, device_lists,
        events::{self, StoredEvent},
        leases::{self, Lease},
        outbox::{self, Item},
        receipts, servers,
    },
    stream::{Change, LogEntry, Positions, SinceLog},
};

/// Entries of the log that are read at once when memory does not reach back far enough.
const READ_AT_ONCE: usize = 500;
/// How often the cursor is written when there is nothing to queue.
const PERSIST: Duration = Duration::from_secs(5);
/// Rooms whose servers are remembered.
const ROOMS_REMEMBERED: usize = 20_000;

/// Why the following ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum FollowError {
    #[error("another shard holds the lease")]
    LeaseLost,
    #[error(transparent)]
    Db(#[from] DbError),
}

type Servers = Arc<BTreeSet<OwnedServerName>>;

/// The cursor, and what is remembered between looks.
pub(super) struct Follower {
    parts: Arc<SenderParts>,
    lease: Lease,
    cursor: Positions,
    persisted: Positions,
    persisted_at: Instant,
    /// The other servers in each room.
    servers: HashMap<i64, Servers>,
    /// The version of each local user's device list that was told last.
    told_devices: HashMap<i64, i64>,
}

/// What a look found.
struct Found {
    client: FederationClient,
    rows: Vec<Stmt>,
    woken: BTreeSet<OwnedServerName>,
    passing: Vec<(OwnedServerName, String, Box<RawValue>)>,
}

impl Found {
    fn new(client: FederationClient) -> Self {
        Self { client, rows: Vec::new(), woken: BTreeSet::new(), passing: Vec::new() }
    }

    /// Nothing is queued for a server that the operator denied.
    fn queue(&mut self, destination: &ServerName, item: &Item) {
        if !self.client.may_call(destination) {
            return;
        }
        self.rows.push(outbox::insert(destination, item));
        self.woken.insert(destination.to_owned());
    }
}

impl Follower {
    pub(super) async fn open(parts: Arc<SenderParts>, lease: Lease) -> Result<Self, DbError> {
        let cursor: Positions = outbox::list_cursors(&parts.db).await?.into_iter().collect();
        Ok(Self {
            parts,
            lease,
            persisted: cursor.clone(),
            cursor,
            persisted_at: Instant::now(),
            servers: HashMap::new(),
            told_devices: HashMap::new(),
        })
    }

    /// Follows up to now: queues what has to be sent, and wakes those to whom.
    pub(super) async fn follow(&mut self, mailboxes: &mut Mailboxes) -> Result<(), FollowError> {
        loop {
            let (entries, upto) = self.read().await?;
            if upto == self.cursor {
                return Ok(());
            }
            let found = self.look(&entries, &upto).await?;
            self.cursor = upto;
            if !found.rows.is_empty() || self.persisted_at.elapsed() >= PERSIST {
                self.write(found.rows).await?;
            }
            for (destination, key, edu) in found.passing {
                mailboxes.pass(&destination, key, edu);
            }
            for destination in found.woken {
                mailboxes.wake(&destination);
            }
        }
    }

    /// Writes the cursor and renews the lease.
    pub(super) async fn persist(&mut self) -> Result<(), FollowError> {
        // Where no other shard can take the lease, an idle server writes nothing.
        if self.cursor == self.persisted && !self.parts.db.is_shared() {
            return Ok(());
        }
        self.write(Vec::new()).await
    }

    async fn write(&mut self, mut rows: Vec<Stmt>) -> Result<(), FollowError> {
        let until = self.parts.clock.now_ms().saturating_add(millis(LEASED_FOR));
        let mut tx = self.parts.db.begin().await?;
        let kept = tx.run(vec![leases::keep(&self.lease, until)]).await?;
        if kept.first().is_none_or(|outcome| outcome.affected == 0) {
            return Err(FollowError::LeaseLost);
        }
        let moved = self.cursor.iter().filter(|(lane, seq)| !self.persisted.covers(*lane, *seq));
        rows.extend(moved.map(|(lane, seq)| outbox::set_cursor(lane, seq)));
        tx.run_and_commit(rows).await?;
        self.persisted = self.cursor.clone();
        self.persisted_at = Instant::now();
        Ok(())
    }

    /// What happened since the cursor, from memory or from the log.
    async fn read(&self) -> Result<(Vec<LogEntry>, Positions), DbError> {
        if let SinceLog::Known { upto, entries } = self.parts.stream.changes_since(&self.cursor) {
            return Ok((entries, upto));
        }
        let mut upto = self.cursor.clone();
        let mut entries = Vec::new();
        for (lane, end) in self.parts.stream.positions().iter() {
            if self.cursor.covers(lane, end) {
                continue;
            }
            let read = outbox::list_log(&self.parts.db, lane, self.cursor.seq(lane), READ_AT_ONCE).await?;
            // When fewer came than were asked for, everything up to the end is read; what is missing was pruned before
            // there was a sender.
            if read.len() < READ_AT_ONCE {
                upto.raise(lane, end);
            }
            for (seq, changes) in read {
                let changes: Vec<Change> = serde_json::from_str(&changes)
                    .map_err(|error| DbError::Corrupt(format!("lane_log.changes: {error}")))?;
                upto.raise(lane, seq);
                entries.push(LogEntry { lane, seq, changes: changes.into() });
            }
        }
        Ok((entries, upto))
    }

    async fn look(&mut self, entries: &[LogEntry], upto: &Positions) -> Result<Found, DbError> {
        let mut found = Found::new(self.parts.client.clone());
        let changes = || entries.iter().flat_map(|entry| entry.changes.iter());
        let changed: HashSet<i64> = changes()
            .filter_map(|change| match change {
                Change::Membership { room, .. } => Some(*room),
                _ => None,
            })
            .collect();
        self.queue_events(changes(), &changed, &mut found).await?;
        changed.iter().for_each(|room| {
            self.servers.remove(room);
        });
        let mut rooms = BTreeSet::new();
        let mut users = BTreeSet::new();
        let mut devices = BTreeSet::new();
        let mut presence = BTreeSet::new();
        for change in changes() {
            match change {
                Change::Room { room } => drop(rooms.insert(*room)),
                Change::User { user } => drop(users.insert(*user)),
                Change::Devices { user } => drop(devices.insert(*user)),
                Change::Presence { user } => drop(presence.insert(*user)),
                _ => {}
            }
        }
        for room in rooms {
            self.pass_room(room, upto, &mut found).await?;
        }
        for user in users {
            // To-device messages for a remote user were queued.
            let user_id = self.parts.names.name(user).await?;
            if user_id.server_name() != self.parts.server_name {
                found.woken.insert(user_id.server_name().to_owned());
            }
        }
        for user in devices {
            self.queue_devices(user, &mut found).await?;
        }
        for user in presence {
            self.pass_presence(user, &mut found).await?;
        }
        Ok(found)
    }

    async fn queue_events(
        &mut self,
        changes: impl Iterator<Item = &Change>,
        changed: &HashSet<i64>,
        found: &mut Found,
    ) -> Result<(), DbError> {
        let mut wanted = Vec::new();
        for change in changes {
            if let Change::Event { room, event, position } = change
                && (changed.contains(room) || !self.servers_of(*room).await?.is_empty())
            {
                wanted.push((*room, *position, *event));
            }
        }
        // Within a room in its order, whichever lanes wrote it.
        wanted.sort_unstable();
        let nids: Vec<i64> = wanted.iter().map(|(_, _, event)| *event).collect();
        let stored = events::get_by_nids(&self.parts.db, &nids).await?;
        for (room, _, event_nid) in wanted {
            let Some(event) = stored.get(&event_nid) else { continue };
            let destinations = self.destinations_of(room, event).await?;
            if !self.is_ours(event).await? {
                continue;
            }
            let sender = event.pdu.sender().server_name();
            for destination in destinations.iter().filter(|destination| *destination != sender) {
                found.queue(destination, &Item::Event(event_nid));
            }
        }
        Ok(())
    }

    /// Whether we have to deliver the event: it is of our user, or came in through us.
    async fn is_ours(&self, event: &StoredEvent) -> Result<bool, DbError> {
        let is_of_our_user = event.pdu.sender().server_name() == self.parts.server_name;
        if event.pdu.event_type() != "m.room.member" {
            return Ok(is_of_our_user);
        }
        let noted = outbox::is_delivered_by_us(&self.parts.db, event.pdu.event_id()).await?;
        Ok(noted.unwrap_or(is_of_our_user))
    }

    /// The servers in the room before or after the event. One that is removed has to hear of it too.
    async fn destinations_of(&mut self, room: i64, event: &StoredEvent) -> Result<Servers, DbError> {
        let before = self.servers_of(room).await?;
        if event.pdu.event_type() != "m.room.member" {
            return Ok(before);
        }
        self.servers.remove(&room);
        let after = self.servers_of(room).await?;
        let mut all = BTreeSet::clone(&before);
        all.extend(after.iter().cloned());
        all.extend(
            removed_server(&event.pdu).filter(|server| **server != self.parts.server_name).map(ToOwned::to_owned),
        );
        Ok(Arc::new(all))
    }

    async fn servers_of(&mut self, room: i64) -> Result<Servers, DbError> {
        if let Some(servers) = self.servers.get(&room) {
            return Ok(servers.clone());
        }
        let mut servers: BTreeSet<OwnedServerName> =
            servers::list_joined(&self.parts.db, room).await?.into_iter().collect();
        servers.remove(&self.parts.server_name);
        let servers = Arc::new(servers);
        if self.servers.len() >= ROOMS_REMEMBERED {
            self.servers.clear();
        }
        self.servers.insert(room, servers.clone());
        Ok(servers)
    }

    /// Receipts and typing of local users in a room.
    async fn pass_room(&mut self, room: i64, upto: &Positions, found: &mut Found) -> Result<(), DbError> {
        let servers = self.servers_of(room).await?;
        if servers.is_empty() {
            return Ok(());
        }
        let Some(room_id) = outbox::find_room_id(&self.parts.db, room).await? else { return Ok(()) };
        let (since, upto) = (self.cursor.by_lane_number(), upto.by_lane_number());
        for row in receipts::list_local_public(&self.parts.db, room, &since, &upto).await? {
            let user_id = self.parts.names.name(row.user_nid).await?;
            let mut data = json!({ "ts": row.receipt_ts });
            if !row.thread_id.is_empty() {
                data["thread_id"] = row.thread_id.as_str().into();
            }
            let receipt = json!({ "data": data, "event_ids": [row.event_id] });
            let content = json!({ room_id.as_str(): { "m.read": { user_id.as_str(): receipt } } });
            let key = format!("receipt {room} {} {}", row.user_nid, row.thread_id);
            pass(found, &servers, &key, "m.receipt", &content);
        }
        for (user, is_typing) in
            outbox::list_local_typing(&self.parts.db, room, &since, &upto, self.parts.clock.now_ms()).await?
        {
            let user_id = self.parts.names.name(user).await?;
            let content = json!({ "room_id": room_id, "user_id": user_id, "typing": is_typing });
            pass(found, &servers, &format!("typing {room} {user}"), "m.typing", &content);
        }
        Ok(())
    }

    /// Tells all servers that share a room with a local user which of its devices changed.
    async fn queue_devices(&mut self, user: i64, found: &mut Found) -> Result<(), DbError> {
        let user_id = self.parts.names.name(user).await?;
        if user_id.server_name() != self.parts.server_name {
            return Ok(());
        }
        let servers = self.servers_sharing_with(user).await?;
        let Some(list) = self.parts.e2ee.devices_of(&user_id).await?.filter(|_| !servers.is_empty()) else {
            return Ok(());
        };
        let told = self.told_devices.insert(user, list.stream_id).unwrap_or(list.stream_id.saturating_sub(1));
        let updates = device_lists::list_updates(&self.parts.db, user, told).await?;
        let mut edus = Vec::new();
        for update in &updates {
            let device = list.devices.iter().find(|(device_id, ..)| *device_id == update.device_id);
            let mut content = json!({
                "user_id": user_id,
                "device_id": update.device_id,
                "stream_id": update.version,
                "prev_id": if update.version > 1 { vec![update.version - 1] } else { Vec::new() },
            });
            match device {
                Some((_, _, Some(keys))) => content["keys"] = value_of(keys.json()),
                Some(_) => {}
                None => content["deleted"] = true.into(),
            }
            edus.push(edu_of("m.device_list_update", &content));
        }
        if updates.is_empty() {
            edus.push(edu_of("m.signing_key_update", &signing_keys(&user_id, &list)));
        }
        for destination in servers.iter() {
            for edu in &edus {
                found.queue(destination, &Item::Edu(edu.clone()));
            }
        }
        Ok(())
    }

    async fn pass_presence(&mut self, user: i64, found: &mut Found) -> Result<(), DbError> {
        let user_id = self.parts.names.name(user).await?;
        if user_id.server_name() != self.parts.server_name {
            return Ok(());
        }
        let servers = self.servers_sharing_with(user).await?;
        let Some(row) = crate::storage::presence::find(&self.parts.db, user).await?.filter(|_| !servers.is_empty())
        else {
            return Ok(());
        };
        let mut update = json!({
            "user_id": user_id,
            "presence": row.presence,
            "last_active_ago": self.parts.clock.now_ms().saturating_sub(row.last_active_ts),
            "currently_active": row.presence == "online",
        });
        if let Some(status_msg) = row.status_msg {
            update["status_msg"] = status_msg.into();
        }
        pass(found, &servers, &format!("presence {user}"), "m.presence", &json!({ "push": [update] }));
        Ok(())
    }

    async fn servers_sharing_with(&self, user: i64) -> Result<Servers, DbError> {
        let mut servers: BTreeSet<OwnedServerName> =
            servers::list_sharing_a_room(&self.parts.db, user).await?.into_iter().collect();
        servers.remove(&self.parts.server_name);
        Ok(Arc::new(servers))
    }
}

/// The server of a user who is removed from the room by this event.
fn removed_server(pdu: &Pdu) -> Option<&ServerName> {
    let removed = matches!(Membership::of(pdu), Some(Membership::Leave | Membership::Ban));
    target_of(pdu).filter(|_| removed).map(UserId::server_name)
}

fn signing_keys(user_id: &UserId, list: &crate::e2ee::DeviceListOfUser) -> Value {
    let mut content = json!({ "user_id": user_id });
    for (name, key) in [("master_key", &list.master_key), ("self_signing_key", &list.self_signing_key)] {
        if let Some(key) = key {
            content[name] = value_of(key.json());
        }
    }
    content
}

fn value_of(raw: &RawValue) -> Value {
    serde_json::from_str(raw.get()).expect("raw JSON is JSON")
}

fn edu_of(edu_type: &str, content: &Value) -> String {
    json!({ "edu_type": edu_type, "content": content }).to_string()
}

fn pass(found: &mut Found, servers: &Servers, key: &str, edu_type: &str, content: &Value) {
    let edu = RawValue::from_string(edu_of(edu_type, content)).expect("what was just written as JSON is JSON");
    let called = servers.iter().filter(|server| found.client.may_call(server));
    found.passing.extend(called.map(|server| (server.clone(), key.to_owned(), edu.clone())));
}
