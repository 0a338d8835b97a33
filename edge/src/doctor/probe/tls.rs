//! Shakes hands with whoever is there and reports what it showed, also when nobody should trust it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::server::ParsedCertificate;
use rustls::{AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Certificate;

use crate::doctor::observed::{CertificateSeen, Failure, TlsSeen, Trust};

/// How long a handshake may take, in seconds.
const WITHIN: u64 = 10;
/// Certificates of a chain that are looked at.
const LONGEST_CHAIN: usize = 16;

/// Decides whom to trust: the operating system's authorities, and those given.
#[derive(Clone)]
pub(crate) struct Verifier {
    inner: Arc<dyn ServerCertVerifier>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    pub(crate) fn new(authorities: Vec<CertificateDer<'static>>, provider: Arc<CryptoProvider>) -> Result<Self, Error> {
        let inner = rustls_platform_verifier::Verifier::new_with_extra_roots(authorities, provider.clone())?;
        Ok(Self { inner: Arc::new(inner), provider })
    }

    /// Shakes hands as `host`, offering `protocol` alone.
    pub(crate) async fn shake_hands(
        &self,
        tcp: TcpStream,
        host: &str,
        protocol: &'static str,
    ) -> (Option<TlsSeen>, Result<TlsStream<TcpStream>, Failure>) {
        let Ok(name) = name_of(host) else {
            return (None, Err(Failure::Tls(format!("{host} is no name for a certificate"))));
        };
        let recorder = Arc::new(Recorder { verifier: self.clone(), seen: Mutex::new(None) });
        let versions = ClientConfig::builder_with_provider(self.provider.clone()).with_safe_default_protocol_versions();
        let mut config = match versions {
            Ok(builder) => builder.dangerous().with_custom_certificate_verifier(recorder.clone()).with_no_client_auth(),
            Err(error) => return (None, Err(Failure::Tls(error.to_string()))),
        };
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        let handshake = TlsConnector::from(Arc::new(config)).connect(name, tcp);
        let shaken = tokio::time::timeout(Duration::from_secs(WITHIN), handshake).await;
        let presented = recorder.seen.lock().take();
        let seen = |version: String| presented.map(|presented| presented.describe(host, version));
        match shaken {
            Ok(Ok(stream)) => {
                let version =
                    stream.get_ref().1.protocol_version().map_or_else(String::new, |version| format!("{version:?}"));
                (seen(version.replace("TLSv1_", "TLS 1.")), Ok(stream))
            }
            Ok(Err(error)) => (seen(String::new()), Err(tls_failure(&error, protocol))),
            Err(_) => (seen(String::new()), Err(Failure::TlsTimeout(WITHIN))),
        }
    }
}

fn tls_failure(error: &std::io::Error, protocol: &'static str) -> Failure {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match inner {
        Some(Error::AlertReceived(AlertDescription::NoApplicationProtocol)) => Failure::NotSpoken(protocol),
        _ => Failure::Tls(error.to_string()),
    }
}

fn name_of(host: &str) -> Result<ServerName<'static>, ()> {
    match super::document::literal(host) {
        Some(address) => Ok(ServerName::IpAddress(address.into())),
        None => ServerName::try_from(host.to_owned()).map_err(|_| ()),
    }
}

/// What was presented, and what the authorities make of it.
#[derive(Debug)]
struct Presented {
    chain: Vec<CertificateSeen>,
    trust: Trust,
    holds_name: bool,
}

impl Presented {
    fn describe(self, asked: &str, version: String) -> TlsSeen {
        let Self { chain, trust, holds_name } = self;
        TlsSeen { asked: asked.to_owned(), chain, trust, holds_name, version }
    }
}

/// Lets every certificate pass and keeps what the true verifier says of it. Only the doctor connects like this: it sends
/// nothing secret, and it is after just those who present what is invalid.
struct Recorder {
    verifier: Verifier,
    seen: Mutex<Option<Presented>>,
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder").finish_non_exhaustive()
    }
}

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain: Vec<CertificateSeen> =
            std::iter::once(leaf).chain(intermediates).take(LONGEST_CHAIN).filter_map(described).collect();
        let holds_name =
            ParsedCertificate::try_from(leaf).is_ok_and(|parsed| verify_server_name(&parsed, name).is_ok());
        // An expired leaf is found by its own dates. Here it is asked what the chain was worth while the leaf lived.
        let lived = chain.first().map_or(now, |leaf| while_it_lived(leaf, now));
        let trust = match self.verifier.inner.verify_server_cert(leaf, intermediates, name, ocsp, lived) {
            Ok(_) => Trust::Trusted,
            // In the past, a certificate that came later says nothing about today.
            Err(error) if lived != now && is_too_early(&error) => Trust::Trusted,
            Err(error) => trust_of(error),
        };
        *self.seen.lock() = Some(Presented { chain, trust, holds_name });
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.inner.supported_verify_schemes()
    }
}

fn while_it_lived(leaf: &CertificateSeen, now: UnixTime) -> UnixTime {
    let now_seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let lived = now_seconds.min(leaf.not_after).max(leaf.not_before);
    u64::try_from(lived).map_or(now, |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
}

fn is_too_early(error: &Error) -> bool {
    let early = |error: &CertificateError| {
        matches!(error, CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. })
    };
    matches!(error, Error::InvalidCertificate(error) if early(error))
}

fn trust_of(error: Error) -> Trust {
    let Error::InvalidCertificate(error) = error else { return Trust::Other(error.to_string()) };
    match error {
        // The chain is looked at before the name, so it is fine.
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => Trust::Trusted,
        CertificateError::UnknownIssuer => Trust::UnknownIssuer,
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => Trust::Expired,
        other => Trust::Other(Error::InvalidCertificate(other).to_string()),
    }
}

pub(crate) fn described(der: &CertificateDer<'_>) -> Option<CertificateSeen> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    Some(CertificateSeen {
        subject: certificate.subject().to_string(),
        issuer: certificate.issuer().to_string(),
        names: names_of(&certificate),
        not_before: certificate.validity().not_before.timestamp(),
        not_after: certificate.validity().not_after.timestamp(),
        is_self_issued: certificate.subject() == certificate.issuer(),
    })
}

fn names_of(certificate: &X509Certificate<'_>) -> Vec<String> {
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let names = alternative.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
        },
        _ => None,
    };
    names.iter().filter_map(text).collect()
}
