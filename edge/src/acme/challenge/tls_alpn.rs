//! TLS-ALPN-01: the certificate that answers an authority's handshake (RFC 8737).

use std::sync::Arc;

use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::ChallengeError;

/// A certificate for `name` that holds the digest of the key authorization.
pub(super) fn certificate(name: &str, digest: &[u8]) -> Result<Arc<CertifiedKey>, ChallengeError> {
    let mut params = CertificateParams::new([name.to_owned()])?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let pair = KeyPair::generate()?;
    let chain = vec![params.self_signed(&pair)?.der().clone()];
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pair.serialize_der()));
    let key = aws_lc_rs::default_provider().key_provider.load_private_key(private)?;
    // `from_der` would parse the certificate and refuse its extension, which is critical and made for nobody else.
    Ok(Arc::new(CertifiedKey::new(chain, key)))
}
