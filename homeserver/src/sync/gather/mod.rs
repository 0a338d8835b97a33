//! Reads everything that a sync tells out of one snapshot of the database, in few round trips:
//!
//! 1. the position, if the changes did not say it;
//! 2. the user's rooms, and everything that belongs to no room;
//! 3. timelines, and what passes in rooms ([`timelines`]);
//! 4. states and what belongs to events ([`states`]), counts ([`counts`]), names for rooms without one ([`summaries`]).

mod counts;
mod invites;
mod passing;
mod states;
mod summaries;
mod timelines;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use ruma::OwnedUserId;

pub(super) use self::{passing::Passing, summaries::Summary, timelines::Timeline};
use super::{
    ReadError, SyncRequest, SyncToken, Syncer, lanes, positions,
    scope::Scope,
    unread::{Personal, Unread},
    write::Extras,
};
use crate::{
    storage::{
        DbError, Row, Snapshot, Stmt,
        device_lists::{self, DeviceListChanges},
        event_cache::CachedEvent,
        memberships::{self, UserRoom},
        presence::{self, PresenceRow},
        to_device,
        unread::{self, AccountData},
    },
    stream::Positions,
};

/// To-device messages of one answer.
const TO_DEVICE_LIMIT: usize = 100;

/// Everything that an answer is written from.
pub(super) struct Gathered {
    pub(super) token: SyncToken,
    pub(super) account_data: Vec<AccountData>,
    /// Effective push rules belong into the answer, whatever is stored of them.
    pub(super) personal: Arc<Personal>,
    pub(super) tells_push_rules: bool,
    pub(super) presence: Vec<PresenceRow>,
    pub(super) to_device: Vec<String>,
    pub(super) device_lists: DeviceListChanges,
    /// Of all users that are told of by number.
    pub(super) names: HashMap<i64, OwnedUserId>,
    pub(super) keys: Arc<str>,
    pub(super) joined: Vec<Room>,
    pub(super) left: Vec<Room>,
    pub(super) invited: Vec<(Arc<str>, Vec<String>)>,
    pub(super) knocked: Vec<(Arc<str>, Vec<String>)>,
    pub(super) extras: Extras,
}

/// What an answer tells of one room.
pub(super) struct Room {
    pub(super) row: UserRoom,
    pub(super) kind: Kind,
    /// The timeline goes back to the last covered event.
    pub(super) is_continued: bool,
    /// The state is told completely.
    pub(super) is_whole: bool,
    /// The reader is or was in the room.
    sees_state: bool,
    pub(super) timeline: Timeline,
    pub(super) state: Vec<Arc<CachedEvent>>,
    pub(super) passing: Passing,
    pub(super) account_data: Vec<AccountData>,
    pub(super) summary: Option<Summary>,
    pub(super) unread: Option<Unread>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Joined,
    Left,
}

/// What the steps of a gathering share.
struct Context<'a> {
    sync: &'a Syncer,
    request: &'a SyncRequest<'a>,
    since: Option<&'a SyncToken>,
    scope: &'a Scope,
    upto: Positions,
    /// Where memory stood when the reading began.
    began: Positions,
    snapshot: Snapshot,
}

impl Context<'_> {
    fn since_positions(&self) -> Option<&Positions> {
        self.since.map(|since| &since.positions)
    }

    /// Positions as lists, for statements.
    fn since_lanes(&self) -> Vec<i64> {
        self.since_positions().map(lanes).unwrap_or_default()
    }

    fn is_new(&self, lane: i64, seq: i64) -> bool {
        self.since_positions().is_none_or(|since| !since.covers(lane, seq))
    }
}

/// Statements that are sent together, and their answers.
#[derive(Default)]
struct Reads {
    stmts: Vec<Stmt>,
    answers: Vec<Vec<Row>>,
}

impl Reads {
    /// Adds a statement and says where its answer will be.
    fn add(&mut self, stmt: Stmt) -> usize {
        self.stmts.push(stmt);
        self.stmts.len() - 1
    }

    /// Adds a statement if there is something to ask.
    fn add_if(&mut self, wanted: bool, stmt: impl FnOnce() -> Stmt) -> Option<usize> {
        wanted.then(|| self.add(stmt()))
    }

