//! Pods per second of a real kube-scheduler: without an extender, with Handoff's in names mode, and with one that does
//! nothing, side by side, as it is installed and with its own limit lifted.

use crate::{
    args::{Paths, Throughput},
    bench::{Bench, MUTATING, VALIDATING},
    echo::Echo,
    http::Api,
    metrics, scheduler,
    world::{Volume, core, longhorn, pod},
};
use anyhow::{Context, Result, bail};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use kube::{Client, Config};
use serde_json::json;
use std::{
    path::PathBuf,
    pin::pin,
    time::{Duration, Instant},
};

const NAMESPACE: &str = "throughput";
/// Calls to the API server at a time while the world is made.
const PARALLEL: usize = 24;
/// kube-scheduler's client without its limit.
const UNLIMITED: &str = "qps: 10000, burst: 10000, ";
/// A round that takes longer than this is given up.
const PATIENCE: Duration = Duration::from_mins(10);

/// How the scheduler runs.
struct Setting {
    name: &'static str,
    /// In `clientConnection`.
    client: &'static str,
    /// The API server and etcd have one core, the scheduler and Handoff another: on a cluster none of them shares one.
    apart: bool,
}

const SETTINGS: [Setting; 3] = [
    Setting { name: "as installed: kube-scheduler's client makes 50 requests per second", client: "", apart: false },
    Setting { name: "no such limit, all programs on all cores", client: UNLIMITED, apart: false },
    Setting {
        name: "no such limit, API server and etcd on one core, scheduler and Handoff on another",
        client: UNLIMITED,
        apart: true,
    },
];

/// Whom the scheduler asks.
#[derive(Clone, Copy, PartialEq)]
enum Asked {
    Nobody,
    Handoff,
    Echo,
}

impl Asked {
    const ALL: [Self; 3] = [Self::Nobody, Self::Handoff, Self::Echo];

    fn name(self) -> &'static str {
        match self {
            Self::Nobody => "none",
            Self::Handoff => "Handoff",
            Self::Echo => "does nothing",
        }
    }
}

/// What all rounds share.
struct World<'b> {
    bench: &'b Bench,
    echo: Echo,
    /// The scheduler's.
    files: PathBuf,
    names: Vec<String>,
}

/// What one round found.
struct Round {
    asked: Asked,
    seconds: f64,
    /// Milliseconds of one pod in the scheduler's serial part.
    cycle: f64,
    scheduler_cpu: f64,
    api_server_cpu: f64,
    extender_cpu: f64,
    /// Questions that Handoff counted.
    calls: u64,
}

/// Prints the figures.
pub async fn run(paths: &Paths, wanted: &Throughput) -> Result<bool> {
    let mut bench = Bench::start(paths).await?;
    bench.plane.http1 = wanted.http1;
    bench.without_kubelets();
    bench.led().await?;
    let files = scheduler::write_files(&bench).await?;
    // pods are created in thousands here, by nobody who is measured
    let api = &bench.admin;
    api.delete(MUTATING, &json!({})).await?.ok()?;
    api.delete(VALIDATING, &json!({})).await?.ok()?;
    let nodes = (0..wanted.nodes).map(|n| format!("big-{n:04}")).collect::<Vec<_>>();
    each(nodes.iter(), async |node| bench.world.node(node).await).await.context("nodes")?;
    each(nodes.iter(), async |node| bench.world.longhorn_node(node).await).await.context("Longhorn's nodes")?;
    let deployed = nodes.iter().map(|n| (n.clone(), json!(true))).collect::<serde_json::Map<_, _>>();
    let image = format!("{}/status", longhorn("engineimages", "ei-1"));
    api.merge(&image, &json!({"status": {"nodeDeploymentMap": deployed}})).await?;
    for node in crate::control_plane::NODES {
        api.merge(&format!("/api/v1/nodes/{node}"), &json!({"spec": {"unschedulable": true}})).await?;
    }
    bench.world.namespace(NAMESPACE).await?;
    let names = (0..wanted.pods).map(|n| format!("p{n:05}")).collect::<Vec<_>>();
    let replica = |n: usize| nodes[n % nodes.len()].clone();
    each(names.iter().enumerate(), async |(n, name)| {
        bench.world.volume(&Volume::new(NAMESPACE, name), "", &[&replica(n), &replica(n + 1)]).await
    })
    .await
    .context("volumes")?;
    let echo = Echo::start(&bench, &files).await?;
    let world = World { bench: &bench, echo, files, names };
    println!("{} nodes, {} pods with a bound claim each; {} rounds of each", wanted.nodes, wanted.pods, wanted.rounds);
    for setting in &SETTINGS {
        println!("\n{}", setting.name);
        compare(&world, setting, wanted.rounds).await.context(setting.name)?;
    }
    Ok(true)
}

