//! A certificate authority for one test, for servers of other projects.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};

/// The files of an authority and of one certificate by it for `localhost` and `127.0.0.1`.
#[derive(Debug, Clone)]
pub struct TestCa {
    /// The authority's own certificate, PEM.
    pub ca: PathBuf,
    /// The server's certificate, PEM.
    pub chain: PathBuf,
    /// The server's key, PEM.
    pub key: PathBuf,
}

impl TestCa {
    /// Makes an authority and a certificate in `folder`.
    ///
    /// # Panics
    /// When the folder cannot be written.
    pub fn make(folder: &Path) -> Self {
        let files =
            Self { ca: folder.join("ca.pem"), chain: folder.join("server.pem"), key: folder.join("server.key") };
        let mut authority = CertificateParams::default();
        authority.distinguished_name.push(DnType::CommonName, "Test CA");
        authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let key = KeyPair::generate().expect("keys can be made");
        let authority = CertifiedIssuer::self_signed(authority, key).expect("the parameters are right");
        let names = ["localhost", "127.0.0.1"].map(str::to_owned);
        let mut server = CertificateParams::new(names).expect("the names are right");
        server.distinguished_name.push(DnType::CommonName, "A server of a test");
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        server.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().expect("keys can be made");
        let certificate = server.signed_by(&key, &authority).expect("the parameters are right");
        for (path, text) in
            [(&files.ca, authority.pem()), (&files.chain, certificate.pem()), (&files.key, key.serialize_pem())]
        {
            fs::write(path, text).expect("the temporary folder is writable");
        }
        files
    }
}
