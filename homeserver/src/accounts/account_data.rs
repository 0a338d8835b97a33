//! Account data: what clients keep with their user, for everything or for one room, tags included.

use ruma::RoomId;
use serde_json::{Map, Value};

use super::{Accounts, Requester};
use crate::{
    storage::{
        DbError, Stmt,
        account_data::{self, GLOBAL},
    },
    stream::{Change, CommitError, Write},
};

/// The longest type of account data, and the longest tag, in bytes.
const MAX_NAME_BYTES: usize = 255;
/// How often an edit is tried again when somebody else edits the same piece.
const ATTEMPTS: u32 = 32;
const TAGS: &str = "m.tag";

/// Why account data was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum AccountDataError {
    #[error("there is no such account data")]
    NotFound,
    /// Push rules and read markers have endpoints of their own.
    #[error("account data of type {0:?} is set through an endpoint of its own")]
    Reserved(String),
    #[error("the type or tag is empty, longer than {MAX_NAME_BYTES} bytes, or has characters that no text has")]
    BadName,
    #[error(transparent)]
    Db(#[from] DbError),
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl Accounts {
    /// A piece of account data, as JSON; of a room, or global.
    ///
    /// # Errors
    /// [`AccountDataError::NotFound`], and those of the database.
    pub async fn account_data(
        &self,
        requester: &Requester,
        room_id: Option<&RoomId>,
        data_type: &str,
    ) -> Result<String, AccountDataError> {
        if data_type == super::push_rules::DATA_TYPE && room_id.is_none() {
            return Ok(super::push_rules::to_content(&self.push_rules(requester).await?));
        }
        let found = account_data::find(&self.inner.db, requester.user_nid, place(room_id), data_type).await?;
        found.ok_or(AccountDataError::NotFound)
    }

    /// Sets a piece of account data. The last writer wins.
    ///
    /// # Errors
    /// [`AccountDataError::Reserved`] and [`AccountDataError::BadName`], and those of the database.
    pub async fn set_account_data(
        &self,
        requester: &Requester,
        room_id: Option<&RoomId>,
        data_type: &str,
        content: &Map<String, Value>,
    ) -> Result<(), AccountDataError> {
        check_name(data_type)?;
        if matches!(data_type, super::push_rules::DATA_TYPE | "m.fully_read") {
            return Err(AccountDataError::Reserved(data_type.to_owned()));
        }
        let user_nid = requester.user_nid;
        let text = serde_json::to_string(content).map_err(|error| DbError::Corrupt(error.to_string()))?;
        let statements = vec![account_data::upsert(user_nid, place(room_id), data_type, &text)];
        self.inner
            .lane
            .commit(Write { guard: None, statements, changes: vec![Change::User { user: user_nid }] })
            .await?;
        Ok(())
    }

    /// The tags of a room: an object from tag to its content.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn tags(&self, requester: &Requester, room_id: &RoomId) -> Result<Map<String, Value>, AccountDataError> {
        let found = account_data::find(&self.inner.db, requester.user_nid, room_id.as_str(), TAGS).await?;
        Ok(found.map(|text| tags_of(&text)).unwrap_or_default())
    }

    /// Sets a tag of a room, or takes it away with `None`.
    ///
    /// # Errors
    /// [`AccountDataError::BadName`], and those of the database.
    pub async fn set_tag(
        &self,
        requester: &Requester,
        room_id: &RoomId,
        tag: &str,
        info: Option<Map<String, Value>>,
    ) -> Result<(), AccountDataError> {
        check_name(tag)?;
        self.edit_account_data(requester.user_nid, room_id.as_str(), TAGS, |stored| {
            let mut tags = stored.map(tags_of).unwrap_or_default();
            match &info {
                Some(info) => tags.insert(tag.to_owned(), Value::Object(info.clone())),
                None => tags.remove(tag),
            };
            Ok::<_, AccountDataError>(serde_json::json!({ "tags": tags }).to_string())
        })
        .await
    }

    /// Reads, changes and writes one piece, again when somebody else wrote it meanwhile.
    pub(super) async fn edit_account_data<E>(
        &self,
        user_nid: i64,
        room_id: &str,
        data_type: &str,
        edit: impl Fn(Option<&str>) -> Result<String, E>,
    ) -> Result<(), E>
    where
        E: From<DbError> + From<CommitError>,
    {
        for _ in 0..ATTEMPTS {
            let stored = account_data::find(&self.inner.db, user_nid, room_id, data_type).await?;
            let content = edit(stored.as_deref())?;
            let guard = account_data::replace(user_nid, room_id, data_type, stored.as_deref(), &content);
            let statements: Vec<Stmt> = vec![account_data::upsert(user_nid, room_id, data_type, &content)];
            let changes = vec![Change::User { user: user_nid }];
            match self.inner.lane.commit(Write { guard: Some(guard.into()), statements, changes }).await {
                Ok(_) => return Ok(()),
                Err(CommitError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(CommitError::Conflict.into())
    }
}

fn place(room_id: Option<&RoomId>) -> &str {
    room_id.map_or(GLOBAL, RoomId::as_str)
}

fn tags_of(content: &str) -> Map<String, Value> {
    let content: Map<String, Value> = serde_json::from_str(content).unwrap_or_default();
    match content.get("tags") {
        Some(Value::Object(tags)) => tags.clone(),
        _ => Map::new(),
    }
}

fn check_name(name: &str) -> Result<(), AccountDataError> {
    let is_good = !name.is_empty() && name.len() <= MAX_NAME_BYTES && !name.contains('\0');
    if is_good { Ok(()) } else { Err(AccountDataError::BadName) }
}
