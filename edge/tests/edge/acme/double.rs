//! A small authority for what pebble does not do: suggestions when to renew, profiles, limits and orders gone bad. It
//! believes every signature and verifies no name.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::CertificateSigningRequestParams;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::authority::TestCa;

/// What the double does with orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Issues.
    Issues,
    /// Says that it is asked too much, and to come back in two hours.
    Limits,
    /// Opens orders whose authorizations have been revoked.
    Revokes,
}

/// A running double.
pub(crate) struct Double {
    pub(crate) directory: String,
    ca: TestCa,
    base: String,
    mood: Mutex<Mood>,
    state: Mutex<State>,
    _folder: TempDir,
}

#[derive(Default)]
struct State {
    /// What was asked for, as it was asked.
    orders: Vec<Value>,
    certificates: HashMap<usize, String>,
    /// Certificates that were asked about.
    seen: HashSet<String>,
    /// Those that are to be renewed now.
    due: HashSet<String>,
}

impl Double {
    pub(crate) async fn start(mood: Mood) -> Arc<Self> {
        let folder = tempfile::tempdir().unwrap();
        let ca = TestCa::new(folder.path());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("https://{}", listener.local_addr().unwrap());
        let chain = CertificateDer::pem_file_iter(&ca.chain).unwrap().collect::<Result<_, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_file(&ca.key).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let tls = TlsAcceptor::from(Arc::new(tls.with_no_client_auth().with_single_cert(chain, key).unwrap()));
        let double = Arc::new(Self {
            directory: format!("{base}/directory"),
            ca,
            base,
            mood: Mutex::new(mood),
            state: Mutex::default(),
            _folder: folder,
        });
        let serving = double.clone();
        tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let (tls, double) = (tls.clone(), serving.clone());
                tokio::spawn(async move {
                    let Ok(stream) = tls.accept(tcp).await else { return };
                    let service = service_fn(move |request| double.clone().answer(request));
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        double
    }

    /// Lines for `[[tls.acme.authorities]]`.
    pub(crate) fn config(&self) -> String {
        format!("[[tls.acme.authorities]]\ndirectory = {:?}\nca_root = {:?}\n", self.directory, self.ca.file)
    }

    /// What it signs certificates with.
    pub(crate) fn root(&self) -> PathBuf {
        self.ca.file.clone()
    }

    /// The orders that it got.
    pub(crate) fn orders(&self) -> Vec<Value> {
        self.state.lock().unwrap().orders.clone()
    }

    /// Suggests that every certificate that was asked about is renewed now; the others in 2100.
    pub(crate) fn suggest_renewal(&self) {
        let mut state = self.state.lock().unwrap();
        state.due = state.seen.clone();
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let payload = serde_json::from_slice::<Value>(&body)
            .ok()
            .and_then(|jws| BASE64_URL_SAFE_NO_PAD.decode(jws["payload"].as_str()?).ok())
            .and_then(|payload| serde_json::from_slice(&payload).ok())
            .unwrap_or(Value::Null);
        let path = head.uri.path().to_owned();
        let (folder, rest) = path[1..].split_once('/').unwrap_or((&path[1..], ""));
        let reply = Response::builder().header("replay-nonce", "bm9uY2U").header("retry-after", "3600");
        let json = |reply: http::response::Builder, body: Value| reply.body(Full::from(body.to_string())).unwrap();
        let number = || rest.parse::<usize>().unwrap();
        Ok(match (&head.method, folder) {
            (_, "directory") => json(reply, self.describe()),
            (&Method::HEAD, "nonce") => reply.body(Full::default()).unwrap(),
            (_, "account") => json(
                reply.status(201).header("location", format!("{}/accounts/1", self.base)),
                json!({ "status": "valid" }),
            ),
            (_, "new-order") if *self.mood.lock().unwrap() == Mood::Limits => {
                let problem =
                    json!({ "type": "urn:ietf:params:acme:error:rateLimited", "detail": "too much", "status": 429 });
                let reply = Response::builder().header("replay-nonce", "bm9uY2U").header("retry-after", "7200");
                json(reply.status(429), problem)
            }
            (_, "new-order") => {
                let mut state = self.state.lock().unwrap();
                state.orders.push(payload);
                let number = state.orders.len() - 1;
                let location = format!("{}/order/{number}", self.base);
                json(reply.status(201).header("location", location), self.order(&state, number))
            }
            (_, "order") => json(reply, self.order(&self.state.lock().unwrap(), number())),
            (_, "authorization") => {
                let (order, name) = rest.split_once('/').unwrap();
                let identifier = &self.state.lock().unwrap().orders[order.parse::<usize>().unwrap()]["identifiers"];
                let status = if *self.mood.lock().unwrap() == Mood::Revokes { "revoked" } else { "valid" };
                let identifier = identifier[name.parse::<usize>().unwrap()].clone();
                json(reply, json!({ "identifier": identifier, "status": status, "challenges": [] }))
            }
            (_, "finalize") => {
                let chain = self.sign(payload["csr"].as_str().unwrap());
                let mut state = self.state.lock().unwrap();
                state.certificates.insert(number(), chain);
                json(reply, self.order(&state, number()))
            }
            (_, "certificate") => {
                let chain = self.state.lock().unwrap().certificates[&number()].clone();
                reply.body(Full::from(chain)).unwrap()
            }
            (&Method::GET, "renewal") => {
                let mut state = self.state.lock().unwrap();
                state.seen.insert(rest.to_owned());
                let year = if state.due.contains(rest) { 2020 } else { 2100 };
                let window =
                    json!({ "start": format!("{year}-01-01T00:00:00Z"), "end": format!("{year}-01-02T00:00:00Z") });
                json(reply, json!({ "suggestedWindow": window }))
            }
            _ => reply.status(404).body(Full::default()).unwrap(),
        })
    }

    fn describe(&self) -> Value {
        let at = |path: &str| format!("{}/{path}", self.base);
        json!({
            "newNonce": at("nonce"), "newAccount": at("account"), "newOrder": at("new-order"),
            "revokeCert": at("revoke"), "keyChange": at("key"), "renewalInfo": at("renewal"),
            "meta": { "profiles": { "shortlived": "six days" } },
        })
    }

    fn order(&self, state: &State, number: usize) -> Value {
        let asked = &state.orders[number];
        let names = asked["identifiers"].as_array().unwrap().len();
        let authorizations: Vec<String> =
            (0..names).map(|name| format!("{}/authorization/{number}/{name}", self.base)).collect();
        let revoked = *self.mood.lock().unwrap() == Mood::Revokes;
        let issued = state.certificates.contains_key(&number);
        let mut order = json!({
            "status": if revoked { "invalid" } else if issued { "valid" } else { "ready" },
            "authorizations": authorizations,
            "finalize": format!("{}/finalize/{number}", self.base),
            "certificate": issued.then(|| format!("{}/certificate/{number}", self.base)),
        });
        for key in ["replaces", "profile"] {
            if let Some(value) = asked.get(key) {
                order[key] = value.clone();
            }
        }
        order
    }

    fn sign(&self, csr: &str) -> String {
        let der = CertificateSigningRequestDer::from(BASE64_URL_SAFE_NO_PAD.decode(csr).unwrap());
        let mut request = CertificateSigningRequestParams::from_der(&der).unwrap();
        request.params.use_authority_key_identifier_extension = true;
        request.params.not_after = rcgen::date_time_ymd(2200, 1, 1);
        request.signed_by(&self.ca.issuer).unwrap().pem()
    }
}
