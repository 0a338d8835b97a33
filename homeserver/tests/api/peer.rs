//! Another server, as far as a test needs one: it publishes its key, signs requests, and counts what it is asked.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{Json, Router};
use gatehouse_homeserver::config::Config;
use gatehouse_test_support::tls::TestCa;
use http::{Request, StatusCode};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use ruma::{
    CanonicalJsonObject, OwnedServerName,
    api::federation::authentication::{XMatrix, XMatrixSigningInput},
    serde::{Base64, base64::Standard},
    signatures::{Ed25519KeyPair, sign_json},
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::harness::{BEGINNING, SERVER_NAME};

/// A server on a port of loopback, until the test ends.
pub(crate) struct Peer {
    pub(crate) name: OwnedServerName,
    pair: Arc<Ed25519KeyPair>,
    asked: Arc<AtomicUsize>,
    ca: PathBuf,
    _folder: tempfile::TempDir,
}

impl Peer {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files = TestCa::make(folder.path());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let pair = Ed25519KeyPair::from_der(&Ed25519KeyPair::generate(), "peer".to_owned()).unwrap();
        let (pair, asked) = (Arc::new(pair), Arc::new(AtomicUsize::new(0)));
        let router = {
            let (pair, asked) = (pair.clone(), asked.clone());
            Router::new().fallback(move |request: Request<axum::body::Body>| {
                asked.fetch_add(1, Ordering::SeqCst);
                let (status, body) = match request.uri().path() {
                    "/_matrix/key/v2/server" => (StatusCode::OK, key_document(address, &pair)),
                    _ => (StatusCode::NOT_FOUND, json!({ "errcode": "M_NOT_FOUND", "error": "nothing is here" })),
                };
                async move { (status, Json(body)) }
            })
        };
        tokio::spawn(serve(listener, acceptor(&files), router));
        Self { name: address.to_string().try_into().unwrap(), pair, asked, ca: files.ca, _folder: folder }
    }

    /// Lets a shard call this server.
    pub(crate) fn permit(&self, config: &mut Config) {
        config.federation.ca_file = Some(self.ca.clone());
        config.federation.allowed_ranges = vec!["127.0.0.0/8".parse().unwrap()];
    }

    /// The header by which this server signs a request to the shard.
    pub(crate) fn signature(&self, method: &str, target: &str, body: Option<&Value>) -> String {
        let body = body.map_or_else(Vec::new, |body| body.to_string().into_bytes());
        let request = Request::builder().method(method).uri(target).body(body).unwrap();
        let input = XMatrixSigningInput::new(self.name.clone(), SERVER_NAME.try_into().unwrap(), &self.pair);
        let header = http::HeaderValue::from(&XMatrix::sign_http_request(&request, input).unwrap());
        header.to_str().unwrap().to_owned()
    }

    /// How many requests came.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn key_document(address: SocketAddr, pair: &Ed25519KeyPair) -> Value {
    let key = Base64::<Standard, _>::new(pair.public_key().to_vec()).encode();
    let document = json!({
        "server_name": address.to_string(),
        "valid_until_ts": BEGINNING + 24 * 60 * 60 * 1000,
        "verify_keys": { "ed25519:peer": { "key": key } },
        "old_verify_keys": {},
    });
    let mut document: CanonicalJsonObject = serde_json::from_value(document).unwrap();
    sign_json(&address.to_string(), pair, &mut document).unwrap();
    serde_json::to_value(document).unwrap()
}

fn acceptor(files: &TestCa) -> tokio_rustls::TlsAcceptor {
    let chain = CertificateDer::pem_file_iter(&files.chain).unwrap().collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(&files.key).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    Arc::new(config).into()
}

async fn serve(listener: TcpListener, acceptor: tokio_rustls::TlsAcceptor, router: Router) {
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, router) = (acceptor.clone(), router.clone());
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = TowerToHyperService::new(router);
            let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
