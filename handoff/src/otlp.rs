//! Traces to an OpenTelemetry collector, over OTLP/HTTP with protobuf. Off unless an endpoint is named. Spans wait in a
//! bounded queue and go out in batches; when the collector does not take them they are dropped and counted, and nothing
//! else ever waits for it.

use anyhow::{Context, bail};
use axum::http::{Uri, uri::Scheme};
use handoff_coordinator::trace::{Span, Traces};
use jiff::Timestamp;
use opentelemetry::{
    InstrumentationScope, KeyValue,
    trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState},
};
use opentelemetry_otlp::{Protocol, SpanExporter as Exporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    trace::{SpanData, SpanEvents, SpanExporter, SpanLinks},
};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use std::{
    str::FromStr,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{sleep, timeout},
};

/// Spans that may wait; a move has about twenty.
const QUEUE: usize = 2048;
/// Spans that go out together.
const BATCH: usize = 512;
/// How long the first of a batch waits for others.
const GATHER: Duration = Duration::from_secs(1);
/// The collector's time for an answer.
const ANSWER: Duration = Duration::from_secs(10);
/// At the end, what waits still is given this long.
const FLUSH: Duration = Duration::from_secs(2);

/// Where the collector is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint(Uri);

impl FromStr for Endpoint {
    type Err = anyhow::Error;

