//! A certificate authority of this machine's own, so that development runs with real TLS.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gatehouse_shared::clock::Clock;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

use crate::config::CertificateFiles;
use crate::private_file;

/// Why the authority cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum DevelopmentCaError {
    /// The folder or a file in it cannot be read or written.
    #[error("cannot use {}", path.display())]
    Folder {
        /// What could not be used.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A name or the stored authority is not one.
    #[error("cannot make the certificate")]
    Certificate(#[from] rcgen::Error),
}

/// What the authority made.
#[derive(Debug, Clone)]
pub struct DevelopmentCa {
    /// The authority's own certificate, which clients are to trust.
    pub ca: PathBuf,
    /// The certificate that it signed, with its key.
    pub leaf: CertificateFiles,
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Makes the authority in `folder` (mode 0700, keys 0600) unless it is there, and signs a fresh certificate for `names`,
/// `localhost`, `127.0.0.1` and `::1`.
///
/// # Errors
/// When the folder cannot be used or a name is none.
pub fn prepare(folder: &Path, names: &[String], clock: &dyn Clock) -> Result<DevelopmentCa, DevelopmentCaError> {
    let path_of = |name: &str| folder.join(name);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(cannot_use(folder))?;
    let (ca, ca_key) = (path_of("ca.pem"), path_of("ca.key"));
    if !(ca.is_file() && ca_key.is_file()) {
        make_authority(&ca, &ca_key, clock)?;
    }
    let leaf = leaf(folder);
    let issuer_key = KeyPair::from_pem(&fs::read_to_string(&ca_key).map_err(cannot_use(&ca_key))?)?;
    let ca_pem = fs::read_to_string(&ca).map_err(cannot_use(&ca))?;
    let issuer = Issuer::from_ca_cert_pem(&ca_pem, issuer_key)?;
    let key = KeyPair::generate()?;
    let certificate = leaf_params(names, clock)?.signed_by(&key, &issuer)?;
    write_private(&leaf.key, &key.serialize_pem())?;
    write_private(&leaf.chain, &format!("{}{ca_pem}", certificate.pem()))?;
    Ok(DevelopmentCa { ca, leaf })
}

/// Where the certificate is that the authority in `folder` signed.
pub fn leaf(folder: &Path) -> CertificateFiles {
    CertificateFiles { chain: folder.join("localhost.pem"), key: folder.join("localhost.key") }
}

fn make_authority(ca: &Path, ca_key: &Path, clock: &dyn Clock) -> Result<(), DevelopmentCaError> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Gatehouse development CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = (clock.now() - DAY).into();
    params.not_after = (clock.now() + 3650 * DAY).into();
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    write_private(ca_key, &key.serialize_pem())?;
    write_private(ca, &certificate.pem())
}

fn leaf_params(names: &[String], clock: &dyn Clock) -> Result<CertificateParams, DevelopmentCaError> {
    let fixed = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let mut all: Vec<String> = names.iter().cloned().chain(fixed).collect();
    all.sort();
    all.dedup();
    let mut params = CertificateParams::new(all)?;
    params.distinguished_name.push(DnType::CommonName, "Gatehouse development");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    params.not_before = (clock.now() - DAY).into();
    // Clients refuse leaves that are valid for more than 825 days.
    params.not_after = (clock.now() + 365 * DAY).into();
    Ok(params)
}

fn write_private(path: &Path, text: &str) -> Result<(), DevelopmentCaError> {
    private_file::write(path, text.as_bytes()).map_err(cannot_use(path))
}

fn cannot_use(path: &Path) -> impl FnOnce(io::Error) -> DevelopmentCaError {
    let path = path.to_owned();
    move |source| DevelopmentCaError::Folder { path, source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use gatehouse_shared::clock::SystemClock;

    use super::*;
    use crate::listener::certificates::Certificate;

    #[test]
    fn the_authority_stays_and_its_keys_are_private() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("ca");
        let first = prepare(&state, &["matrix.test".to_owned()], &SystemClock).unwrap();
        let authority = fs::read(&first.ca).unwrap();
        let second = prepare(&state, &["other.test".to_owned()], &SystemClock).unwrap();
        assert_eq!(fs::read(&second.ca).unwrap(), authority);
        let names = Certificate::load(&second.leaf).unwrap().names().to_vec();
        assert_eq!(names, ["localhost", "other.test"]);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&state), 0o700);
        assert_eq!(mode(&second.leaf.key), 0o600);
        assert_eq!(mode(&state.join("ca.key")), 0o600);
    }
}
