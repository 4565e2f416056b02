//! `docs/metrics.md` says what is there: its table is made from what a replica really shows, with every value that a
//! label can have. `HANDOFF_WRITE_DOCS=1 cargo test -p handoff the_table` writes it anew.

use super::figures;
use crate::{args::ServeArgs, clock::ApiClock, otlp::Sent};
use axum::{
    Json, Router,
    extract::RawQuery,
    http::{StatusCode, Uri},
};
use clap::Parser;
use handoff_certs::Serving;
use handoff_coordinator::clock::Clock;
use handoff_replica::Core;
use prometheus_client::{encoding::text::encode, registry::Registry};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    path::Path,
    sync::Arc,
    time::Duration,
};
use tokio::task::JoinSet;

/// Above it the words are a person's.
const HEAD: &str = "| metric | type | labels | meaning |\n|---|---|---|---|\n";
/// Labels whose values say nothing to a reader.
const OPEN: [&str; 1] = ["version"];

/// An API server on which one eviction is held, and all else is empty.
async fn cluster(uri: Uri, RawQuery(query): RawQuery) -> Result<Json<Value>, StatusCode> {
    if query.is_some_and(|q| q.contains("watch=true")) {
        std::future::pending::<()>().await;
    }
    let items = match uri.path() {
        "/api/v1/pods" => json!([{
            "metadata": {"name": "db-0", "namespace": "shop", "uid": "pod-uid"},
            "spec": {"nodeName": "a", "containers": []}, "status": {},
        }]),
        "/apis/volumehandoff.io/v1alpha1/volumehandoffs" => json!([{
            "apiVersion": "volumehandoff.io/v1alpha1", "kind": "VolumeHandoff",
            "metadata": {"name": "pv", "namespace": "shop", "uid": "u"},
            "spec": {
                "volume": {"driver": "d", "handle": "v", "volume": "pv", "claim": "data"},
                "pod": {"name": "db-0", "uid": "pod-uid"}, "from": "a", "trigger": "Eviction",
                "triggeredAt": "2020-01-01T00:00:00Z",
                "hold": {"since": "2020-01-01T00:00:00Z", "deadline": "2100-01-01T00:00:00Z"},
                "checkpoints": [{
                    "backup": "b", "uid": "u", "snapshot": "s", "target": "default", "mode": "incremental",
                    "progress": 1, "recordedAt": "2020-01-01T00:00:00Z",
                }],
            },
        }]),
        path if path.contains("/configmaps/") => return Err(StatusCode::NOT_FOUND),
        _ => json!([]),
    };
    Ok(Json(json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items})))
}

/// What a replica shows whose caches are complete and to which everything has happened.
pub async fn page() -> String {
    let args = ["serve", "--pod-name", "p", "--namespace", "n"];
    let args = ServeArgs::try_parse_from(args).unwrap();
    let client = kube::Client::new(Router::new().fallback(cluster), "default");
    let mut registry = Registry::default();
    let core = Core::new(args.replica(args.policy().unwrap(), Clock::default()), &client, &mut registry);
    let reviews = core.reviews.clone();
    reviews.count_failed_open_by(&core.coordinator);
    for hook in handoff_webhook::Hook::ALL {
        for outcome in handoff_webhook::Outcome::ALL {
            handoff_webhook::Observe::review(&*reviews, hook, outcome, 0.1);
        }
    }
    for verb in handoff_extender::Verb::ALL {
        for outcome in handoff_extender::Outcome::ALL {
            handoff_extender::Observe::call(&*reviews, verb, outcome, 0.1);
        }
    }
    Sent::new(&mut registry);
    let open = figures::connections(&mut registry);
    let _open = ["webhook", "extender", "metrics"].map(open);
    let coordinator = core.coordinator.clone();
    let missing = {
        let coordinator = coordinator.clone();
        Arc::new(move || coordinator.missing())
    };
    figures::register(&mut registry, &coordinator, Serving::default(), Arc::new(ApiClock::default()), missing);
    let mut watches = JoinSet::new();
    for (_, task) in core.tasks {
        watches.spawn(task);
    }
    let complete = async {
        while coordinator.watches().iter().any(|w| !w.is_synced()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), complete).await.unwrap();
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    text
}

