//! Keeps a second shard off a SQLite file.

use std::{
    fs::{File, OpenOptions, TryLockError},
    path::Path,
};

use super::DbError;

/// Held by the one shard that runs on a SQLite file; the system lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub struct DbLock {
    file: File,
}

impl DbLock {
    /// Locks `<database>.lock`. Programs that only open the database beside the shard, such as `user create`, do not.
    ///
    /// # Errors
    /// [`DbError::Locked`] while another process holds it, [`DbError::Open`] when the file cannot be made.
    pub fn take(database: &Path) -> Result<Self, DbError> {
        let mut path = database.as_os_str().to_owned();
        path.push(".lock");
        let open_error =
            |source: std::io::Error| DbError::Open { path: Path::new(&path).to_owned(), source: source.into() };
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(open_error)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { file }),
            Err(TryLockError::WouldBlock) => Err(DbError::Locked { path: database.to_owned() }),
            Err(TryLockError::Error(error)) => Err(open_error(error)),
        }
    }
}

impl Drop for DbLock {
    fn drop(&mut self) {
        // Closing is not enough: a program that is being started at this moment still has the descriptor until it runs.
        if let Err(error) = self.file.unlock() {
            tracing::warn!(%error, "the database's lock ends only with the process");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_until_the_first_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("shard.db");
        let first = DbLock::take(&database).unwrap();
        assert!(matches!(DbLock::take(&database), Err(DbError::Locked { path }) if path == database));
        drop(first);
        DbLock::take(&database).unwrap();
    }
}