/// Rounds of each, by turns.
async fn compare(world: &World<'_>, setting: &Setting, wanted: usize) -> Result<()> {
    println!(
        "{:<12} {:>8} {:>10} {:>14} {:>12} {:>13} {:>8}",
        "extender", "pods/s", "cycle", "scheduler CPU", "API CPU", "extender CPU", "calls"
    );
    let mut rounds = Vec::new();
    for n in 0..=wanted {
        for turn in 0..Asked::ALL.len() {
            // each goes first as often as the others
            let round = round(world, setting, Asked::ALL[(n + turn) % Asked::ALL.len()]).await?;
            println!(
                "{:<12} {:>8.1} {:>7.2} ms {:>12.1} s {:>10.1} s {:>11.1} s {:>8}{}",
                round.asked.name(),
                per_second(world.names.len(), round.seconds),
                round.cycle,
                round.scheduler_cpu,
                round.api_server_cpu,
                round.extender_cpu,
                round.calls,
                if n == 0 { "  does not count" } else { "" }
            );
            rounds.extend((n > 0).then_some(round));
        }
    }
    let median = |asked: Asked| {
        let of = rounds.iter().filter(|round| round.asked == asked);
        let mut found = of.map(|round| per_second(world.names.len(), round.seconds)).collect::<Vec<_>>();
        found.sort_by(f64::total_cmp);
        found[found.len() / 2]
    };
    let [none, handoff, nothing] = Asked::ALL.map(median);
    println!("median, pods/s: {none:.1} without, {handoff:.1} with Handoff, {nothing:.1} with one that does nothing");
    println!(
        "ratio: Handoff to none {:.2}, one that does nothing to none {:.2}, Handoff to one that does nothing {:.2}",
        handoff / none,
        nothing / none,
        handoff / nothing
    );
    Ok(())
}

#[allow(clippy::cast_precision_loss)] // some thousands
fn per_second(pods: usize, seconds: f64) -> f64 {
    pods as f64 / seconds
}

/// Does something for each item, some at a time.
async fn each<T>(items: impl Iterator<Item = T>, work: impl AsyncFn(T) -> Result<()>) -> Result<()> {
    let work = &work;
    stream::iter(items).map(|item| work(item)).buffer_unordered(PARALLEL).try_collect().await
}

/// All pods are there before the scheduler is; the time runs from the first to the last binding.
async fn round(world: &World<'_>, setting: &Setting, asked: Asked) -> Result<Round> {
    let World { bench, echo, files, names } = world;
    let api = &bench.admin;
    let collection = core(NAMESPACE, "pods", "");
    each(names.iter(), async |name| api.create(&collection, &pod(NAMESPACE, name, &[name])).await.map(drop))
        .await
        .context("pods")?;
    let watch = api.watch(&format!("{collection}?watch=1&fieldSelector=spec.nodeName%21%3D")).await?;
    let calls = bench.replicas.calls(&["hook=\"filter\""]).await?;
    let extender_cpu = || match asked {
        Asked::Nobody => 0.0,
        Asked::Handoff => bench.replicas.cpu_seconds(),
        Asked::Echo => echo.process.cpu_seconds(),
    };
    let cpu = (bench.plane.api_server_cpu_seconds(), extender_cpu());
    let own = setting.apart.then_some(1);
    bench.plane.keep_on(setting.apart.then_some(0))?;
    bench.replicas.keep_on(own)?;
    echo.process.keep_on(own)?;
    let (name, client) = ("scheduler-measured", setting.client);
    let front = bench.replicas.extender.port;
    let handoff = bench.replicas.extender_port().context("no replica")?;
    let fast = |text: String| text.replace("clientConnection: {", &format!("clientConnection: {{{client}"));
    let extended = async |edit: &dyn Fn(String) -> String| {
        scheduler::start(bench, name, files, "scheduler-config.yaml", |text| edit(fast(text))).await
    };
    let process = match asked {
        Asked::Nobody => scheduler::plain(bench, name, client).await?,
        Asked::Handoff => extended(&|text| text.replace(&format!(":{front}"), &format!(":{handoff}"))).await?,
        Asked::Echo => extended(&|text| echo.instead(&text, front, files)).await?,
    };
    process.keep_on(own)?;
    let seconds =
        tokio::time::timeout(PATIENCE, bound(watch, names.len())).await.context("not all pods are bound")??;
    let round = Round {
        asked,
        seconds,
        cycle: cycle(process.port.context("a scheduler without figures")?).await?,
        scheduler_cpu: process.cpu_seconds(),
        api_server_cpu: bench.plane.api_server_cpu_seconds() - cpu.0,
        extender_cpu: extender_cpu() - cpu.1,
        calls: bench.replicas.calls(&["hook=\"filter\""]).await? - calls,
    };
    drop(process);
    each(names.iter(), async |name| {
        api.delete(&core(NAMESPACE, "pods", name), &json!({"gracePeriodSeconds": 0})).await?.ok().map(drop)
    })
    .await?;
    Ok(round)
}

/// Mean time of one pod in the part that the scheduler does for one pod after the other, in milliseconds.
async fn cycle(port: u16) -> Result<f64> {
    let mut config = Config::new(format!("https://127.0.0.1:{port}").parse().context("bad URL")?);
    // its certificate is made by itself, and what it says is no secret
    config.accept_invalid_certs = true;
    let page = Api::new(Client::try_from(config).context("cannot ask the scheduler")?).get("/metrics").await?;
    let page = page.body.as_str().context("the scheduler gives no figures")?.to_owned();
    let of = |part: &str| metrics::sum(&page, &format!("scheduler_scheduling_algorithm_duration_seconds_{part}"), &[]);
    Ok(1e3 * of("sum") / of("count"))
}

/// Seconds from the first binding to the last.
async fn bound(watch: impl Stream<Item = std::io::Result<String>>, pods: usize) -> Result<f64> {
    let mut bound = 0;
    let mut first = None;
    let mut watch = pin!(watch);
    while let Some(line) = watch.next().await {
        // a pod comes into view when it is bound
        if !line.context("the watch broke")?.starts_with(r#"{"type":"ADDED""#) {
            continue;
        }
        bound += 1;
        let first = *first.get_or_insert_with(Instant::now);
        if bound == pods {
            return Ok(first.elapsed().as_secs_f64());
        }
    }
    bail!("the watch ended after {bound} bindings")
}
