//! Hands out row numbers in blocks, so that a transaction knows its keys before it begins.
//!
//! A block that is not used up before a restart leaves a gap; nothing depends on the numbers being dense.

use std::{collections::HashMap, ops::Range, sync::Arc};

use tokio::sync::Mutex;

use super::{Db, DbError, Stmt};
use crate::params;

/// Numbers that a shard takes at a time.
const BLOCK: i64 = 1000;

/// What is numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NidKind {
    Event,
    Room,
    User,
    StateSnapshot,
    StateBlock,
    /// Rows of other tables that need a number before they are written.
    Other,
}

impl NidKind {
    fn name(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Room => "room",
            Self::User => "user",
            Self::StateSnapshot => "state_snapshot",
            Self::StateBlock => "state_block",
            Self::Other => "other",
        }
    }
}

/// Gives row numbers; clones share their blocks.
#[derive(Clone)]
pub struct Nids {
    db: Db,
    blocks: Arc<Mutex<HashMap<NidKind, Range<i64>>>>,
}

impl Nids {
    pub fn new(db: Db) -> Self {
        Self { db, blocks: Arc::default() }
    }

    /// One new number.
    ///
    /// # Errors
    /// Those of the database, when a new block has to be taken.
    pub async fn next(&self, kind: NidKind) -> Result<i64, DbError> {
        Ok(self.take(kind, 1).await?.start)
    }

    /// `count` new numbers in a row.
    pub async fn take(&self, kind: NidKind, count: usize) -> Result<Range<i64>, DbError> {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let mut blocks = self.blocks.lock().await;
        let block = blocks.entry(kind).or_insert(0..0);
        if block.end - block.start < count {
            *block = self.take_block(kind, count.max(BLOCK)).await?;
        }
        let taken = block.start..block.start + count;
        block.start = taken.end;
        Ok(taken)
    }

    async fn take_block(&self, kind: NidKind, size: i64) -> Result<Range<i64>, DbError> {
        let sql = "INSERT INTO nid_blocks (kind, next_nid) VALUES ($1, 1 + $2) \
                   ON CONFLICT (kind) DO UPDATE SET next_nid = nid_blocks.next_nid + $2 RETURNING next_nid";
        let outcomes = self.db.write(vec![Stmt::new(sql, params![kind.name(), size])]).await?;
        let row = outcomes.first().and_then(|outcome| outcome.rows.first()).ok_or(DbError::NoRow)?;
        let end: i64 = row.get(0)?;
        Ok(end - size..end)
    }
}
