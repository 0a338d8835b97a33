//! Local users: who they are, how they prove it, and their devices.

use crate::storage::Db;

/// The accounts of this server. Clones share everything.
#[derive(Clone)]
pub struct Accounts {
    #[expect(dead_code, reason = "the next commit fills this room")]
    db: Db,
}