    /// `http://HOST:PORT`, to which `/v1/traces` is added, or with a path that is taken as it is.
    fn from_str(text: &str) -> anyhow::Result<Self> {
        let uri: Uri = text.parse().with_context(|| format!("otlp-endpoint is no URL: {text:?}"))?;
        let mut parts = uri.into_parts();
        if parts.scheme.as_ref().map(Scheme::as_str) != Some("http") {
            bail!("otlp-endpoint must begin with http:// (for TLS, send to a collector in the cluster): {text:?}");
        }
        if parts.path_and_query.as_ref().is_none_or(|path| path == "/") {
            parts.path_and_query = Some("/v1/traces".parse().context("a path")?);
        }
        Ok(Self(Uri::from_parts(parts).with_context(|| format!("otlp-endpoint is no URL: {text:?}"))?))
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByOutcome {
    outcome: &'static str,
}

/// Spans by what became of them.
#[derive(Clone, Debug, Default)]
pub struct Sent(Family<ByOutcome, Counter>);

impl Sent {
    /// Registers the figure.
    pub fn new(registry: &mut Registry) -> Self {
        let sent = Self::default();
        registry.register("handoff_spans", "Spans of traces, by what became of them", sent.0.clone());
        for outcome in ["sent", "dropped"] {
            drop(sent.0.get_or_create(&ByOutcome { outcome }));
        }
        sent
    }

    fn count(&self, outcome: &'static str, spans: usize) {
        self.0.get_or_create(&ByOutcome { outcome }).inc_by(u64::try_from(spans).unwrap_or(u64::MAX));
    }
}

/// Takes spans and sends them on.
pub struct Otlp {
    queue: Mutex<Option<mpsc::Sender<Span>>>,
    sender: Mutex<Option<JoinHandle<()>>>,
    sent: Sent,
}

impl Otlp {
    /// Starts sending; `replica` is this pod's name. Needs a Tokio runtime.
    pub fn start(endpoint: &Endpoint, namespace: &str, replica: &str, sent: Sent) -> anyhow::Result<Self> {
        let exporter = Exporter::builder().with_http().with_protocol(Protocol::HttpBinary);
        let exporter = exporter.with_endpoint(endpoint.0.to_string()).with_timeout(ANSWER).build();
        let mut exporter = exporter.context("cannot send traces: bad otlp-endpoint")?;
        let resource = Resource::builder_empty().with_service_name("handoff").with_attributes([
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.namespace", namespace.to_owned()),
            KeyValue::new("service.instance.id", replica.to_owned()),
        ]);
        exporter.set_resource(&resource.build());
        let (queue, waiting) = mpsc::channel(QUEUE);
        let sender = tokio::spawn(send(exporter, waiting, sent.clone()));
        Ok(Self { queue: Mutex::new(Some(queue)), sender: Mutex::new(Some(sender)), sent })
    }

    /// Takes no more, and gives what waits some time to go out.
    pub async fn end(&self) {
        drop(self.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(sender) = sender {
            let _ = timeout(FLUSH, sender).await;
        }
    }
}

impl Traces for Otlp {
    fn send(&self, span: Span) {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.as_ref().is_none_or(|queue| queue.try_send(span).is_err()) {
            self.sent.count("dropped", 1);
        }
    }
}

async fn send(exporter: Exporter, mut waiting: mpsc::Receiver<Span>, sent: Sent) {
    let mut fails = false;
    let mut spans = Vec::new();
    while waiting.recv_many(&mut spans, BATCH).await > 0 {
        if spans.len() < BATCH && !waiting.is_closed() {
            sleep(GATHER).await;
            while spans.len() < BATCH
                && let Ok(span) = waiting.try_recv()
            {
                spans.push(span);
            }
        }
        let count = spans.len();
        match exporter.export(spans.drain(..).map(data).collect()).await {
            Ok(()) => sent.count("sent", count),
            Err(error) => {
                if !fails {
                    tracing::warn!(%error, "traces are dropped: the collector does not take them");
                }
                sent.count("dropped", count);
                fails = true;
                continue;
            }
        }
        if std::mem::take(&mut fails) {
            tracing::info!("the collector takes traces again");
        }
    }
}

fn data(span: Span) -> SpanData {
    let Span { trace, id, parent, name, start, end, attributes, error } = span;
    let (trace, id) = (TraceId::from_bytes(trace), SpanId::from_bytes(id));
    SpanData {
        span_context: SpanContext::new(trace, id, TraceFlags::SAMPLED, false, TraceState::default()),
        parent_span_id: parent.map_or(SpanId::INVALID, SpanId::from_bytes),
        parent_span_is_remote: false,
        span_kind: SpanKind::Internal,
        name: name.into(),
        start_time: time(start),
        end_time: time(end),
        attributes: attributes.into_iter().map(|(key, value)| KeyValue::new(key, value)).collect(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: error.map_or(Status::Unset, Status::error),
        instrumentation_scope: InstrumentationScope::builder("handoff").build(),
    }
}

fn time(at: Timestamp) -> SystemTime {
    SystemTime::from(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{Router, body::Bytes, extract::State, http::StatusCode, routing::post};
    use handoff_coordinator::trace::Trace;
    use jiff::SignedDuration;
    use opentelemetry_proto::tonic::{
        collector::trace::v1::ExportTraceServiceRequest, common::v1::any_value::Value, trace::v1::ResourceSpans,
    };
    use prometheus_client::encoding::text::encode;
    use prost::Message;
    use std::sync::Arc;
    use tokio::net::TcpListener;

    /// A collector on the loopback interface: what it took, and whether it takes anything.
    #[derive(Clone, Default)]
    struct Collector {
        taken: Arc<Mutex<Vec<ResourceSpans>>>,
        refuses: bool,
    }

    async fn take(State(collector): State<Collector>, body: Bytes) -> StatusCode {
        if collector.refuses {
            return StatusCode::BAD_REQUEST;
        }
        let request = ExportTraceServiceRequest::decode(body).unwrap();
        collector.taken.lock().unwrap().extend(request.resource_spans);
        StatusCode::OK
    }

    async fn listen(collector: &Collector) -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/v1/traces", post(take)).with_state(collector.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        format!("http://{address}").parse().unwrap()
    }

    fn counted(registry: &Registry, outcome: &str) -> String {
        let mut page = String::new();
        encode(&mut page, registry).unwrap();
        let name = format!("handoff_spans_total{{outcome=\"{outcome}\"}} ");
        page.lines().find_map(|line| line.strip_prefix(&name)).unwrap().to_owned()
    }

    fn spans() -> (Trace, Vec<Span>) {
        let at = Timestamp::from_second(1_800_000_000).unwrap();
        let trace = Trace::of_move("uid", at);
        let end = at + SignedDuration::from_millis(1500);
        let good = trace.step("checkpoint", at, end).with("handoff.trigger", "Eviction");
        let bad = trace.step("Probe", end, end).failed(Some("no answer".into()));
        (trace, vec![good, bad])
    }

    #[tokio::test]
    async fn what_two_replicas_did_for_a_move_is_one_trace_at_the_collector() {
        let collector = Collector::default();
        let endpoint = listen(&collector).await;
        let mut registry = Registry::default();
        let sent = Sent::new(&mut registry);
        let (trace, spans) = spans();
        for (replica, span) in ["handoff-0", "handoff-1"].into_iter().zip(spans) {
            let otlp = Otlp::start(&endpoint, "handoff-system", replica, sent.clone()).unwrap();
            otlp.send(span);
            otlp.end().await;
        }
        let taken = collector.taken.lock().unwrap().clone();
        let text = |value: Option<Value>| match value {
            Some(Value::StringValue(text)) => text,
            other => panic!("{other:?}"),
        };
        let mut replicas = Vec::new();
        let mut found = Vec::new();
        for of_one in taken {
            for attribute in of_one.resource.unwrap().attributes {
                if attribute.key == "service.instance.id" {
                    replicas.push(text(attribute.value.and_then(|v| v.value)));
                }
            }
            found.extend(of_one.scope_spans.into_iter().flat_map(|scope| scope.spans));
        }
        assert_eq!(replicas, ["handoff-0", "handoff-1"]);
        let id = |span: &opentelemetry_proto::tonic::trace::v1::Span| {
            TraceId::from_bytes(span.trace_id.as_slice().try_into().unwrap()).to_string()
        };
        assert!(found.iter().all(|span| id(span) == trace.id()), "{found:?}");
        assert_eq!(found[0].parent_span_id, found[1].parent_span_id);
        let [good, bad] = &found[..] else { panic!("{found:?}") };
        assert_eq!((&*good.name, good.end_time_unix_nano - good.start_time_unix_nano), ("checkpoint", 1_500_000_000));
        assert_eq!(good.attributes[0].key, "handoff.trigger");
        assert_eq!(bad.status.as_ref().unwrap().message, "no answer");
        assert_eq!((counted(&registry, "sent"), counted(&registry, "dropped")), ("2".into(), "0".into()));
    }

    #[tokio::test]
    async fn what_the_collector_does_not_take_is_dropped_and_counted() {
        let endpoint = listen(&Collector { refuses: true, ..Collector::default() }).await;
        let mut registry = Registry::default();
        let otlp = Otlp::start(&endpoint, "n", "p", Sent::new(&mut registry)).unwrap();
        let (_, spans) = spans();
        for span in spans.clone() {
            otlp.send(span);
        }
        otlp.end().await;
        otlp.send(spans[0].clone());
        assert_eq!((counted(&registry, "sent"), counted(&registry, "dropped")), ("0".into(), "3".into()));
    }

    #[test]
    fn an_endpoint_is_a_plain_url_and_a_bad_one_is_named() {
        let endpoint = |text: &str| text.parse::<Endpoint>().map(|e| e.0.to_string());
        assert_eq!(endpoint("http://10.0.0.1:4318").unwrap(), "http://10.0.0.1:4318/v1/traces");
        assert_eq!(endpoint("http://c.ns.svc:4318/").unwrap(), "http://c.ns.svc:4318/v1/traces");
        assert_eq!(endpoint("http://c:4318/otlp/v1/traces").unwrap(), "http://c:4318/otlp/v1/traces");
        for bad in ["", "collector:4318", "https://c:4318", "grpc://c:4317", "http://"] {
            let error = format!("{:#}", endpoint(bad).unwrap_err());
            assert!(error.contains("otlp-endpoint"), "{bad}: {error}");
        }
    }
}
