//! Interns user ids: each user that was ever seen, local or remote, has one row number.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use ruma::{OwnedUserId, UserId};

use super::{
    Db, DbError, Row, Stmt,
    db::json_list,
    nid::{NidKind, Nids},
};
use crate::params;

/// Users that are remembered; some 20 MB when full.
const REMEMBERED: usize = 100_000;

/// User ids and their row numbers, cached; a number never changes once given. Clones share the cache.
#[derive(Clone)]
pub struct UserNames {
    db: Db,
    nids: Nids,
    cache: Arc<Mutex<Cache>>,
}

#[derive(Default)]
struct Cache {
    nids: HashMap<OwnedUserId, i64>,
    names: HashMap<i64, OwnedUserId>,
}

impl UserNames {
    pub fn new(db: Db, nids: Nids) -> Self {
        Self { db, nids, cache: Arc::default() }
    }

    /// The number of `user_id`; a new one when it was never seen.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn nid(&self, user_id: &UserId) -> Result<i64, DbError> {
        if let Some(user_nid) = self.find(user_id).await? {
            return Ok(user_nid);
        }
        self.create(&[user_id]).await?;
        self.find(user_id).await?.ok_or(DbError::NoRow)
    }

    /// The numbers of all of `user_ids`, in their order; new ones for those that were never seen. Two round trips for
    /// any number of users.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn nids(&self, user_ids: &[&UserId]) -> Result<Vec<i64>, DbError> {
        let missing = self.look_up(&self.not_cached(user_ids)).await?;
        if !missing.is_empty() {
            self.create(&missing).await?;
            self.look_up(&missing).await?;
        }
        let mut nids = Vec::with_capacity(user_ids.len());
        for user_id in user_ids {
            // Cached a moment ago, unless the cache was emptied meanwhile.
            nids.push(self.nid(user_id).await?);
        }
        Ok(nids)
    }

    /// The number of `user_id` when it was seen before.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn find(&self, user_id: &UserId) -> Result<Option<i64>, DbError> {
        if let Some(user_nid) = self.cache.lock().nids.get(user_id) {
            return Ok(Some(*user_nid));
        }
        let sql = "SELECT user_nid FROM user_names WHERE user_id = $1";
        let Some(row) = self.db.query_opt(sql, params![user_id.as_str()]).await? else { return Ok(None) };
        let user_nid = row.get(0)?;
        self.remember(user_id.to_owned(), user_nid);
        Ok(Some(user_nid))
    }

    /// The user id behind a number, which must have been given.
    ///
    /// # Errors
    /// [`DbError::NoRow`] for a number that was never given, and those of the database.
    pub async fn name(&self, user_nid: i64) -> Result<OwnedUserId, DbError> {
        if let Some(user_id) = self.cache.lock().names.get(&user_nid) {
            return Ok(user_id.clone());
        }
        let sql = "SELECT user_nid, user_id FROM user_names WHERE user_nid = $1";
        let row = self.db.query_one(sql, params![user_nid]).await?;
        self.remember_row(&row)
    }

    /// The user ids behind numbers, which must all have been given, in their order. One round trip.
    ///
    /// # Errors
    /// As [`UserNames::name`].
    pub async fn names(&self, user_nids: &[i64]) -> Result<Vec<OwnedUserId>, DbError> {
        let missing: Vec<i64> = {
            let cache = self.cache.lock();
            user_nids.iter().copied().filter(|user_nid| !cache.names.contains_key(user_nid)).collect()
        };
        if !missing.is_empty() {
            let sql = "SELECT user_nid, user_id FROM user_names \
                       WHERE user_nid IN (SELECT CAST(value AS BIGINT) FROM json_each(CAST($1 AS TEXT)))";
            for row in self.db.query(sql, params![json_list(missing)]).await? {
                self.remember_row(&row)?;
            }
        }
        let mut names = Vec::with_capacity(user_nids.len());
        for user_nid in user_nids {
            names.push(self.name(*user_nid).await?);
        }
        Ok(names)
    }

    fn not_cached<'a>(&self, user_ids: &[&'a UserId]) -> Vec<&'a UserId> {
        let cache = self.cache.lock();
        user_ids.iter().copied().filter(|user_id| !cache.nids.contains_key(*user_id)).collect()
    }

    /// Reads numbers into the cache; answers the users that have none.
    async fn look_up<'a>(&self, user_ids: &[&'a UserId]) -> Result<Vec<&'a UserId>, DbError> {
        if user_ids.is_empty() {
            return Ok(Vec::new());
        }
        let sql = "SELECT user_nid, user_id FROM user_names \
                   WHERE user_id IN (SELECT value FROM json_each(CAST($1 AS TEXT)))";
        let mut found = std::collections::HashSet::new();
        for row in self.db.query(sql, params![json_list(user_ids)]).await? {
            found.insert(self.remember_row(&row)?);
        }
        Ok(user_ids.iter().copied().filter(|user_id| !found.contains(*user_id)).collect())
    }

    /// Gives numbers to users; one that another shard numbers at the same moment keeps that number.
    async fn create(&self, user_ids: &[&UserId]) -> Result<(), DbError> {
        let sql = "INSERT INTO user_names (user_nid, user_id, server_name) VALUES ($1, $2, $3) \
                   ON CONFLICT (user_id) DO NOTHING";
        let numbers = self.nids.take(NidKind::User, user_ids.len()).await?;
        let mut rows: Vec<(&UserId, i64)> = user_ids.iter().copied().zip(numbers).collect();
        // In one order everywhere, so that two shards that number the same users do not wait for each other.
        rows.sort_unstable();
        let insert = |(user_id, user_nid): (&UserId, i64)| {
            Stmt::new(sql, params![user_nid, user_id.as_str(), user_id.server_name().as_str()])
        };
        self.db.write(rows.into_iter().map(insert).collect()).await?;
        Ok(())
    }

    fn remember_row(&self, row: &Row) -> Result<OwnedUserId, DbError> {
        let user_nid: i64 = row.get(0)?;
        let text: String = row.get(1)?;
        let user_id = OwnedUserId::try_from(text)
            .map_err(|error| DbError::Corrupt(format!("user_names, number {user_nid}: {error}")))?;
        self.remember(user_id.clone(), user_nid);
        Ok(user_id)
    }

    fn remember(&self, user_id: OwnedUserId, user_nid: i64) {
        let mut cache = self.cache.lock();
        if cache.nids.len() >= REMEMBERED {
            *cache = Cache::default();
        }
        cache.names.insert(user_nid, user_id.clone());
        cache.nids.insert(user_id, user_nid);
    }
}

#[cfg(test)]
mod tests {
    use ruma::user_id;

    use super::*;
    use crate::storage::DbConfig;

    async fn open(folder: &tempfile::TempDir) -> UserNames {
        let config = DbConfig::Sqlite { path: folder.path().join("names.db"), readers: 1 };
        let db = Db::open(&config).await.unwrap();
        UserNames::new(db.clone(), Nids::new(db))
    }

    #[tokio::test]
    async fn a_user_keeps_its_number() {
        let folder = tempfile::tempdir().unwrap();
        let (alice, bob) = (user_id!("@alice:example.org"), user_id!("@bob:remote.example"));
        let names = open(&folder).await;
        assert_eq!(names.find(alice).await.unwrap(), None);
        let numbers = names.nids(&[bob, alice, bob]).await.unwrap();
        assert_eq!(numbers, [numbers[0], names.nid(alice).await.unwrap(), numbers[0]]);
        assert_ne!(numbers[0], numbers[1]);
        let names = open(&folder).await;
        assert_eq!(names.find(bob).await.unwrap(), Some(numbers[0]));
        assert_eq!(names.names(&numbers).await.unwrap(), [bob, alice, bob]);
        assert!(matches!(names.name(-1).await, Err(DbError::NoRow)));
    }
}