    async fn run(&mut self, snapshot: &mut Snapshot) -> Result<(), DbError> {
        let stmts = std::mem::take(&mut self.stmts);
        if !stmts.is_empty() {
            self.answers = snapshot.query_all(stmts).await?;
        }
        Ok(())
    }

    /// The answer at a place; no rows for a statement that was not asked.
    fn rows(&self, place: impl Into<Option<usize>>) -> &[Row] {
        place.into().and_then(|place| self.answers.get(place)).map_or(&[], Vec::as_slice)
    }
}

impl Syncer {
    /// Reads what `scope` names. `upto` is where the changes reached that the scope was made from; without it, the
    /// snapshot itself says where it stands.
    pub(super) async fn gather(
        &self,
        request: &SyncRequest<'_>,
        since: Option<&SyncToken>,
        scope: &Scope,
        upto: Option<Positions>,
    ) -> Result<Gathered, ReadError> {
        let memory = self.shared.memories.of(request.user_nid);
        let began = memory.lock().catch_up(&self.shared.parts.stream, &self.shared.parts.events);
        let mut snapshot = self.db().snapshot().await?;
        let upto = match (scope, upto) {
            (Scope::Touched(_), Some(upto)) => upto,
            _ => {
                let Stmt { sql, params, .. } = positions::read();
                positions::parse(&snapshot.query(sql, params).await?)?
            }
        };
        let mut context = Context { sync: self, request, since, scope, upto, began, snapshot };
        let (mut gathered, mut rows) = context.read_own().await?;
        context.add_quiet_rooms(&mut rows, &gathered.account_data).await?;
        let mut rooms = context.sort_rooms(&rows, &mut gathered).await?;
        context.read_timelines(&mut rooms, &gathered.personal).await?;
        context.read_passing(&mut rooms, &mut gathered).await?;
        rooms.retain(|room| room.has_something());
        context.read_states(&mut rooms, &mut gathered.extras).await?;
        context.read_summaries(&mut rooms).await?;
        context.read_counts(&mut rooms, &gathered.personal).await?;
        context.note_members(&rooms);
        // Names are read on another connection. Nobody may wait for a second one while holding the first.
        drop(context);
        gathered.names = self.names_of(&gathered, &rooms).await?;
        (gathered.joined, gathered.left) = rooms.into_iter().partition(|room| room.kind == Kind::Joined);
        Ok(gathered)
    }
}

impl Syncer {
    /// The names of all users that an answer tells of.
    async fn names_of(&self, gathered: &Gathered, rooms: &[Room]) -> Result<HashMap<i64, OwnedUserId>, ReadError> {
        let passing = rooms.iter().flat_map(|room| {
            let typing = room.passing.typing.iter().flatten().copied();
            room.passing.receipts.iter().map(|receipt| receipt.user_nid).chain(typing)
        });
        let lists = gathered.device_lists.changed.iter().chain(&gathered.device_lists.left).copied();
        let mut nids: Vec<i64> = gathered.presence.iter().map(|row| row.user_nid).chain(lists).chain(passing).collect();
        nids.sort_unstable();
        nids.dedup();
        let names = self.shared.parts.names.names(&nids).await?;
        Ok(nids.into_iter().zip(names).collect())
    }
}

impl Room {
    fn new(row: UserRoom, kind: Kind) -> Self {
        Self {
            row,
            kind,
            is_continued: true,
            is_whole: false,
            sees_state: true,
            timeline: Timeline::default(),
            state: Vec::new(),
            passing: Passing::default(),
            account_data: Vec::new(),
            summary: None,
            unread: None,
        }
    }

    /// Whether there is nothing to tell of the room.
    pub(super) fn is_empty(&self) -> bool {
        !self.is_whole
            && self.kind == Kind::Joined
            && self.timeline.events.is_empty()
            && !self.timeline.limited
            && self.state.is_empty()
            && self.passing.is_empty()
            && self.account_data.is_empty()
    }

    fn has_something(&self) -> bool {
        self.is_whole
            || self.kind == Kind::Left
            || self.timeline.has_new
            || !self.passing.is_empty()
            || !self.account_data.is_empty()
    }
}

