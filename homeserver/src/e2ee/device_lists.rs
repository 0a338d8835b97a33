//! Whose devices changed: for clients that ask, for other servers, and from other servers.

use std::sync::Arc;

use ruma::{
    OwnedDeviceId, OwnedUserId, UserId,
    encryption::{CrossSigningKey, DeviceKeys},
    serde::Raw,
};

use super::{Asker, E2ee, SigningKeys, cross_signing::remote_rows, is_storable};
use crate::{
    storage::{
        DbError,
        device_keys::{self, DeviceKeysRow},
        device_lists::{self, RemoteList},
    },
    stream::{Change, CommitError, Positions, Write},
};

/// Why changes between two tokens cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum KeyChangesError {
    #[error("the token {0} is none of this server")]
    Token(&'static str),
    #[error(transparent)]
    Db(#[from] DbError),
}

/// All devices of a user, as servers tell each other.
#[derive(Clone, Debug)]
pub struct DeviceListOfUser {
    pub stream_id: i64,
    /// With the name that others may see, and identity keys where there are some.
    pub devices: Vec<(OwnedDeviceId, Option<String>, Option<Raw<DeviceKeys>>)>,
    pub master_key: Option<Raw<CrossSigningKey>>,
    pub self_signing_key: Option<Raw<CrossSigningKey>>,
}

/// An `m.device_list_update` EDU.
#[derive(Clone, Debug)]
pub struct RemoteDeviceUpdate {
    pub user_id: OwnedUserId,
    pub device_id: OwnedDeviceId,
    pub device_display_name: Option<String>,
    pub stream_id: i64,
    pub prev_id: Vec<i64>,
    pub deleted: bool,
    pub keys: Option<Raw<DeviceKeys>>,
}

impl E2ee {
    /// The users whose devices changed between two sync tokens, and those who share no room with the user any more.
    ///
    /// # Errors
    /// See [`KeyChangesError`].
    pub async fn key_changes(
        &self,
        user_nid: i64,
        from: &str,
        to: &str,
    ) -> Result<(Vec<OwnedUserId>, Vec<OwnedUserId>), KeyChangesError> {
        let from: Positions = token(from).map_err(|_| KeyChangesError::Token("from"))?;
        let to: Positions = token(to).map_err(|_| KeyChangesError::Token("to"))?;
        self.parts.stream.catch_up(&to).await?;
        let mut snapshot = self.parts.db.snapshot().await?;
        let (from, to) = (from.by_lane_number(), to.by_lane_number());
        let changes = device_lists::device_list_changes(&mut snapshot, user_nid, &from, &to).await?;
        drop(snapshot);
        Ok((self.parts.names.names(&changes.changed).await?, self.parts.names.names(&changes.left).await?))
    }

    /// All devices of a local user for another server; none when there is no such user.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn devices_of(&self, user_id: &UserId) -> Result<Option<DeviceListOfUser>, DbError> {
        if !self.is_local(user_id) {
            return Ok(None);
        }
        let Some(user_nid) = self.parts.names.find(user_id).await? else { return Ok(None) };
        let mut snapshot = self.parts.db.snapshot().await?;
        let (stream_id, rows) = device_lists::list_devices(&mut snapshot, user_nid).await?;
        drop(snapshot);
        let mut keys = self.device_keys_of(Asker::Server, &[user_id.to_owned()]).await?;
        let mut with_signatures = keys.device_keys.remove(user_id).unwrap_or_default();
        let devices = rows
            .into_iter()
            .map(|row| {
                let device_id = OwnedDeviceId::from(row.device_id);
                let keys = with_signatures.remove(&device_id);
                // Names of devices are for the server's own users.
                (device_id, None, keys)
            })
            .collect();
        Ok(Some(DeviceListOfUser {
            stream_id,
            devices,
            master_key: keys.master_keys.remove(user_id),
            self_signing_key: keys.self_signing_keys.remove(user_id),
        }))
    }

    /// Takes another server's word for one device of its user. An update that does not follow the one before makes
    /// the stored list doubtful, and the next query fetches it anew.
    ///
    /// The caller has checked that the sender's server is the user's.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn receive_device_list_update(&self, update: &RemoteDeviceUpdate) -> Result<(), CommitError> {
        let user_nid = self.parts.names.nid(&update.user_id).await.map_err(Arc::new)?;
        let list = device_lists::find_remote(&self.parts.db, user_nid).await.map_err(Arc::new)?;
        if list.is_none() && !device_lists::is_seen_by_local_users(&self.parts.db, user_nid).await.map_err(Arc::new)? {
            return Ok(());
        }
        let follows = |list: &RemoteList| {
            list.is_current
                && update.stream_id > list.stream_id
                && update.prev_id.iter().all(|id| *id <= list.stream_id)
        };
        let device = remote_device(user_nid, update);
        if let (Some(list), Some(device)) = (list.filter(follows), &device) {
            let change = if update.deleted {
                device_keys::delete_remote(user_nid, &device.device_id)
            } else {
                device_keys::upsert_remote(device)
            };
            let write = Write {
                guard: Some(device_lists::advance_remote(user_nid, list.stream_id, update.stream_id).into()),
                statements: vec![change, device_lists::changed(user_nid)],
                changes: vec![Change::Devices { user: user_nid }],
            };
            match self.parts.lane.commit(write).await {
                // Another update came in between: then this one may not follow.
                Err(CommitError::Conflict) => {}
                result => return result.map(|_| ()),
            }
        } else if list.is_some_and(|list| list.is_current && update.stream_id <= list.stream_id) {
            // Seen before.
            return Ok(());
        }
        let write = Write {
            guard: None,
            statements: vec![device_lists::doubt_remote(user_nid), device_lists::changed(user_nid)],
            changes: vec![Change::Devices { user: user_nid }],
        };
        self.parts.lane.commit(write).await.map(|_| ())
    }

    /// Stores a remote user's whole device list as its server told it, asked when this shard knew `asked_at`. It is
    /// followed, and not asked for again, for as long as a room is shared since then.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn store_device_list(
        &self,
        user_id: &UserId,
        list: DeviceListOfUser,
        asked_at: &Positions,
    ) -> Result<(), CommitError> {
        let user_nid = self.parts.names.nid(user_id).await.map_err(Arc::new)?;
        let mut write = Write { changes: vec![Change::Devices { user: user_nid }], ..Write::default() };
        write.statements.push(device_keys::delete_all_remote(user_nid));
        for (device_id, device_display_name, keys) in list.devices {
            let update = RemoteDeviceUpdate {
                user_id: user_id.to_owned(),
                device_id,
                device_display_name,
                stream_id: list.stream_id,
                prev_id: Vec::new(),
                deleted: false,
                keys,
            };
            write.statements.extend(remote_device(user_nid, &update).as_ref().map(device_keys::upsert_remote));
        }
        let keys = SigningKeys {
            master_key: list.master_key,
            self_signing_key: list.self_signing_key,
            user_signing_key: None,
        };
        let rows = remote_rows(user_id, user_nid, &keys);
        write.statements.extend(rows.iter().map(device_keys::upsert_cross_signing));
        write.statements.push(device_lists::upsert_remote(user_nid, list.stream_id, &asked_at.by_lane_number()));
        self.parts.lane.commit(write).await.map(|_| ())
    }
}

/// The row of a remote device; none when its name or keys cannot be kept.
fn remote_device(user_nid: i64, update: &RemoteDeviceUpdate) -> Option<DeviceKeysRow> {
    let device_id = update.device_id.as_str();
    if !is_storable(device_id) {
        return None;
    }
    let json = match &update.keys {
        None => None,
        Some(keys) => {
            let typed: DeviceKeys = keys.deserialize().ok()?;
            if typed.user_id != update.user_id || typed.device_id != update.device_id {
                return None;
            }
            let mut object: ruma::CanonicalJsonObject = serde_json::from_str(keys.json().get()).ok()?;
            object.remove("unsigned");
            Some(serde_json::to_string(&object).ok()?)
        }
    };
    let display_name = update.device_display_name.as_deref().map(|name| name.replace('\0', ""));
    Some(DeviceKeysRow { user_nid, device_id: device_id.to_owned(), display_name, json })
}

/// A sync token, or the part of it that is a position.
fn token(text: &str) -> Result<Positions, crate::stream::ParsePositionsError> {
    let (positions, _watermark) = text.split_once('~').unwrap_or((text, ""));
    positions.parse()
}
