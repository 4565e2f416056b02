//! Figures of the serving side.

use super::Missing;
use crate::clock::ApiClock;
use handoff_certs::Serving;
use handoff_coordinator::{Coordinator, now::Figures};
use jiff::Timestamp;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric},
    metrics::{
        MetricType,
        counter::ConstCounter,
        family::Family,
        gauge::{ConstGauge, Gauge},
    },
    registry::Registry,
};
use std::{fmt, sync::Arc};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ListenerLabels {
    listener: &'static str,
}

/// Registers the open connections of each listener.
pub fn connections(registry: &mut Registry) -> impl Fn(&'static str) -> Gauge + use<> {
    let open = Family::<ListenerLabels, Gauge>::default();
    registry.register("handoff_connections", "Open connections, by listener", open.clone());
    move |listener| open.get_or_create(&ListenerLabels { listener }).clone()
}

/// How it stands with the certificates, looked up when someone asks.
#[derive(Debug)]
struct Certificates {
    serving: Serving,
    clock: Arc<ApiClock>,
}

impl Certificates {
    /// Of what this replica serves with, and the clock it is judged by.
    fn new(serving: Serving, clock: Arc<ApiClock>) -> Self {
        Self { serving, clock }
    }
}

impl Collector for Certificates {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let status = self.serving.status();
        let mut put = |name: &str, help: &str, metric: &dyn EncodeMetric| {
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
        };
        let time = |at: Option<Timestamp>| ConstGauge::new(at.map_or(0, Timestamp::as_second));
        put(
            "handoff_certificate_not_after_seconds",
            "End of the server certificate in use, Unix time; 0 without one",
            &time(status.not_after),
        )?;
        put(
            "handoff_certificate_ca_not_after_seconds",
            "First end among the trusted CAs, Unix time; 0 without one",
            &time(status.ca_not_after),
        )?;
        put(
            "handoff_certificate_failing",
            "1 if the last look after the certificates failed; the one in use stays in use",
            &ConstGauge::new(i64::from(status.failing.is_some())),
        )?;
        put(
            "handoff_certificate_errors",
            "Failures to look after the certificates",
            &ConstCounter::new(status.errors),
        )?;
        put("handoff_certificate_changes", "Server certificates taken over", &ConstCounter::new(status.changes))?;
        put(
            "handoff_clock_ahead_seconds",
            "This node's clock less the API server's",
            &ConstGauge::new(self.clock.ahead().map_or(0, |ahead| ahead.as_secs())),
        )
    }
}

/// Whether this replica is ready, and what it is.
struct Process {
    missing: Missing,
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Process")
    }
}

#[derive(Debug, EncodeLabelSet)]
struct BuildLabels {
    version: &'static str,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let ready = ConstGauge::new(i64::from((self.missing)().is_empty()));
        let help = "1 while this replica is ready: caches complete, certificate valid";
        ready.encode(encoder.encode_descriptor("handoff_ready", help, None, MetricType::Gauge)?)?;
        let mut build =
            encoder.encode_descriptor("handoff_build_info", "1; which version this is", None, MetricType::Gauge)?;
        let labels = BuildLabels { version: env!("CARGO_PKG_VERSION") };
        ConstGauge::new(1_i64).encode(build.encode_family(&labels)?)
    }
}

/// Registers what a replica has to say of itself: the coordinator's figures of now, certificates, readiness, version.
pub fn register(
    registry: &mut Registry,
    coordinator: &Arc<Coordinator>,
    serving: Serving,
    clock: Arc<ApiClock>,
    missing: Missing,
) {
    registry.register_collector(Box::new(Figures::of(coordinator)));
    registry.register_collector(Box::new(Certificates::new(serving, clock)));
    registry.register_collector(Box::new(Process { missing }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use handoff_certs::{CertsConfig, Material};
    use prometheus_client::encoding::text::encode;

    #[test]
    fn the_certificates_are_among_the_figures() {
        let (mut registry, serving) = (Registry::default(), Serving::default());
        registry.register_collector(Box::new(Certificates::new(serving.clone(), Arc::default())));
        let open = connections(&mut registry)("webhook");
        let text = || {
            let mut text = String::new();
            encode(&mut text, &registry).unwrap();
            text
        };
        assert!(text().contains("\nhandoff_certificate_not_after_seconds 0\n"), "{}", text());
        let config = CertsConfig::new("ns", "certs", vec!["a.svc".to_owned()]);
        let material = Material::create(&config, Timestamp::now()).unwrap();
        serving.load(&material, Timestamp::now()).unwrap();
        open.inc();
        let end = material.not_after().as_second();
        for line in [
            &*format!("handoff_certificate_not_after_seconds {end}"),
            "handoff_certificate_failing 0",
            "handoff_certificate_errors_total 0",
            "handoff_certificate_changes_total 1",
            "handoff_clock_ahead_seconds 0",
            "handoff_connections{listener=\"webhook\"} 1",
        ] {
            assert!(text().contains(&format!("\n{line}\n")), "{line} in {}", text());
        }
        assert!(text().contains("# TYPE handoff_certificate_errors counter"), "{}", text());
    }
}
