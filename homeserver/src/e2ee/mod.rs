//! End-to-end encryption as far as a server takes part: it keeps public keys and gives them out, carries messages
//! between devices, and keeps backups that it cannot read.

mod cross_signing;
mod device_keys;
mod device_lists;
mod key_backup;
mod one_time_keys;
mod remote_users;
mod signatures;
mod to_device;

use std::sync::Arc;

use gatehouse_shared::clock::Clock;
use ruma::{DeviceId, OwnedServerName, UserId};

pub use self::{
    cross_signing::{SigningKeys, UploadSignaturesError, UploadSigningKeysError},
    device_keys::{KeyUpload, QueriedKeys, UploadKeysError},
    device_lists::{DeviceListOfUser, KeyChangesError, RemoteDeviceUpdate},
    key_backup::{BackupError, BackupInfo, BackupState, BackupWrite, SessionsOfRooms},
    one_time_keys::{ClaimedKeys, KeysOfDevices, WantedKeys},
    to_device::{SendToDeviceError, ToDeviceMessages},
};
pub use crate::storage::key_backup::Sessions;
use crate::{
    remote::FederationClient,
    storage::{Db, UserNames},
    stream::{Lane, Stream},
};

/// What [`E2ee`] is made of.
pub struct E2eeParts {
    pub db: Db,
    pub names: UserNames,
    pub lane: Lane,
    pub stream: Stream,
    pub server_name: OwnedServerName,
    pub clock: Arc<dyn Clock>,
}

/// Keys, to-device messages and key backups. Clones share everything.
#[derive(Clone)]
pub struct E2ee {
    parts: Arc<E2eeParts>,
    /// Without it every other server counts as one that cannot be asked.
    client: Option<FederationClient>,
}

/// The local device on whose behalf something is done.
#[derive(Clone, Copy, Debug)]
pub struct OwnDevice<'a> {
    pub user_id: &'a UserId,
    pub user_nid: i64,
    pub device_id: &'a DeviceId,
}

/// Who asks for keys; it decides which signatures and names are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker<'a> {
    /// A user of this server.
    Local { user_id: &'a UserId, user_nid: i64 },
    /// Another server, for all its users.
    Server,
}

impl E2ee {
    /// Knows this server's users only, until [`E2ee::asking`] names the way to the others.
    pub fn new(parts: E2eeParts) -> Self {
        Self { parts: Arc::new(parts), client: None }
    }

    fn is_local(&self, user_id: &UserId) -> bool {
        user_id.server_name() == self.parts.server_name
    }
}

/// Whether a name that a client or another server chose can be kept in a column of text.
fn is_storable(text: &str) -> bool {
    /// The specification's limit for identifiers, in bytes.
    const LONGEST: usize = 255;
    text.len() <= LONGEST && !text.contains('\0')
}

#[cfg(test)]
mod tests;
