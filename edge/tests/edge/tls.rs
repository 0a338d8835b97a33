//! Certificates by name, swapped while the edge runs.

use std::net::SocketAddr;
use std::sync::Arc;

use gatehouse::listener::development_ca;
use gatehouse_shared::clock::SystemClock;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{
    ClientConfig, DigitallySignedStruct, HandshakeKind, NamedGroup, ProtocolVersion, SupportedProtocolVersion,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use crate::client::{request, tls};
use crate::edge::{Edge, Options, patiently};

#[tokio::test]
async fn http1_and_http2_are_spoken_on_every_endpoint_with_tls() {
    let edge = Edge::start().await;
    for address in [edge.https, edge.federation] {
        for mut connection in [
            crate::client::Connection::http1(address, &edge.ca).await,
            crate::client::Connection::http2(address, &edge.ca).await,
        ] {
            for _ in 0..3 {
                let echo = connection.send(request("GET", "/_matrix/key/v2/server", "")).await.unwrap().json();
                assert_eq!(echo["shard"], "shard 0");
            }
        }
    }
}

#[tokio::test]
async fn a_certificate_is_chosen_by_name_and_swapped_by_sighup() {
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("other");
    let made = development_ca::prepare(&other, &["matrix.example".to_owned()], &SystemClock).unwrap();
    let (chain, key) = (made.leaf.chain.display(), made.leaf.key.display());
    let sections = format!("[[tls.certificates]]\nchain = \"{chain}\"\nkey = \"{key}\"\n");
    let edge = Edge::with(Options { shards: 1, sections: &sections, ..Options::default() }).await;
    // The certificate of the other authority holds this name, the edge's own holds only `localhost` …
    let first = certificate(&edge, &made.ca, "matrix.example").await;
    // … which both hold: the configured one comes first.
    assert_eq!(certificate(&edge, &made.ca, "localhost").await, first);

    development_ca::prepare(&other, &["matrix.example".to_owned()], &SystemClock).unwrap();
    edge.signal("HUP");
    patiently("the swap", async {
        while certificate(&edge, &made.ca, "matrix.example").await == first {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;

    std::fs::write(&made.leaf.key, "no key").unwrap();
    edge.signal("HUP");
    assert_eq!(edge.ask_via(&made.ca, "/_matrix/client/versions").await.status, 200);
}

async fn certificate(edge: &Edge, ca: &std::path::Path, name: &str) -> Vec<u8> {
    let stream = tls(edge.https, ca, name, &[b"http/1.1"]).await;
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

impl Edge {
    async fn ask_via(&self, ca: &std::path::Path, target: &str) -> crate::client::Answer {
        let mut connection = crate::client::Connection::http1(self.https, ca).await;
        connection.send(request("GET", target, "")).await.unwrap()
    }
}

/// What a handshake showed.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) version: ProtocolVersion,
    pub(crate) group: Option<NamedGroup>,
    pub(crate) resumed: bool,
}

/// Takes every certificate.
#[derive(Debug)]
struct TakesAll(Arc<CryptoProvider>);

impl ServerCertVerifier for TakesAll {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// A client that takes every certificate.
fn trusting_all(versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TakesAll(provider)))
        .with_no_client_auth()
}

/// Shakes hands under `name`, or under none, and says what was seen; or what the error says.
pub(crate) async fn look(address: SocketAddr, name: Option<&str>) -> Result<Seen, String> {
    look_with(address, name, &[b"http/1.1"]).await
}

/// Like [`look`], offering these protocols.
pub(crate) async fn look_with(address: SocketAddr, name: Option<&str>, protocols: &[&[u8]]) -> Result<Seen, String> {
    let mut config = trusting_all(rustls::ALL_VERSIONS);
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    shake(address, name, Arc::new(config)).await
}

async fn shake(address: SocketAddr, name: Option<&str>, config: Arc<ClientConfig>) -> Result<Seen, String> {
    let tcp = tokio::net::TcpStream::connect(address).await.unwrap();
    // An address is no name: the client then names nothing.
    let name = ServerName::try_from(name.unwrap_or("127.0.0.1").to_owned()).unwrap();
    let mut stream = TlsConnector::from(config).connect(name, tcp).await.map_err(|error| error.to_string())?;
    // Tickets and refusals of TLS 1.3 come after the handshake, before the answer.
    stream.write_all(b"GET /_matrix/client/versions HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut byte = [0];
    stream.read_exact(&mut byte).await.map_err(|error| error.to_string())?;
    let session = stream.get_ref().1;
    Ok(Seen {
        certificate: session.peer_certificates().unwrap()[0].clone().into_owned(),
        version: session.protocol_version().unwrap(),
        group: session.negotiated_key_exchange_group().map(|group| group.name()),
        resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
    })
}

#[tokio::test]
async fn the_key_exchange_is_post_quantum_and_both_versions_resume_by_ticket() {
    let edge = Edge::start().await;
    for (versions, version) in [
        (&[&rustls::version::TLS13][..], ProtocolVersion::TLSv1_3),
        (&[&rustls::version::TLS12][..], ProtocolVersion::TLSv1_2),
    ] {
        let config = Arc::new(trusting_all(versions));
        let first = shake(edge.https, Some("localhost"), config.clone()).await.unwrap();
        assert_eq!(first.version, version);
        if version == ProtocolVersion::TLSv1_3 {
            assert_eq!(first.group, Some(NamedGroup::X25519MLKEM768));
        }
        assert!(!first.resumed);
        // Also on the other endpoint: the tickets' keys are one edge's.
        for address in [edge.https, edge.federation] {
            assert!(shake(address, Some("localhost"), config.clone()).await.unwrap().resumed, "{version:?}");
        }
    }
}

#[tokio::test]
async fn an_unknown_name_gets_a_clean_alert_and_no_name_the_first_certificate() {
    let edge = Edge::start().await;
    for protocols in [&[&b"h2"[..]][..], &[&b"http/1.1"[..]][..]] {
        let error = look_with(edge.https, Some("unknown.example"), protocols).await.unwrap_err();
        assert!(error.contains("UnrecognisedName"), "{error}");
    }
    let named = look(edge.https, Some("localhost")).await.unwrap();
    assert_eq!(look(edge.https, None).await.unwrap().certificate, named.certificate);
    drop(edge);
    let edge = Edge::with(Options { shards: 1, sections: "[tls]\nunknown_names = \"first\"\n", ..Options::default() });
    let edge = edge.await;
    let named = look(edge.https, Some("localhost")).await.unwrap();
    assert_eq!(look(edge.https, Some("unknown.example")).await.unwrap().certificate, named.certificate);
}

#[tokio::test]
async fn a_changed_pair_is_noticed_and_a_broken_one_leaves_the_old() {
    let folder = tempfile::tempdir().unwrap();
    let made = development_ca::prepare(folder.path(), &["a.example".to_owned()], &SystemClock).unwrap();
    let (chain, key) = (made.leaf.chain.display(), made.leaf.key.display());
    let sections = format!("[[tls.certificates]]\nchain = \"{chain}\"\nkey = \"{key}\"\n");
    let edge = Edge::with(Options { shards: 1, sections: &sections, ..Options::default() }).await;
    let old = certificate(&edge, &made.ca, "a.example").await;
    // Half of a pair: its chain with the old key.
    let old_key = std::fs::read(&made.leaf.key).unwrap();
    development_ca::prepare(folder.path(), &["a.example".to_owned()], &SystemClock).unwrap();
    let new_key = std::fs::read(&made.leaf.key).unwrap();
    std::fs::write(&made.leaf.key, old_key).unwrap();
    patiently("the complaint", async {
        while !edge.log().contains("kept the one in use") {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(edge.log().contains("does not fit the certificate"), "{}", edge.log());
    assert_eq!(certificate(&edge, &made.ca, "a.example").await, old);
    std::fs::write(&made.leaf.key, new_key).unwrap();
    patiently("the swap", async {
        while certificate(&edge, &made.ca, "a.example").await == old {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// A client with a certificate of its own.
fn client_of(ca: &std::path::Path, issuer: &rcgen::Issuer<'_, rcgen::KeyPair>) -> ClientConfig {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["operator".to_owned()]).unwrap();
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.signed_by(&key, issuer).unwrap().der().clone();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots);
    config.with_client_auth_cert(vec![certificate], PrivatePkcs8KeyDer::from(key.serialize_der()).into()).unwrap()
}

fn authority() -> rcgen::CertifiedIssuer<'static, rcgen::KeyPair> {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap()
}

#[tokio::test]
async fn an_internal_address_serves_only_clients_with_a_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, others) = (authority(), authority());
    let client_ca = folder.path().join("clients.pem");
    std::fs::write(&client_ca, ours.pem()).unwrap();
    let sections = format!("[[listen.internal]]\naddress = \"127.0.0.1:0\"\nclient_ca = {client_ca:?}\n");
    let edge = Edge::with(Options { shards: 1, sections: &sections, ..Options::default() }).await;
    let (insider, outsider) = (Arc::new(client_of(&edge.ca, &ours)), Arc::new(client_of(&edge.ca, &others)));
    for _ in 0..2 {
        let seen = shake(edge.internal, Some("localhost"), insider.clone()).await.unwrap();
        assert!(!seen.resumed, "every connection proves its certificate anew");
    }
    let error = shake(edge.internal, Some("localhost"), outsider.clone()).await.unwrap_err();
    assert!(error.contains("UnknownCA") || error.contains("DecryptError"), "{error}");
    let error = look(edge.internal, Some("localhost")).await.unwrap_err();
    assert!(error.contains("CertificateRequired"), "{error}");
    // The authorities are watched too.
    std::fs::write(&client_ca, others.pem()).unwrap();
    patiently("the swap", async {
        while shake(edge.internal, Some("localhost"), outsider.clone()).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(shake(edge.internal, Some("localhost"), insider).await.is_err());
}
