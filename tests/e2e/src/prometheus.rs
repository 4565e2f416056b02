//! A real Prometheus beside the moves: it finds the replicas and scrapes them every second, and is asked afterwards what it
//! has seen. It reaches them through the API server, by a relay in this process: nothing of the credentials leaves it, and
//! answers pass as they are, with their content type.

use crate::{
    cluster::{Cluster, POD, Read, until},
    handoff::{NAMESPACE, PODS},
    report::Claim,
};
use anyhow::{Context, Result, ensure};
use axum::{
    Json, Router,
    extract::{Path as Named, State},
    http::{Request, StatusCode},
    response::{IntoResponse, Response},
    routing::get,
};
use kube::{Client, Config, client::Body};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{
    net::TcpListener,
    process::{Child, Command},
    task::JoinHandle,
};

/// The names that must be there.
const METRICS: &str = include_str!("../../../docs/metrics.md");
/// There only while something is held.
const NOT_ALWAYS: [&str; 1] = ["handoff_hold_left_seconds"];
const START: Duration = Duration::from_mins(1);
const PORT: u16 = 8080;
/// Longer than any series of moves.
const ALL: &str = "[12h]";

/// A Prometheus that runs.
pub struct Prometheus {
    process: Child,
    relay: JoinHandle<()>,
    directory: PathBuf,
    /// Its API.
    client: Client,
}

#[derive(Clone)]
struct Relay {
    cluster: Cluster,
    address: SocketAddr,
}

/// The replicas there are now, as `http_sd_configs` wants them.
async fn targets(State(relay): State<Relay>) -> Result<Json<Value>, StatusCode> {
    let pods = relay.cluster.list(&POD, NAMESPACE, PODS).await.map_err(|_| StatusCode::BAD_GATEWAY)?;
    let running = pods.iter().filter(|pod| pod.text("/status/phase") == "Running");
    let target = |pod: &Value| {
        let path = format!("/replicas/{}/metrics", pod.name());
        json!({"targets": [relay.address], "labels": {"__metrics_path__": path, "instance": pod.name()}})
    };
    Ok(Json(running.map(target).collect()))
}

async fn scrape(State(relay): State<Relay>, Named(pod): Named<String>) -> Response {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}:{PORT}/proxy/metrics");
    let Ok(request) = Request::get(path).body(Body::empty()) else { return StatusCode::BAD_REQUEST.into_response() };
    match relay.cluster.client.send(request).await {
        Ok(answer) => answer.map(axum::body::Body::new),
        Err(_) => StatusCode::BAD_GATEWAY.into_response(),
    }
}

impl Prometheus {
    /// Starts `program` and waits until it has scraped both replicas.
    pub async fn start(cluster: &Cluster, program: &Path) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("no port")?;
        let address = listener.local_addr().context("no port")?;
        let relay = Relay { cluster: cluster.clone(), address };
        let router = Router::new().route("/targets", get(targets)).route("/replicas/{pod}/metrics", get(scrape));
        let router = router.with_state(relay);
        let relay = tokio::spawn(async move { drop(axum::serve(listener, router).await) });

