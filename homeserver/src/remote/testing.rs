//! Peers for tests: an authority, servers with its certificates on loopback, and a DNS server.

use std::{collections::HashMap, net::SocketAddr, path::PathBuf, sync::Arc};

use gatehouse_shared::clock::Clock;
use hickory_resolver::proto::{
    op::{Message, OpCode, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::{TcpListener, UdpSocket};

use super::{Destinations, FederationClient, RemoteConfig, SigningKey};
use crate::storage::{Db, DbConfig};

/// An authority of certificates, and the folder that holds everything of a test.
pub(crate) struct TestAuthority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

impl TestAuthority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, folder }
    }

    pub(crate) fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A configuration that trusts this authority and may call loopback.
    pub(crate) fn config(&self) -> RemoteConfig {
        RemoteConfig {
            is_enabled: true,
            extra_ca_files: vec![self.ca_file()],
            allowed_private_addresses: vec!["127.0.0.0/8".parse().unwrap()],
            ..RemoteConfig::default()
        }
    }

    pub(crate) async fn db(&self, name: &str) -> Db {
        Db::open(&DbConfig::Sqlite { path: self.folder.path().join(name), readers: 2 }).await.unwrap()
    }

    pub(crate) fn key(&self, server_name: &str) -> SigningKey {
        let path = self.folder.path().join(format!("{}.key", server_name.replace(':', "-")));
        SigningKey::open(&path, server_name.try_into().unwrap(), &RemoteConfig::default()).unwrap()
    }

    pub(crate) fn client(&self, db: Db, key: SigningKey, clock: Arc<dyn Clock>) -> FederationClient {
        FederationClient::new(&self.config(), key, Destinations::new(db, clock.clone()), clock).unwrap()
    }

    /// Serves `router` over TLS with a certificate for `names`, on a free port of loopback, until the test ends.
    pub(crate) async fn serve(&self, names: &[&str], router: axum::Router) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        self.serve_on(listener, names, router)
    }

    pub(crate) fn serve_on(&self, listener: TcpListener, names: &[&str], router: axum::Router) -> SocketAddr {
        let address = listener.local_addr().unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, router) = (acceptor.clone(), router.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = TowerToHyperService::new(router);
                    let _ =
                        auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        address
    }
}

/// A DNS server on loopback that answers from a table, until the test ends.
pub(crate) struct TestDns {
    records: HashMap<(String, RecordType), Vec<RData>>,
}

impl TestDns {
    pub(crate) fn new() -> Self {
        Self { records: HashMap::new() }
    }

    pub(crate) fn address(mut self, name: &str, address: [u8; 4]) -> Self {
        let [a, b, c, d] = address;
        let record = RData::A(rdata::A::new(a, b, c, d));
        self.records.entry((format!("{name}."), RecordType::A)).or_default().push(record);
        self
    }

    pub(crate) fn service(mut self, name: &str, priority: u16, port: u16, target: &str) -> Self {
        let target = Name::from_ascii(target).unwrap();
        let record = RData::SRV(rdata::SRV::new(priority, 0, port, target));
        self.records.entry((format!("{name}."), RecordType::SRV)).or_default().push(record);
        self
    }

    pub(crate) async fn serve(self) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let Ok(question) = Message::from_vec(&buffer[..length]) else { continue };
                let answer = self.answer(&question).to_vec().unwrap();
                let _ = socket.send_to(&answer, from).await;
            }
        });
        address
    }

    fn answer(&self, question: &Message) -> Message {
        let mut answer = Message::response(question.metadata.id, OpCode::Query);
        answer.metadata.recursion_available = true;
        answer.add_queries(question.queries.clone());
        let Some(query) = question.queries.first() else { return answer };
        let name = query.name().to_ascii().to_ascii_lowercase();
        match self.records.get(&(name.clone(), query.query_type())) {
            Some(records) => {
                let of = |data: &RData| Record::from_rdata(query.name().clone(), 60, data.clone());
                answer.add_answers(records.iter().map(of));
            }
            None if self.records.keys().any(|(known, _)| *known == name) => {}
            None => answer.metadata.response_code = ResponseCode::NXDomain,
        }
        answer
    }
}
