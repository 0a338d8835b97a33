//! What ACME keeps between starts: accounts, certificates, and how their orders stand. All of it is private.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gatehouse_shared::hex::Hex;
use instant_acme::AccountCredentials;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::config::{AuthorityConfig, CertificateFiles};
use crate::listener::certificates::{Certificate, CertificateError};
use crate::private_file;

/// The state folder cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {} (tls.state_folder)", path.display())]
pub struct StoreError {
    path: PathBuf,
    source: io::Error,
}

/// A state folder.
#[derive(Debug, Clone)]
pub(crate) struct Store(PathBuf);

/// How the orders of a certificate stand. Times are seconds since the Unix epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Record {
    /// The directory of the authority that issued the certificate.
    pub(crate) directory: Option<String>,
    /// When it is to be renewed.
    pub(crate) renew_at: Option<u64>,
    /// Whether the authority suggested that moment.
    pub(crate) suggested: bool,
    /// Why the last order failed; nothing once one succeeded.
    pub(crate) failure: Option<String>,
    /// When the next order is tried after a failure.
    pub(crate) next_attempt: Option<u64>,
    /// Directories that asked not to be asked before.
    pub(crate) limited_until: BTreeMap<String, u64>,
}

/// One edge at a time orders into a folder; whoever holds this one is it.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Store {
    /// The folder at `path`, which may not be there yet.
    pub(crate) fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Makes the folder where it is missing and takes everyone else's access away.
    pub(crate) fn prepare(&self) -> Result<(), StoreError> {
        for folder in [self.0.clone(), self.0.join("accounts"), self.0.join("certificates")] {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
            made.and_then(|()| fs::set_permissions(&folder, Permissions::from_mode(0o700)))
                .map_err(|source| StoreError { path: folder.clone(), source })?;
        }
        Ok(())
    }

    /// `None` while another process holds it.
    pub(crate) fn lock(&self) -> Result<Option<Lock>, StoreError> {
        let path = self.0.join("lock");
        let open = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = open.map_err(|source| StoreError { path: path.clone(), source })?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(StoreError { path, source }),
        }
    }

    /// The account at an authority. One that cannot be read is as good as none: another is made.
    pub(crate) fn find_account(&self, authority: &AuthorityConfig) -> Option<AccountCredentials> {
        let text = fs::read(self.account(authority)).ok()?;
        serde_json::from_slice(&text).ok()
    }

    pub(crate) fn keep_account(
        &self,
        authority: &AuthorityConfig,
        account: &AccountCredentials,
    ) -> Result<(), StoreError> {
        let path = self.account(authority);
        let text = serde_json::to_vec_pretty(account)
            .map_err(|error| StoreError { path: path.clone(), source: io::Error::other(error) })?;
        write_private(&path, &text)
    }

    pub(crate) fn delete_account(&self, authority: &AuthorityConfig) -> Result<(), StoreError> {
        let path = self.account(authority);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(StoreError { path, source }),
            _ => Ok(()),
        }
    }

    /// The certificate that was stored last. Key and chain are one file, so they always belong together.
    pub(crate) fn find_certificate(&self, first_name: &str) -> Result<Option<Certificate>, CertificateError> {
        let path = self.certificate(first_name);
        if !path.exists() {
            return Ok(None);
        }
        Certificate::load(&CertificateFiles { chain: path.clone(), key: path }).map(Some)
    }

    pub(crate) fn keep_certificate(&self, first_name: &str, chain: &str, key: &str) -> Result<(), StoreError> {
        write_private(&self.certificate(first_name), format!("{}\n{chain}", key.trim_end()).as_bytes())
    }

    /// How the orders stand; nothing is known where there is no record.
    pub(crate) fn find_record(&self, first_name: &str) -> Record {
        let text = fs::read(self.certificate(first_name).with_extension("json")).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    pub(crate) fn keep_record(&self, first_name: &str, record: &Record) -> Result<(), StoreError> {
        if self.find_record(first_name) == *record {
            return Ok(());
        }
        let path = self.certificate(first_name).with_extension("json");
        let text = serde_json::to_vec_pretty(record)
            .map_err(|error| StoreError { path: path.clone(), source: io::Error::other(error) })?;
        write_private(&path, &text)
    }

    /// Key and chain of the certificate that begins with this name.
    pub(crate) fn certificate(&self, first_name: &str) -> PathBuf {
        let mut file = first_name.replace('*', "_").replace(':', "-");
        file.push_str(".pem");
        self.0.join("certificates").join(file)
    }

    /// Accounts are told apart by directory and by what they are bound to.
    fn account(&self, authority: &AuthorityConfig) -> PathBuf {
        let bound_to = authority.external_account.as_ref().map_or("", |account| account.kid.as_str());
        let digest =
            Sha256::new().chain_update(&authority.directory).chain_update([0]).chain_update(bound_to).finalize();
        let id = Hex::<16>::of(&digest);
        self.0.join("accounts").join(format!("{id}.json"))
    }
}

/// Seconds since the Unix epoch.
pub(crate) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The moment so many seconds after the Unix epoch.
pub(crate) fn moment(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn write_private(path: &Path, text: &[u8]) -> Result<(), StoreError> {
    private_file::write(path, text).map_err(|source| StoreError { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_private_and_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(&folder.path().join("state"));
        store.prepare().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["*.example.org".to_owned()]).unwrap();
        let chain = params.self_signed(&key).unwrap().pem();
        assert!(store.find_certificate("*.example.org").unwrap().is_none());
        store.keep_certificate("*.example.org", &chain, &key.serialize_pem()).unwrap();
        assert_eq!(store.find_certificate("*.example.org").unwrap().unwrap().names(), ["*.example.org"]);
        let record = Record { renew_at: Some(7), ..Record::default() };
        store.keep_record("*.example.org", &record).unwrap();
        assert_eq!(store.find_record("*.example.org"), record);
        assert_eq!(store.find_record("other.example"), Record::default());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder.path().join("state")), 0o700);
        for entry in fs::read_dir(folder.path().join("state/certificates")).unwrap() {
            assert_eq!(mode(&entry.unwrap().path()), 0o600);
        }
    }

    #[test]
    fn one_holds_the_lock_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path());
        let held = store.lock().unwrap().unwrap();
        assert!(store.lock().unwrap().is_none());
        drop(held);
        assert!(store.lock().unwrap().is_some());
    }
}