        let directory = std::env::temp_dir().join(format!("handoff-prometheus-{}", std::process::id()));
        std::fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let config = directory.join("prometheus.yml");
        std::fs::write(&config, configuration(address))
            .with_context(|| format!("cannot write {}", config.display()))?;
        let free = TcpListener::bind("127.0.0.1:0").await.context("no port")?;
        let listen = free.local_addr().context("no port")?;
        drop(free);
        let process = Command::new(program)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", directory.join("data").display()))
            .arg(format!("--web.listen-address={listen}"))
            .arg("--log.level=warn")
            .current_dir(&directory)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let at = format!("http://{listen}").parse().context("an address")?;
        let client = Client::try_from(Config::new(at)).context("no client")?;
        let prometheus = Self { process, relay, directory, client };
        until(START, "Prometheus to scrape both replicas", async || {
            let up = prometheus.one("sum(up{job=\"handoff\"})").await.unwrap_or_default();
            Ok((up < Some(2.0)).then(|| format!("{up:?} of 2 are up")))
        })
        .await?;
        Ok(prometheus)
    }

    /// What must be true after so many moves, of which no backup is owed any more.
    pub async fn claims(&self, moves: usize) -> Result<Vec<Claim>> {
        // two scrapes after the last thing happened
        tokio::time::sleep(Duration::from_secs(3)).await;
        let mut claims = vec![self.names().await?];
        let expected = f64::from(u32::try_from(moves).unwrap_or(u32::MAX));
        // since it looks: replicas may have run before
        let counted = |name: &str| format!("sum(max_over_time({name}{ALL}) - min_over_time({name}{ALL}))");
        let ready = counted("handoff_moves_total{outcome=\"ready\"}");
        let begun = counted("handoff_moves_started_total");
        let totals = "sum by (le) (max_over_time(handoff_phase_seconds_bucket{phase=\"total\"}[12h]))";
        let median = format!("histogram_quantile(0.5, {totals})");
        // a series that begins with the first review begins at 1
        let reviews = format!("sum(max_over_time(handoff_review_seconds_count{{hook=\"eviction\"}}{ALL}))");
        let refused = counted("handoff_failed_open_total{reason!=\"no-review\"}");
        let left = "min(handoff_certificate_not_after_seconds) - time()";
        let safe = counted("handoff_backups_total{state=\"Completed\"}");
        for (claim, query, least, most) in [
            ("both replicas are scraped without an error", "sum(up{job=\"handoff\"})", 2.0, 2.0),
            ("one replica leads", "sum(handoff_leader)", 1.0, 1.0),
            ("both are ready", "min(handoff_ready)", 1.0, 1.0),
            ("all caches are complete", "min(handoff_cache_synced)", 1.0, 1.0),
            ("no cache is out of date", "max(handoff_cache_stale)", 0.0, 0.0),
            // a replica that leaves with the node may take its last second with it
            ("the moves are counted", &*ready, 1.0, expected),
            ("their beginnings are counted", &*begun, 1.0, expected * 2.0),
            ("their median is that of a move", &*median, 1.0, 240.0),
            ("their backups are counted as complete", &*safe, 1.0, expected * 2.0),
            ("nothing is owed", "max(handoff_backups_owed)", 0.0, 0.0),
            ("reviews are timed", &*reviews, 1.0, 1e6),
            ("nothing failed open on our side", &*refused, 0.0, 0.0),
            ("the certificate is good for a day", left, 86_400.0, 1e9),
        ] {
            let found = self.one(query).await?;
            let holds = found.is_some_and(|value| least <= value && value <= most);
            let found = found.map_or("nothing".to_owned(), |value| value.to_string());
            claims.push(Claim::new(&format!("Prometheus: {claim}"), holds, format!("{query} is {found}")));
        }
        Ok(claims)
    }

    /// Every metric of the documentation has a series.
    async fn names(&self) -> Result<Claim> {
        let answer = self.ask("/api/v1/label/__name__/values").await?;
        let names = answer.as_array().into_iter().flatten().filter_map(Value::as_str).collect::<BTreeSet<_>>();
        let missing = documented(METRICS).filter(|name| !names.contains(name.as_str())).collect::<Vec<_>>();
        let found = if missing.is_empty() { format!("{} names", names.len()) } else { missing.join(", ") };
        Ok(Claim::new("Prometheus: every metric of docs/metrics.md is there", missing.is_empty(), found))
    }

    /// The value of a query that has one.
    async fn one(&self, query: &str) -> Result<Option<f64>> {
        let answer = self.ask(&format!("/api/v1/query?query={}", encoded(query))).await?;
        let value = answer.pointer("/result/0/value/1").and_then(Value::as_str);
        value.map(|value| value.parse().with_context(|| format!("{query}: {value}"))).transpose()
    }

    async fn ask(&self, path: &str) -> Result<Value> {
        let request = Request::get(path).body(Vec::new()).context("bad request")?;
        let answer: Value = self.client.request(request).await.with_context(|| format!("Prometheus: {path}"))?;
        ensure!(answer.text("/status") == "success", "Prometheus: {path}: {answer}");
        Ok(answer["data"].clone())
    }

    /// Ends it and removes what it wrote.
    pub async fn stop(mut self) -> Result<()> {
        self.relay.abort();
        self.process.kill().await.context("cannot end Prometheus")?;
        std::fs::remove_dir_all(&self.directory).with_context(|| format!("cannot remove {}", self.directory.display()))
    }
}

fn configuration(relay: SocketAddr) -> String {
    let config = json!({
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
        "scrape_configs": [{
            "job_name": "handoff",
            "http_sd_configs": [{"url": format!("http://{relay}/targets"), "refresh_interval": "1s"}],
        }],
    });
    // JSON is YAML
    config.to_string()
}

/// The names of the table, as series have them.
fn documented(text: &str) -> impl Iterator<Item = String> {
    text.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        let (name, kind) = (cells.next()?.trim_end_matches('`'), cells.next()?);
        let name = if kind == "histogram" { format!("{name}_count") } else { name.to_owned() };
        (!NOT_ALWAYS.contains(&name.as_str())).then_some(name)
    })
}

fn encoded(query: &str) -> String {
    query.bytes().fold(String::new(), |text, byte| text + &format!("%{byte:02X}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_from_the_documentation() {
        let names = documented(METRICS).collect::<Vec<_>>();
        for name in ["handoff_moves_total", "handoff_phase_seconds_count", "handoff_build_info", "handoff_backups_owed"]
        {
            assert!(names.iter().any(|n| n == name), "{name} in {names:?}");
        }
        assert!(!names.iter().any(|n| n == "handoff_hold_left_seconds"));
    }

    #[test]
    fn a_query_is_safe_in_an_address() {
        assert_eq!(encoded("a{b}"), "%61%7B%62%7D");
    }
}
