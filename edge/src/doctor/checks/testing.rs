//! A server with which nothing is wrong, for the tests to spoil.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use http::HeaderMap;
use rcgen::{KeyPair, PKCS_ED25519, SigningKey as _};
use serde_json::{Value, json};

use super::super::canonical_json::signed_bytes;
use super::super::discovery::{Route, Target};
use super::super::finding::Verdict;
use super::super::observed::{
    Answer, CertificateSeen, ClientApi, End, Endpoint, Expected, Fetch, HostRecords, Http2, Lookup, Observed, Service,
    Services, TlsSeen, Trust,
};

/// The time of these tests, in seconds.
pub(super) const NOW: i64 = 1_800_000_000;
const DAY: i64 = 24 * 60 * 60;

pub(super) fn ids(verdict: &Verdict) -> Vec<&'static str> {
    verdict.findings.iter().map(|finding| finding.id).collect()
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(NOW.unsigned_abs())
}

pub(super) fn answer(status: u16, body: &str) -> Answer {
    let date = httpdate::fmt_http_date(now()).parse().unwrap();
    let headers = HeaderMap::from_iter([(http::header::DATE, date)]);
    Answer { status, headers, body: body.as_bytes().to_vec(), is_cut: false, at: now() }
}

pub(super) fn tls(asked: &str) -> TlsSeen {
    let leaf = CertificateSeen {
        subject: format!("CN={asked}"),
        issuer: "CN=Intermediate".to_owned(),
        names: vec![asked.to_owned()],
        not_before: NOW - 30 * DAY,
        not_after: NOW + 60 * DAY,
        is_self_issued: false,
    };
    let version = "TLS 1.3".to_owned();
    TlsSeen { asked: asked.to_owned(), chain: vec![leaf], trust: Trust::Trusted, holds_name: true, version }
}

pub(super) fn fetch(url: &str, answer: Answer) -> Fetch {
    let address = "192.0.2.1:443".parse().unwrap();
    let host = url::Url::parse(url).unwrap().host_str().unwrap().to_owned();
    let tls = vec![(address, tls(&host))];
    Fetch { url: url.to_owned(), address: Some(address), hops: Vec::new(), tls, end: End::Answer(answer) }
}

pub(super) fn host(name: &str) -> HostRecords {
    HostRecords {
        host: name.to_owned(),
        aliases: Vec::new(),
        v4: Lookup::Found(vec![[192, 0, 2, 1].into()]),
        v6: Lookup::Found(vec!["2001:db8::1".parse().unwrap()]),
    }
}

/// A document of one key, signed by it.
pub(super) fn key_document(server_name: &str, valid_until_ts: i64) -> Value {
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let public = STANDARD_NO_PAD.encode(key.public_key_raw());
    let mut document = json!({
        "server_name": server_name,
        "valid_until_ts": valid_until_ts,
        "verify_keys": { "ed25519:a": { "key": public } },
        "old_verify_keys": {},
    });
    let signature = key.sign(&signed_bytes(document.as_object().unwrap()).unwrap()).unwrap();
    document["signatures"] = json!({ server_name: { "ed25519:a": STANDARD_NO_PAD.encode(signature) } });
    document
}

/// `example.org`, which delegates to `matrix.example.org:443` by its document.
pub(super) fn observed() -> Observed {
    let keys = key_document("example.org", (NOW + DAY) * 1000).to_string();
    let endpoint = |address: &str| Endpoint {
        address: address.parse().unwrap(),
        tls: Some(tls("matrix.example.org")),
        request_id: "doctor-1".to_owned(),
        keys: Ok(answer(200, &keys)),
        version: Ok(answer(200, r#"{"server":{"name":"Gatehouse","version":"1"}}"#)),
        http2: Http2::Works,
    };
    let with_cors = |body: &str| {
        let mut answer = answer(200, body);
        answer.headers.insert("access-control-allow-origin", "*".parse().unwrap());
        answer
    };
    let target = Target { host: "matrix.example.org".to_owned(), port: 443 };
    let server = answer(200, r#"{"m.server":"matrix.example.org:443"}"#);
    let client = with_cors(r#"{"m.homeserver":{"base_url":"https://matrix.example.org"}}"#);
    let versions = with_cors(r#"{"versions":["v1.11"]}"#);
    Observed {
        name: "example.org".parse().unwrap(),
        now: now(),
        expected: Some(Expected {
            server_name: "example.org".to_owned(),
            base_url: Some("https://matrix.example.org".to_owned()),
            federation_address: Some("matrix.example.org:443".to_owned()),
        }),
        own_host: Some(host("example.org")),
        server_document: vec![fetch("https://example.org/.well-known/matrix/server", server)],
        client_document: vec![fetch("https://example.org/.well-known/matrix/client", client)],
        services: vec![Services {
            host: "example.org".to_owned(),
            current: Lookup::NoSuchName,
            deprecated: Lookup::NoSuchName,
        }],
        route: Route {
            step: "3.2",
            host_header: "matrix.example.org:443".to_owned(),
            tls_host: "matrix.example.org".to_owned(),
            targets: vec![target],
        },
        targets: vec![host("matrix.example.org")],
        endpoints: vec![endpoint("192.0.2.1:443"), endpoint("[2001:db8::1]:443")],
        client_api: Some(ClientApi {
            base_url: "https://matrix.example.org".to_owned(),
            versions: vec![fetch("https://matrix.example.org/_matrix/client/versions", versions)],
        }),
    }
}

/// Judges a server that answers everything with these bytes.
pub(crate) fn judge_bytes(bytes: &[u8]) {
    let mut seen = observed();
    let mut strange = answer(200, "");
    strange.body = bytes.to_vec();
    for fetch in seen.server_document.iter_mut().chain(&mut seen.client_document) {
        fetch.end = End::Answer(strange.clone());
    }
    for endpoint in &mut seen.endpoints {
        (endpoint.keys, endpoint.version) = (Ok(strange.clone()), Ok(strange.clone()));
    }
    seen.client_api.iter_mut().for_each(|api| api.versions[0].end = End::Answer(strange.clone()));
    let verdicts = super::all(&seen);
    let findings = verdicts.iter().flat_map(|verdict| &verdict.findings);
    assert!(findings.clone().count() > 0, "nobody serves one body everywhere and is right");
    assert!(findings.into_iter().all(|finding| !finding.seen.chars().any(char::is_control)));
}

/// `example.org`, which is found by its service record.
pub(super) fn by_service() -> Observed {
    let service = Service { priority: 10, weight: 5, port: 8448, target: "matrix.example.org".to_owned() };
    let mut seen = observed();
    seen.expected = None;
    seen.services[0].current = Lookup::Found(vec![service]);
    seen.route = Route {
        step: "4",
        host_header: "example.org".to_owned(),
        tls_host: "example.org".to_owned(),
        targets: vec![Target { host: "matrix.example.org".to_owned(), port: 8448 }],
    };
    seen
}
