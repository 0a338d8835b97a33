//! Everything that is kept: one thin database over two engines, and one file of statements per table family.
//!
//! [`db`] is the only folder that knows which engine runs. The other files hold SQL that is written once and runs on
//! both: `$1` parameters, `RETURNING`, `ON CONFLICT`, common table expressions; a list travels as one JSON array and is
//! unfolded by `json_each(CAST($1 AS TEXT))`.

pub mod access_tokens;
pub mod account_data;
pub mod db;
pub mod destinations;
pub mod device_keys;
pub mod device_lists;
pub mod devices;
pub mod directory;
pub mod event_cache;
pub mod events;
pub mod key_backup;
pub mod leases;
pub mod media;
pub mod memberships;
pub mod nid;
pub mod one_time_keys;
pub mod outbox;
pub mod presence;
pub mod profiles;
pub mod receipts;
pub mod received_transactions;
pub mod reports;
pub mod rooms;
pub mod server_keys;
pub mod servers;
pub mod state;
pub mod state_diff;
pub mod timeline;
pub mod to_device;
pub mod typing;
pub mod uia_sessions;
pub mod user_names;
pub mod users;

#[cfg(test)]
pub(crate) mod testing;

pub use db::{Db, DbConfig, DbError, Row, Snapshot, Stmt, Tx, Value};
pub use user_names::UserNames;
