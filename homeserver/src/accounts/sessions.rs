//! Who an access token belongs to: asked for every request, so the answer is kept in memory.

use std::{
    collections::HashMap,
    net::IpAddr,
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use gatehouse_shared::clock::Clock;
use parking_lot::Mutex;
use ruma::{OwnedDeviceId, OwnedUserId};
use tokio_util::sync::CancellationToken;

use super::secret;
use crate::{
    storage::{
        Db, DbError, Stmt,
        access_tokens::{self, NewToken, TokenDigest, TokenRow},
        devices,
    },
    stream::{Change, CommitError, Lane, Positions, SinceLog, Stream, Write},
};

/// Sessions kept in memory; some 40 MB when full.
const REMEMBERED: usize = 100_000;
/// How often a device in use is noted as seen, in milliseconds.
const SEEN_EVERY_MS: u64 = 60_000;
/// How long an access token lives that comes with a refresh token, in milliseconds.
pub(super) const REFRESHABLE_LIFETIME_MS: u64 = 60 * 60 * 1000;

/// Who makes a request, from which device.
#[derive(Debug)]
pub struct Identity {
    pub user_id: OwnedUserId,
    pub user_nid: i64,
    pub device_id: OwnedDeviceId,
    pub is_admin: bool,
    /// When the device was last noted as seen, in milliseconds since the epoch.
    seen_ts: AtomicU64,
}

/// A request's sender whose access token was right. Clones share one [`Identity`].
#[derive(Debug, Clone)]
pub struct Requester(Arc<Identity>);

impl Deref for Requester {
    type Target = Identity;

    fn deref(&self) -> &Identity {
        &self.0
    }
}

/// Why a token names nobody.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("the token is unknown")]
    Unknown,
    /// The device can go on with its refresh token.
    #[error("the access token has expired")]
    Expired,
    #[error(transparent)]
    Db(#[from] DbError),
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// A pair of new tokens.
#[derive(Debug)]
pub(super) struct Minted {
    pub(super) access: String,
    pub(super) refresh: Option<String>,
    pub(super) lifetime_ms: Option<u64>,
    pub(super) statement: Stmt,
}

/// The sessions of this server's users. Clones share the memory.
#[derive(Clone)]
pub(super) struct Sessions {
    db: Db,
    lane: Lane,
    clock: Arc<dyn Clock>,
    cache: Arc<Mutex<Cache>>,
    seen: Arc<Mutex<Seen>>,
}

/// When and from where devices were used since that was last written.
type Seen = HashMap<(i64, OwnedDeviceId), (u64, IpAddr)>;

#[derive(Default)]
struct Cache {
    sessions: HashMap<TokenDigest, Cached>,
    by_user: HashMap<i64, Vec<TokenDigest>>,
    /// Counts what was forgotten, so that a read which began before does not put an ended session back.
    forgotten: u64,
}

#[derive(Clone)]
struct Cached {
    requester: Requester,
    expires_ts: Option<u64>,
}

impl Sessions {
    pub(super) fn new(db: Db, lane: Lane, clock: Arc<dyn Clock>) -> Self {
        Self { db, lane, clock, cache: Arc::default(), seen: Arc::default() }
    }

    /// Whom `token` belongs to, asking the database only for tokens that are new to this shard.
    pub(super) async fn authenticate(&self, token: &str, client: IpAddr) -> Result<Requester, TokenError> {
        let digest = secret::digest(token);
        let (cached, forgotten) = {
            let cache = self.cache.lock();
            (cache.sessions.get(&digest).cloned(), cache.forgotten)
        };
        let session = match cached {
            Some(session) => session,
            None => self.load(&digest, forgotten).await?,
        };
        let now = self.clock.now_ms();
        if session.expires_ts.is_some_and(|expires_ts| expires_ts <= now) {
            return Err(TokenError::Expired);
        }
        self.note_seen(&session.requester, client, now);
        Ok(session.requester)
    }

    async fn load(&self, digest: &TokenDigest, forgotten: u64) -> Result<Cached, TokenError> {
        let row = access_tokens::find(&self.db, digest).await?.ok_or(TokenError::Unknown)?;
        if let Some(superseded) = &row.supersedes {
            self.retire(digest, superseded, row.user_nid).await?;
        }
        let session = Cached { expires_ts: row.expires_ts, requester: requester(row)? };
        let mut cache = self.cache.lock();
        if cache.forgotten == forgotten {
            if cache.sessions.len() >= REMEMBERED {
                *cache = Cache { forgotten, ..Cache::default() };
            }
            let is_new = cache.sessions.insert(*digest, session.clone()).is_none();
            if is_new {
                cache.by_user.entry(session.requester.user_nid).or_default().push(*digest);
            }
        }
        Ok(session)
    }

    /// Ends the tokens that were replaced by one that is used now.
    async fn retire(&self, access: &[u8], superseded: &[u8], user_nid: i64) -> Result<(), CommitError> {
        let statements = access_tokens::retire_superseded(access, superseded);
        self.lane.commit(Write { guard: None, statements, changes: vec![Change::Tokens { user: user_nid }] }).await?;
        self.forget(user_nid);
        Ok(())
    }

    /// A new access token for a device, with a refresh token when it asked for one.
    pub(super) fn mint(&self, user_nid: i64, user_id: &OwnedUserId, device_id: &str, refreshable: bool) -> Minted {
        self.mint_instead_of(user_nid, user_id, device_id, refreshable, None)
    }

    fn mint_instead_of(
        &self,
        user_nid: i64,
        user_id: &OwnedUserId,
        device_id: &str,
        refreshable: bool,
        supersedes: Option<&[u8]>,
    ) -> Minted {
        let now = self.clock.now_ms();
        let access = secret::access_token(user_id);
        let refresh = refreshable.then(secret::refresh_token);
        let lifetime_ms = refreshable.then_some(REFRESHABLE_LIFETIME_MS);
        let statement = access_tokens::insert(NewToken {
            access: &secret::digest(&access),
            refresh: refresh.as_deref().map(secret::digest).as_ref(),
            user_nid,
            device_id,
            created_ts: now,
            expires_ts: lifetime_ms.map(|lifetime| now.saturating_add(lifetime)),
            supersedes,
        });
        Minted { access, refresh, lifetime_ms, statement }
    }

    /// New tokens for an old refresh token. The old pair stays valid until one of the new pair is used, so that a lost
    /// answer locks nobody out.
    pub(super) async fn refresh(&self, refresh_token: &str) -> Result<Minted, TokenError> {
        let digest = secret::digest(refresh_token);
        let found = access_tokens::find_by_refresh(&self.db, &digest).await?;
        let (access, row) = found.ok_or(TokenError::Unknown)?;
        let user_nid = row.user_nid;
        let mut statements = Vec::new();
        if let Some(superseded) = &row.supersedes {
            statements.extend(access_tokens::retire_superseded(&access, superseded));
        }
        statements.push(access_tokens::delete_successors(&access));
        let requester = requester(row)?;
        let device_id = requester.device_id.as_str();
        let minted = self.mint_instead_of(user_nid, &requester.user_id, device_id, true, Some(&access));
        statements.push(minted.statement.clone());
        self.lane.commit(Write { guard: None, statements, changes: vec![Change::Tokens { user: user_nid }] }).await?;
        self.forget(user_nid);
        Ok(minted)
    }

    /// Forgets what is kept in memory of a user whose tokens changed.
    pub(super) fn forget(&self, user_nid: i64) {
        let mut cache = self.cache.lock();
        cache.forgotten = cache.forgotten.wrapping_add(1);
        for digest in cache.by_user.remove(&user_nid).unwrap_or_default() {
            cache.sessions.remove(&digest);
        }
    }

    fn forget_all(&self) {
        let mut cache = self.cache.lock();
        let forgotten = cache.forgotten.wrapping_add(1);
        *cache = Cache { forgotten, ..Cache::default() };
    }

    /// Forgets the users whose tokens changed anywhere in the cluster, until `stop`.
    pub(super) fn follow(self, stream: Stream, stop: CancellationToken) -> impl Future<Output = ()> {
        // Taken before anything is cached, and not when the future is first polled.
        let mut moves = stream.subscribe();
        let mut read = stream.positions();
        async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    moved = moves.changed() => if moved.is_err() { return },
                }
                read = self.take_in(&stream, &read);
            }
        }
    }

    fn take_in(&self, stream: &Stream, read: &Positions) -> Positions {
        match stream.changes_since(read) {
            SinceLog::Known { upto, entries } => {
                for change in entries.iter().flat_map(|entry| entry.changes.iter()) {
                    if let Change::Tokens { user } = change {
                        self.forget(*user);
                    }
                }
                upto
            }
            SinceLog::Unknown => {
                let now = stream.positions();
                self.forget_all();
                now
            }
        }
    }

    fn note_seen(&self, requester: &Requester, client: IpAddr, now_ms: u64) {
        let last = requester.seen_ts.load(Ordering::Relaxed);
        if now_ms.saturating_sub(last) < SEEN_EVERY_MS {
            return;
        }
        requester.seen_ts.store(now_ms, Ordering::Relaxed);
        self.seen.lock().insert((requester.user_nid, requester.device_id.clone()), (now_ms, client));
    }

    /// Writes when devices were last seen; what cannot be written now is lost, which only makes a time too old.
    pub(super) async fn write_seen(&self) -> Result<(), DbError> {
        /// Statements of one transaction, so that the writer is not held for long.
        const BATCH: usize = 200;
        let seen = std::mem::take(&mut *self.seen.lock());
        let mut statements = seen.into_iter().map(|((user_nid, device_id), (at_ms, client))| {
            devices::seen(user_nid, device_id.as_str(), &client.to_string(), at_ms)
        });
        loop {
            let batch: Vec<Stmt> = statements.by_ref().take(BATCH).collect();
            if batch.is_empty() {
                return Ok(());
            }
            self.db.write(batch).await?;
        }
    }
}

fn requester(row: TokenRow) -> Result<Requester, DbError> {
    let user_id = OwnedUserId::try_from(row.user_id)
        .map_err(|error| DbError::Corrupt(format!("user_names, number {}: {error}", row.user_nid)))?;
    Ok(Requester(Arc::new(Identity {
        user_id,
        user_nid: row.user_nid,
        device_id: row.device_id.into(),
        is_admin: row.is_admin,
        seen_ts: AtomicU64::new(0),
    })))
}
