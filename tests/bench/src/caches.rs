//! Memory and CPU time of the caches, in a process of their own; the API server they list from is this process.

use crate::{api, ours, world::World};
use anyhow::{Context, ensure};
use clap::ValueEnum;
use handoff::listen::{self, Limits};
use handoff_cluster::{ClusterCache, OnChange};
use handoff_replica::Caches;
use kube::{Client, Config};
use serde::{Deserialize, Serialize};
use std::{
    net::Ipv4Addr,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};
use tokio::{net::TcpListener, runtime, sync::watch};

/// 150,000 pods, 50,000 volumes, 5,000 nodes.
pub const WORLD: (usize, usize, usize) = (150_000, 50_000, 5000);

/// Which caches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Pods, claims, volumes, nodes, `CSINodes`, `VolumeAttachments`.
    Kubernetes,
    /// And Longhorn's objects, and our own.
    All,
}

/// What the caches take.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Taken {
    /// Resident memory after the first list, MB.
    pub listed_mb: f64,
    /// CPU time until then, seconds.
    pub listed_cpu_s: f64,
    /// Resident memory after everything was listed a second time, MB.
    pub relisted_mb: f64,
    /// The most resident memory there ever was, MB.
    pub peak_mb: f64,
}

/// Serves a world and runs [`fill`] in another process.
pub fn measure(part: Part) -> anyhow::Result<Taken> {
    let server = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let (stop, until) = watch::channel(false);
    let listener = server.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).context("cannot listen")?;
    let address = listener.local_addr()?;
    let (pods, volumes, nodes) = WORLD;
    let limits = Limits { request: Duration::from_mins(5), ..Limits::default() };
    server.spawn(listen::serve_plain(listener, api::router(World::new(pods, volumes, nodes)), limits, until));
    let part = part.to_possible_value().context("a part without a name")?;
    let output = Command::new(std::env::current_exe()?)
        .args(["fill", part.get_name(), &format!("http://{address}")])
        .stderr(Stdio::inherit())
        .output()?;
    stop.send_replace(true);
    ensure!(output.status.success(), "the process with the caches: {}", output.status);
    serde_json::from_slice(&output.stdout).context("the process with the caches says something else")
}

/// Fills the caches from the API server at `url`, twice, and prints what that took.
pub fn fill(part: Part, url: &str) -> anyhow::Result<()> {
    // as in a pod that is limited to two cores
    let runtime = runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let taken = runtime.block_on(async {
        let client = Client::try_from(Config::new(url.parse()?))?;
        let (missing, watches) = start(part, &client)?;
        while !missing().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        opened(&client, watches).await?;
        let (listed_mb, listed_cpu_s) = (memory_mb("VmRSS:")?, cpu_seconds()?);
        ask(&client, "/expire").await?;
        // a watch is opened when its list has been taken in
        opened(&client, 2 * watches).await?;
        anyhow::Ok(Taken { listed_mb, listed_cpu_s, relisted_mb: memory_mb("VmRSS:")?, peak_mb: memory_mb("VmHWM:")? })
    })?;
    println!("{}", serde_json::to_string(&taken)?);
    // the caches are not taken apart: a server never does that either
    std::process::exit(0)
}

type Missing = Box<dyn Fn() -> Vec<&'static str>>;

/// The names of caches that are not filled yet, and the number of watches.
fn start(part: Part, client: &Client) -> anyhow::Result<(Missing, usize)> {
    match part {
        Part::Kubernetes => {
            let nobody: OnChange<handoff_cluster::Change> = Arc::new(drop);
            let (cache, tasks) = ClusterCache::of_cluster(client, &nobody);
            let watches = tasks.len();
            tasks.into_iter().for_each(|(_, task)| drop(tokio::spawn(task)));
            Ok((Box::new(move || cache.missing()), watches))
        }
        Part::All => {
            let mut caches = Caches::new(client, &ours::args()?.longhorn_namespace);
            let watches = caches.tasks.len();
            caches.tasks.drain(..).for_each(|(_, task)| drop(tokio::spawn(task)));
            let missing = move || {
                let Caches { cluster, storage, handoffs, .. } = &caches;
                [cluster.missing(), handoff_storage::StorageManager::missing(storage), handoffs.missing()].concat()
            };
            Ok((Box::new(missing), watches))
        }
    }
}

/// Waits until so many watches have been opened.
async fn opened(client: &Client, watches: usize) -> anyhow::Result<()> {
    while ask(client, "/watches").await?.trim().parse::<usize>()? < watches {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

async fn ask(client: &Client, path: &str) -> anyhow::Result<String> {
    let request = axum::http::Request::get(path).body(Vec::new())?;
    Ok(client.request_text(request).await?)
}

/// A line of /proc/self/status.
fn memory_mb(line: &str) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let value = status.lines().find_map(|l| l.strip_prefix(line)).context("no such line in /proc/self/status")?;
    let kib: f64 = value.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024.0 / 1e6)
}

/// User and system time of this process; /proc counts in ticks of 10 ms.
fn cpu_seconds() -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, after_name) = stat.rsplit_once(") ").context("/proc/self/stat has another form")?;
    let mut fields = after_name.split(' ').skip(11);
    let mut ticks = || fields.next().and_then(|field| field.parse::<f64>().ok()).context("no time in /proc/self/stat");
    Ok((ticks()? + ticks()?) / 100.0)
}
