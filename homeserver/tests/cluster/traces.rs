//! A request's trace goes from its client through edge and shard to the database, and arrives at a collector.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::post;
use bytes::Bytes;
use gatehouse_test_support::client::Server;
use gatehouse_test_support::edge::{Deployment, Options, REGISTRATION_SECRET};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use parking_lot::Mutex;
use prost::Message as _;
use serde_json::json;
use tokio::sync::Notify;

const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CLIENT_SPAN: &str = "00f067aa0ba902b7";

/// A span as the collector has it.
#[derive(Debug, Clone)]
struct Span {
    service: String,
    name: String,
    trace_id: String,
    span_id: String,
    parent: String,
    attributes: HashMap<String, String>,
}

/// Takes what the exporters send, in the collector protocol's own types.
#[derive(Default)]
struct Collector {
    spans: Mutex<Vec<Span>>,
    arrived: Notify,
}

impl Collector {
    /// Starts it; returns its base URL too.
    async fn start() -> (Arc<Self>, String) {
        let collector = Arc::new(Self::default());
        let taker = collector.clone();
        let take = move |body: Bytes| async move { taker.take(&body) };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().route("/v1/traces", post(take));
        let address = gatehouse_homeserver::server::Listener::Tcp(listener);
        tokio::spawn(gatehouse_homeserver::server::serve(vec![address], router, Default::default()));
        (collector, url)
    }

    fn take(&self, body: &[u8]) {
        let request = ExportTraceServiceRequest::decode(body).expect("the exporter speaks the collector's protocol");
        let mut spans = self.spans.lock();
        for of_resource in request.resource_spans {
            let resource = attributes(&of_resource.resource.unwrap_or_default().attributes);
            let service = resource.get("service.name").cloned().unwrap_or_default();
            for span in of_resource.scope_spans.into_iter().flat_map(|of_scope| of_scope.spans) {
                spans.push(Span {
                    service: service.clone(),
                    trace_id: hex(&span.trace_id),
                    span_id: hex(&span.span_id),
                    parent: hex(&span.parent_span_id),
                    attributes: attributes(&span.attributes),
                    name: span.name,
                });
            }
        }
        self.arrived.notify_one();
    }

    /// Waits until a span of the trace fits.
    async fn span(&self, service: &str, name: &str, parent: &str) -> Span {
        let wanted = |span: &&Span| {
            (span.trace_id.as_str(), span.service.as_str(), span.name.as_str(), span.parent.as_str())
                == (TRACE_ID, service, name, parent)
        };
        let arrives = async {
            loop {
                if let Some(span) = self.spans.lock().iter().find(wanted) {
                    return span.clone();
                }
                self.arrived.notified().await;
            }
        };
        let arrived = tokio::time::timeout(Duration::from_secs(60), arrives).await;
        arrived.unwrap_or_else(|_| panic!("no span {name} of {service} below {parent}: {:#?}", self.spans.lock()))
    }
}

fn attributes(list: &[KeyValue]) -> HashMap<String, String> {
    let text = |attribute: &KeyValue| match attribute.value.as_ref()?.value.as_ref()? {
        any_value::Value::StringValue(text) => Some((attribute.key.clone(), text.clone())),
        other => Some((attribute.key.clone(), format!("{other:?}"))),
    };
    list.iter().filter_map(text).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_trace_leads_from_the_client_through_edge_and_shard_to_the_statements() {
    let (collector, url) = Collector::start().await;
    let deployment = Deployment::start(&Options { collector: Some(url), ..Options::default() });
    let server = Server::new(&deployment.base_url(), &deployment.ca());
    let alice = server.register("alice", REGISTRATION_SECRET).await;
    let room_id = alice.create_room(&json!({ "preset": "public_chat" })).await;
    let path = format!("/_matrix/client/v3/rooms/{}/messages?dir=b", gatehouse_test_support::client::encode(&room_id));
    let answer = alice.get_in_trace(&path, &format!("00-{TRACE_ID}-{CLIENT_SPAN}-01")).await;
    answer.expect("a page of messages");

    let edge = collector.span("gatehouse-edge", "request", CLIENT_SPAN).await;
    let shard = collector.span("gatehouse-homeserver", "request", &edge.span_id).await;
    let statement = collector.span("gatehouse-homeserver", "sql", &shard.span_id).await;
    let request_id = &edge.attributes["request.id"];
    assert!(!request_id.is_empty());
    assert_eq!(&shard.attributes["request.id"], request_id);
    assert_eq!(shard.attributes["http.route"], "/_matrix/client/v3/rooms/{arg1}/messages");
    assert!(statement.attributes["db.statement"].starts_with("SELECT"), "{statement:?}");
    // Paths hold room ids, which the shard keeps to itself; a token is nowhere.
    let spans = format!("{:?}", collector.spans.lock());
    assert!(!spans.contains("Bearer") && !spans.contains("access_token="), "a token is in a span");
}
