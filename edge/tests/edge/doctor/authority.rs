//! A certificate authority with an intermediate, as the public ones have.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use gatehouse_shared::clock::{Clock, SystemClock};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;

pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A certificate with its chain and key.
#[derive(Clone)]
pub(super) struct Issued {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) chain_pem: String,
    pub(super) key_pem: String,
}

impl Issued {
    pub(super) fn key(&self) -> PrivateKeyDer<'static> {
        use rustls_pki_types::pem::PemObject;
        PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).unwrap()
    }
}

/// The authority; its root is in a file.
pub(super) struct Authority {
    folder: TempDir,
    root_pem: String,
    intermediate_pem: String,
    intermediate: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
    intermediate_der: CertificateDer<'static>,
}

impl Authority {
    pub(super) fn new(name: &str) -> Self {
        let root_key = KeyPair::generate().unwrap();
        let root_params = authority_params(&format!("{name} root"));
        let root = root_params.self_signed(&root_key).unwrap();
        let root_issuer = Issuer::new(root_params, root_key);
        let key = KeyPair::generate().unwrap();
        let params = authority_params(&format!("{name} intermediate"));
        let certificate = params.signed_by(&key, &root_issuer).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("root.pem"), root.pem()).unwrap();
        Self {
            folder,
            root_pem: root.pem(),
            intermediate_pem: certificate.pem(),
            intermediate: Issuer::new(params, key),
            root: root.der().clone(),
            intermediate_der: certificate.der().clone(),
        }
    }

    /// The file to trust.
    pub(super) fn file(&self) -> PathBuf {
        self.folder.path().join("root.pem")
    }

    /// A certificate for these names that lives from now on, with the intermediate.
    pub(super) fn issue(&self, names: &[&str]) -> Issued {
        let now = SystemClock.now();
        self.issue_for(names, now - DAY, now + 60 * DAY)
    }

    pub(super) fn issue_for(&self, names: &[&str], from: SystemTime, to: SystemTime) -> Issued {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, "a server");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        (params.not_before, params.not_after) = (from.into(), to.into());
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.intermediate).unwrap();
        Issued {
            chain: vec![leaf.der().clone(), self.intermediate_der.clone()],
            chain_pem: format!("{}{}", leaf.pem(), self.intermediate_pem),
            key_pem: key.serialize_pem(),
        }
    }

    /// Adds the root to a chain, as some servers send it.
    pub(super) fn with_root(&self, mut issued: Issued) -> Issued {
        issued.chain.push(self.root.clone());
        issued.chain_pem.push_str(&self.root_pem);
        issued
    }
}

fn authority_params(name: &str) -> CertificateParams {
    let now = SystemClock.now();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    (params.not_before, params.not_after) = ((now - 1000 * DAY).into(), (now + 1000 * DAY).into());
    params
}