#[derive(Default)]
struct Family {
    help: String,
    kind: String,
    labels: BTreeMap<String, BTreeSet<String>>,
}

/// What the text says of each metric, by name.
fn families(page: &str) -> BTreeMap<String, Family> {
    let mut families = BTreeMap::<String, Family>::new();
    for line in page.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            help.trim_end_matches('.').clone_into(&mut families.entry(name.to_owned()).or_default().help);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            kind.clone_into(&mut families.entry(name.to_owned()).or_default().kind);
        } else if let Some((name, labels)) =
            line.split_once('{').and_then(|(n, rest)| Some((n, rest.split_once('}')?.0)))
        {
            let name =
                ["_total", "_bucket", "_sum", "_count"].iter().find_map(|s| name.strip_suffix(s)).unwrap_or(name);
            let family = families.get_mut(name).unwrap();
            for (label, value) in labels.split(',').map(|l| l.split_once('=').unwrap()) {
                family.labels.entry(label.to_owned()).or_default().insert(value.trim_matches('"').to_owned());
            }
        }
    }
    families
}

fn table(page: &str) -> String {
    let mut table = HEAD.to_owned();
    for (name, Family { help, kind, labels }) in families(page) {
        let name = if kind == "counter" { format!("{name}_total") } else { name };
        let of = |(label, values): (&String, &BTreeSet<String>)| {
            let values = values.iter().map(|v| format!("`{v}`")).collect::<Vec<_>>().join(" ");
            if OPEN.contains(&label.as_str()) { format!("`{label}`") } else { format!("`{label}`: {values}") }
        };
        let labels = labels.iter().filter(|(label, _)| *label != "le").map(of).collect::<Vec<_>>().join("; ");
        writeln!(table, "| `{name}` | {kind} | {labels} | {help} |").unwrap();
    }
    table
}

#[tokio::test]
async fn the_table_of_metrics_is_what_a_replica_shows() {
    let page = page().await;
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let text = std::fs::read_to_string(&file).unwrap();
    let (before, rest) = text.split_once(HEAD).expect("docs/metrics.md has its table");
    let after = rest.split_once("\n\n").map(|(_, after)| format!("\n{after}")).unwrap_or_default();
    let wanted = format!("{before}{}{after}", table(&page));
    if std::env::var_os("HANDOFF_WRITE_DOCS").is_some() {
        std::fs::write(&file, &wanted).unwrap();
        return;
    }
    assert!(text == wanted, "docs/metrics.md is out of date: HANDOFF_WRITE_DOCS=1 cargo test -p handoff the_table");
}

#[tokio::test]
async fn names_are_ours_and_labels_have_few_values() {
    let page = page().await;
    for (name, family) in families(&page) {
        assert!(name.starts_with("handoff_") && !family.help.is_empty(), "{name}");
        for (label, values) in family.labels.iter().filter(|(label, _)| *label != "le") {
            assert!(values.len() <= 25, "{name}: {label} has {} values", values.len());
        }
    }
    let series = page.lines().filter(|l| !l.starts_with('#')).map(|l| l.rsplit_once(' ').unwrap().0);
    let all = series.clone().count();
    assert_eq!(series.collect::<BTreeSet<_>>().len(), all, "no series twice");
}

#[tokio::test]
async fn caches_and_holds_show_as_they_are() {
    let page = page().await;
    for line in [
        "handoff_cache_synced{cache=\"pods\"} 1",
        "handoff_cache_stale{cache=\"volumes.longhorn.io\"} 0",
        "handoff_holds_open{kind=\"Pod\"} 1",
        "handoff_backups_owed 1",
        "handoff_ready 1",
        // each hook and each verb, once
        "handoff_failed_open_total{reason=\"timed-out\"} 10",
        "handoff_failed_open_total{reason=\"failed\"} 10",
    ] {
        assert!(page.contains(&format!("\n{line}\n")), "{line} in {page}");
    }
    assert!(page.contains("\nhandoff_cache_age_seconds{cache=\"volumehandoffs\"} "), "{page}");
    assert!(page.contains("\nhandoff_hold_left_seconds "), "{page}");
}
