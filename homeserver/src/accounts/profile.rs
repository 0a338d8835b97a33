//! Profiles of local users: display name, avatar, and any other field.

use ruma::UserId;
use serde_json::{Map, Value};

use super::{Accounts, Requester};
use crate::storage::{
    DbError,
    profiles::{self, ProfileRow},
};

/// The longest field name, in bytes (client-server API, "Profiles").
const MAX_KEY_BYTES: usize = 255;
/// The largest profile, in bytes of JSON.
const MAX_PROFILE_BYTES: usize = 65_536;
/// The longest display name and avatar, in bytes; both go into events of every room.
const MAX_SHOWN_BYTES: usize = 1024;

/// All fields of a profile.
pub type Profile = Map<String, Value>;

/// Why a profile was not read or changed.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    #[error("there is no such user, or the profile has no such field")]
    NotFound,
    #[error("only the user may change the profile")]
    NotYours,
    #[error("the field's name is longer than {MAX_KEY_BYTES} bytes")]
    KeyTooLong,
    #[error("the field's name may only have a-z, 0-9, '.', '_' and '-'")]
    BadKey,
    #[error("the field must be a text of at most {MAX_SHOWN_BYTES} bytes")]
    BadValue,
    #[error("the avatar must be an mxc:// address")]
    BadAvatar,
    #[error("the profile would be larger than {MAX_PROFILE_BYTES} bytes")]
    ProfileTooLarge,
    #[error(transparent)]
    Db(#[from] DbError),
}

impl Accounts {
    /// The profile of a local user. Deactivated users have none.
    ///
    /// # Errors
    /// [`ProfileError::NotFound`], also for users of other servers, and those of the database.
    pub async fn profile(&self, user_id: &UserId) -> Result<Profile, ProfileError> {
        let row = self.find_local(user_id).await?.filter(|row| !row.is_deactivated).ok_or(ProfileError::NotFound)?;
        let stored = profiles::find(&self.inner.db, row.user_nid).await?;
        Ok(stored.map(to_profile).transpose()?.unwrap_or_default())
    }

    /// Sets a field, or takes it away with `None`, and tells the rooms when it is one that they show.
    ///
    /// # Errors
    /// One of the limits, [`ProfileError::NotYours`] for another user, and those of the database.
    pub async fn set_profile_field(
        &self,
        requester: &Requester,
        user_id: &UserId,
        key: &str,
        value: Option<Value>,
    ) -> Result<(), ProfileError> {
        if *user_id != requester.user_id {
            return Err(ProfileError::NotYours);
        }
        check_field(key, value.as_ref())?;
        let user_nid = requester.user_nid;
        // A transaction with a row lock: two fields may be set at the same time.
        let mut tx = self.inner.db.begin().await?;
        let stored = profiles::lock(&mut tx, user_nid).await?;
        let mut profile = to_profile(stored)?;
        match value {
            Some(value) => profile.insert(key.to_owned(), value),
            None => profile.remove(key),
        };
        let row = to_row(&profile);
        if Value::Object(profile).to_string().len() > MAX_PROFILE_BYTES {
            return Err(ProfileError::ProfileTooLarge);
        }
        tx.run_and_commit(vec![profiles::upsert(user_nid, &row)]).await?;
        if matches!(key, "displayname" | "avatar_url") {
            self.propagate_profile(requester).await;
        }
        Ok(())
    }

    /// Tells the user's rooms of a new display name or avatar: an `m.room.member` event in each room that the user is
    /// joined to. The one place for it.
    async fn propagate_profile(&self, requester: &Requester) {
        if let Err(error) = self.inner.membership.propagate_profile(&requester.user_id).await {
            tracing::warn!(%error, user.id = %requester.user_id, "the rooms were not told of a new profile");
        }
    }
}

fn check_field(key: &str, value: Option<&Value>) -> Result<(), ProfileError> {
    if key.len() > MAX_KEY_BYTES {
        return Err(ProfileError::KeyTooLong);
    }
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    if key.is_empty() || !key.bytes().all(allowed) {
        return Err(ProfileError::BadKey);
    }
    match (key, value) {
        ("displayname" | "avatar_url", Some(Value::String(text))) => check_shown(key, text),
        ("displayname" | "avatar_url", Some(_)) => Err(ProfileError::BadValue),
        _ => Ok(()),
    }
}

fn check_shown(key: &str, text: &str) -> Result<(), ProfileError> {
    if text.len() > MAX_SHOWN_BYTES || text.contains('\0') {
        return Err(ProfileError::BadValue);
    }
    if key == "avatar_url" && !<&ruma::MxcUri>::from(text).is_valid() {
        return Err(ProfileError::BadAvatar);
    }
    Ok(())
}

fn to_profile(row: ProfileRow) -> Result<Profile, DbError> {
    let mut profile: Profile =
        serde_json::from_str(&row.fields).map_err(|error| DbError::Corrupt(format!("profiles.fields: {error}")))?;
    if let Some(displayname) = row.displayname {
        profile.insert("displayname".to_owned(), displayname.into());
    }
    if let Some(avatar_url) = row.avatar_url {
        profile.insert("avatar_url".to_owned(), avatar_url.into());
    }
    Ok(profile)
}

fn to_row(profile: &Profile) -> ProfileRow {
    let text = |key: &str| profile.get(key).and_then(Value::as_str).map(str::to_owned);
    let is_other = |key: &String| !matches!(key.as_str(), "displayname" | "avatar_url");
    let others: Profile =
        profile.iter().filter(|(key, _)| is_other(key)).map(|(key, value)| (key.clone(), value.clone())).collect();
    ProfileRow {
        displayname: text("displayname"),
        avatar_url: text("avatar_url"),
        fields: Value::Object(others).to_string(),
    }
}