impl Context<'_> {
    /// Reads the user's rooms and everything that belongs to no room.
    async fn read_own(&mut self) -> Result<(Gathered, Vec<UserRoom>), ReadError> {
        let request = self.request;
        let user_nid = request.user_nid;
        let memory = self.sync.shared.memories.of(user_nid);
        let (personal, keys) = {
            let memory = memory.lock();
            (memory.personal.clone(), memory.key_counts.get(request.device_id).cloned())
        };
        let (own, devices, presence) = match self.scope {
            Scope::Everything => (true, self.since.is_some(), true),
            Scope::Touched(touched) => (touched.own, touched.devices, touched.presence),
        };
        let mut reads = Reads::default();
        let rooms = reads.add(match self.scope {
            Scope::Everything => memberships::of_user(user_nid),
            Scope::Touched(touched) => {
                memberships::of_user_in(user_nid, &touched.rooms.keys().copied().collect::<Vec<_>>())
            }
        });
        let since = self.since_lanes();
        let upto = lanes(&self.upto);
        let personal_rows = reads.add_if(personal.is_none(), || unread::personal(user_nid));
        let key_rows = keys.is_none().then(|| super::keys::add(&mut reads.stmts, user_nid, request.device_id));
        let account_data = reads.add_if(own, || unread::account_data_since(user_nid, &since));
        let delivered = self.since.map(delivered).unwrap_or_default();
        let to_device = own.then(|| {
            let [waiting, acknowledged] =
                to_device::waiting(user_nid, request.device_id, &delivered, &upto, TO_DEVICE_LIMIT);
            (reads.add(waiting), reads.add(acknowledged))
        });
        let device_lists = devices.then(|| {
            let [changed, left] = device_lists::changes(user_nid, &since, &upto);
            (reads.add(changed), reads.add(left))
        });
        let wants_presence = presence && request.filter.presence.allows_type("m.presence");
        let presence = reads.add_if(wants_presence, || presence::changes(user_nid, &since, &upto));
        reads.run(&mut self.snapshot).await?;

        let personal = match personal {
            Some(personal) => personal,
            None => {
                let personal = Arc::new(Personal::read(reads.rows(personal_rows), request.user_id)?);
                memory.lock().remember_personal(&self.sync.shared.parts.stream, &self.began, personal.clone());
                personal
            }
        };
        let keys = match (keys, key_rows) {
            (Some(keys), _) => keys,
            (None, Some((counts, fallback))) => {
                let text = super::keys::text(reads.rows(counts), reads.rows(fallback))?;
                let stream = &self.sync.shared.parts.stream;
                memory.lock().remember_key_counts(stream, &self.began, request.device_id, text.clone());
                text
            }
            (None, None) => Arc::from(""),
        };
        let page = match to_device {
            Some((waiting, acknowledged)) => {
                let answers = [reads.rows(waiting).to_vec(), reads.rows(acknowledged).to_vec()];
                to_device::read_waiting(&answers, TO_DEVICE_LIMIT)?
            }
            None => to_device::ToDevicePage::default(),
        };
        if page.has_acknowledged {
            self.acknowledge(delivered);
        }
        let device_lists = match device_lists {
            Some((changed, left)) => {
                let answers = [reads.rows(changed).to_vec(), reads.rows(left).to_vec()];
                device_lists::read_changes(&answers)?
            }
            None => DeviceListChanges::default(),
        };
        let presence = presence::read_changes(reads.rows(presence))?;
        let account_data = unread::read_account_data(reads.rows(account_data))?;
        let gathered = Gathered {
            token: SyncToken { positions: self.upto.clone(), to_device_upto: page.watermark },
            tells_push_rules: self.since.is_none()
                || account_data.iter().any(|data| data.room_id.is_empty() && data.data_type == "m.push_rules"),
            account_data,
            personal,
            presence,
            to_device: page.events,
            device_lists,
            names: HashMap::new(),
            keys,
            joined: Vec::new(),
            left: Vec::new(),
            invited: Vec::new(),
            knocked: Vec::new(),
            extras: Extras::at(self.sync.now_ms()),
        };
        Ok((gathered, memberships::read_user_rooms(reads.rows(rooms))?))
    }

    /// Adds the rooms in which nothing happened but that the user changed what is kept for them.
    async fn add_quiet_rooms(
        &mut self,
        rows: &mut Vec<UserRoom>,
        account_data: &[AccountData],
    ) -> Result<(), ReadError> {
        let known: HashSet<&str> = rows.iter().map(|row| &*row.room_id).collect();
        let quiet: Vec<&str> = account_data
            .iter()
            .map(|data| data.room_id.as_str())
            .filter(|room_id| !room_id.is_empty() && !known.contains(room_id))
            .collect();
        if quiet.is_empty() || matches!(self.scope, Scope::Everything) {
            return Ok(());
        }
        let Stmt { sql, params, .. } = memberships::of_user_in_room_ids(self.request.user_nid, &quiet);
        rows.extend(memberships::read_user_rooms(&self.snapshot.query(sql, params).await?)?);
        Ok(())
    }

    /// Deletes delivered to-device messages beside this sync: nobody waits for it, and the next sync does it again if
    /// it fails.
    fn acknowledge(&self, delivered: to_device::Delivered) {
        let db = self.sync.db().clone();
        let (user_nid, device_id) = (self.request.user_nid, self.request.device_id.to_owned());
        tokio::spawn(async move {
            if let Err(error) = to_device::acknowledge(&db, user_nid, &device_id, &delivered).await {
                tracing::warn!(%error, "delivered to-device messages could not be deleted");
            }
        });
    }

    /// Decides which rooms are told, and how.
    async fn sort_rooms(&mut self, rows: &[UserRoom], gathered: &mut Gathered) -> Result<Vec<Room>, ReadError> {
        let filter = &self.request.filter;
        let mut rooms = Vec::new();
        let mut invites = Vec::new();
        for row in rows.iter().filter(|row| filter.allows_room(&row.room_id)) {
            let member_is_new = self.is_new(row.member_lane, row.member_seq);
            match row.membership.as_str() {
                "join" => {
                    let mut room = Room::new(row.clone(), Kind::Joined);
                    room.is_continued = self.since.is_some();
                    room.is_whole = self.since.is_none() || self.request.full_state;
                    rooms.push(room);
                }
                "invite" | "knock" if member_is_new => invites.push(row.clone()),
                "leave" | "ban" if member_is_new && self.since.is_some() => {
                    rooms.push(Room::new(row.clone(), Kind::Left));
                }
                "leave" | "ban" if filter.include_leave && (self.since.is_none() || self.request.full_state) => {
                    let mut room = Room::new(row.clone(), Kind::Left);
                    room.is_continued = false;
                    room.is_whole = true;
                    rooms.push(room);
                }
                _ => {}
            }
        }
        self.read_invites(&invites, gathered).await?;
        Ok(rooms)
    }

    /// Remembers whose memberships the device has been sent, for lazy loading.
    fn note_members(&self, rooms: &[Room]) {
        if self.request.filter.lazy == super::LazyLoading::Off {
            return;
        }
        let upto = Arc::new(self.upto.clone());
        let memory = self.sync.shared.memories.of(self.request.user_nid);
        let mut memory = memory.lock();
        let known = memory.known_members.entry(self.request.device_id.to_owned()).or_default();
        for room in rooms {
            for event in room.state.iter().chain(&room.timeline.events) {
                if event.pdu.event_type() == "m.room.member"
                    && let Some(user_id) = event.pdu.state_key()
                {
                    known.note(room.row.room_nid, user_id, &upto);
                }
            }
        }
    }
}

/// What a device that continues from a token has received.
fn delivered(since: &SyncToken) -> to_device::Delivered {
    to_device::Delivered { since: lanes(&since.positions), watermark: since.to_device_upto }
}

/// Where each room stands in the list.
fn places(rooms: &[Room]) -> HashMap<i64, usize> {
    rooms.iter().enumerate().map(|(place, room)| (room.row.room_nid, place)).collect()
}

/// Events by room.
fn by_room<T>(items: impl IntoIterator<Item = T>, room_of: impl Fn(&T) -> i64) -> HashMap<i64, Vec<T>> {
    let mut rooms: HashMap<i64, Vec<T>> = HashMap::new();
    for item in items {
        rooms.entry(room_of(&item)).or_default().push(item);
    }
    rooms
}

/// Whose memberships a room's part of the answer needs, for lazy loading.
type Wanted = BTreeMap<i64, HashSet<String>>;
