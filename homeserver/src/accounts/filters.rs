//! Filters that clients store and name by an id.

use gatehouse_shared::hex::Hex;
use ruma::api::client::filter::FilterDefinition;
use sha2::{Digest as _, Sha256};

use super::{Accounts, Requester};
use crate::storage::{DbError, account_data};

/// Hex digits of a filter's id: 64 bits of its digest.
const ID_BYTES: usize = 8;

/// Why there is no filter.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    #[error("the user has no such filter")]
    NotFound,
    #[error("the filter cannot be written: {0}")]
    Unwritable(serde_json::Error),
    #[error(transparent)]
    Db(#[from] DbError),
}

impl Accounts {
    /// Keeps a filter; the same filter has the same id.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn create_filter(&self, requester: &Requester, filter: &FilterDefinition) -> Result<String, FilterError> {
        let text = serde_json::to_string(filter).map_err(FilterError::Unwritable)?;
        let digest = Sha256::digest(text.as_bytes());
        let filter_id = Hex::<{ 2 * ID_BYTES }>::of(&digest).to_string();
        let known = account_data::find_filter(&self.inner.db, requester.user_nid, &filter_id).await?;
        if known.is_none() {
            let insert = account_data::insert_filter(requester.user_nid, &filter_id, &text);
            self.inner.db.write(vec![insert]).await?;
        }
        Ok(filter_id)
    }

    /// A filter that the user has stored.
    ///
    /// # Errors
    /// [`FilterError::NotFound`], and those of the database.
    pub async fn filter(&self, user_nid: i64, filter_id: &str) -> Result<FilterDefinition, FilterError> {
        let text = account_data::find_filter(&self.inner.db, user_nid, filter_id).await?;
        let text = text.ok_or(FilterError::NotFound)?;
        serde_json::from_str(&text).map_err(|error| DbError::Corrupt(format!("filters, {filter_id}: {error}")).into())
    }
}
