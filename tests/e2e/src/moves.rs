//! A series of full drains, each with a fresh backup in flight, and its figures.

use crate::{
    args::{CiArgs, Kubelet, MovesArgs, WorkloadKind},
    bench::Bench,
    journey::{Compared, Disturb, Outcome, Plan, travel},
    metrics::{Histogram, Reviews},
    prometheus::Prometheus,
    report::{self, Claim, print_claims},
    settle,
    timeline::Timeline,
    workload::{self, NAMESPACE_NAME},
};
use anyhow::{Context, Result, bail};
use kube::{
    api::{EvictParams, PostParams},
    core::Request,
};
use serde::Serialize;
use std::{path::Path, time::Duration};

/// A pod that is not there by then counts as stranded.
const PATIENCE: Duration = Duration::from_mins(4);
/// Evictions asked for as a dry run, to see what a review takes when no backup is in flight.
const DRY_RUNS: u32 = 20;

/// Everything that was measured.
#[derive(Debug, Serialize)]
struct Figures {
    longhorn: String,
    workload: WorkloadKind,
    data_mib: u32,
    link: String,
    plain: Vec<Outcome>,
    moves: Vec<Outcome>,
    reviews_without_backup: Histogram,
    claims: Vec<Vec<Claim>>,
}

/// `moves`: whether every claim held.
pub async fn run(bench: &Bench, args: &MovesArgs) -> Result<bool> {
    if args.kill_leader && bench.lab.is_none() {
        bail!("--kill-leader needs --lab: a process is killed on its node");
    }
    match (args.kubelet, &bench.lab) {
        (Some(kubelet), Some(lab)) => lab.kubelet(kubelet).await?,
        (Some(_), None) => bail!("--kubelet needs --lab"),
        (None, _) => {}
    }
    workload::deploy(&bench.cluster, args.workload, &bench.common.image).await?;
    let plain = if args.plain_too { plain_moves(bench, args.plain_count).await? } else { Vec::new() };
    bench.with_handoff().await.context("installing Handoff")?;
    let reviews_without_backup = dry_runs(bench).await?;
    let mut moves = Vec::new();
    for i in 1..=args.count {
        let restore = i % args.restore_every == 0;
        let disturb = match (args.kill_leader, args.restart_replicas) {
            (true, _) => Some(Disturb::KillLeader),
            (_, true) => Some(Disturb::RestartReplicas),
            _ => None,
        };
        let how = Plan { disturb, restore, ..with_handoff() };
        moves.push(one(bench, &how, &format!("move {i} of {}", args.count)).await?);
    }
    let figures = figures(bench, args.workload, plain, moves, reviews_without_backup);
    print(&figures, args.kubelet);
    write(&figures, args.json.as_deref())?;
    Ok(figures.claims.iter().flatten().all(|c| c.holds))
}

/// `ci`: whether every claim held.
pub async fn ci(bench: &Bench, args: &CiArgs) -> Result<bool> {
    bench.with_handoff().await.context("installing Handoff")?;
    let prometheus = match &args.prometheus {
        Some(program) => Some(Prometheus::start(&bench.cluster, program).await?),
        None => None,
    };
    let mut moves = Vec::new();
    let mut kind = WorkloadKind::Statefulset;
    workload::deploy(&bench.cluster, kind, &bench.common.image).await?;
    for i in 1..=args.count {
        if i == args.count && i >= 3 {
            kind = WorkloadKind::Deployment;
            workload::remove_leftovers(&bench.cluster).await?;
            workload::deploy(&bench.cluster, kind, &bench.common.image).await?;
        }
        // all replicas of Handoff are restarted in the second one
        let plan = Plan { disturb: (i == 2).then_some(Disturb::RestartReplicas), ..with_handoff() };
        moves.push(one(bench, &plan, &format!("move {i} of {}, {kind:?}", args.count)).await?);
    }
    let mut figures = figures(bench, WorkloadKind::Statefulset, Vec::new(), moves, Histogram::default());
    if let Some(prometheus) = prometheus {
        let seen = prometheus.claims(figures.moves.len()).await?;
        prometheus.stop().await?;
        print_claims(&seen);
        figures.claims.push(seen);
    }
    write(&figures, args.json.as_deref())?;
    let (passed, failed): (Vec<_>, Vec<_>) = figures.claims.iter().flatten().partition(|c| c.holds);
    println!("{} passed, {} failed", passed.len(), failed.len());
    Ok(failed.is_empty())
}

fn with_handoff() -> Plan {
    Plan { backup: true, handoff: true, whole_node: true, limit: PATIENCE, disturb: None, restore: true, live: false }
}

async fn plain_moves(bench: &Bench, count: u32) -> Result<Vec<Outcome>> {
    bench.without_handoff().await?;
    let plan = Plan { backup: false, handoff: false, whole_node: false, restore: false, ..with_handoff() };
    let mut moves = Vec::new();
    for i in 1..=count {
        moves.push(one(bench, &plan, &format!("plain move {i} of {count}")).await?);
    }
    Ok(moves)
}

async fn one(bench: &Bench, plan: &Plan, label: &str) -> Result<Outcome> {
    println!("{label}");
    let outcome = travel(bench, plan).await.with_context(|| label.to_owned())?;
    if plan.handoff {
        print_claims(&report::claims(&outcome));
    } else {
        println!("  {}, drain {}", report::arrival(&outcome), report::drain(&outcome));
    }
    Ok(outcome)
}

/// What a review of an eviction takes when there is nothing to record.
async fn dry_runs(bench: &Bench) -> Result<Histogram> {
    let pod = settle::settle(bench).await?.pod;
    let mut reviews = Reviews::start(&bench.cluster, "eviction").await?;
    let dry =
        EvictParams { post_options: PostParams { dry_run: true, ..PostParams::default() }, ..EvictParams::default() };
    for _ in 0..DRY_RUNS {
        let request = Request::new(format!("/api/v1/namespaces/{NAMESPACE_NAME}/pods")).evict(&pod, &dry);
        let request = request.context("bad request")?;
        let answer = bench.cluster.client.request_text(request).await;
        answer.context("a dry-run eviction was refused")?;
    }
    reviews.read().await?;
    Ok(reviews.added)
}

fn figures(
    bench: &Bench,
    workload: WorkloadKind,
    plain: Vec<Outcome>,
    moves: Vec<Outcome>,
    reviews_without_backup: Histogram,
) -> Figures {
    let mut claims: Vec<_> = moves.iter().map(report::claims).collect();
    let data = plain.iter().map(|outcome| report::compared("a plain move's data is equal", &outcome.moved));
    claims.push(data.collect());
    Figures {
        longhorn: bench.longhorn.clone(),
        workload,
        data_mib: bench.data,
        link: if bench.lab.is_some() { bench.common.link.clone() } else { "as it is".to_owned() },
        plain,
        moves,
        reviews_without_backup,
        claims,
    }
}

fn print(figures: &Figures, kubelet: Option<Kubelet>) {
    let (plain, ours) = (&figures.plain, &figures.moves);
    println!("\nLonghorn {}, {} MiB fresh data per backup, link {}", figures.longhorn, figures.data_mib, figures.link);
    println!("\n{}", summary(figures, kubelet));
    let timelines = |moves: &'_ [Outcome]| moves.iter().map(|m| m.timeline.clone()).collect::<Vec<Timeline>>();
    let (plain, ours) = (timelines(plain), timelines(ours));
    let mut groups = vec![("with backup and Handoff", ours.iter().collect())];
    if !plain.is_empty() {
        groups.insert(0, ("plain", plain.iter().collect()));
    }
    println!("\n{}", report::budgets(&groups));
    let failed: Vec<_> = figures.claims.iter().flatten().filter(|c| !c.holds).cloned().collect();
    if failed.is_empty() {
        println!("\nevery claim held in every move");
    } else {
        println!("\nclaims that did not hold");
        print_claims(&failed);
    }
}

/// The table of the figures and what they must be.
fn summary(figures: &Figures, kubelet: Option<Kubelet>) -> comfy_table::Table {
    let moves = &figures.moves;
    let mut table = report::table(&["figure", "found", "must be"]);
    let mut row = |figure: &str, found: String, must: &str| {
        table.add_row([figure.to_owned(), found, must.to_owned()]);
    };
    let times =
        |moves: &[Outcome]| report::median_and_max(&moves.iter().filter_map(Outcome::ready).collect::<Vec<_>>());
    let (ours, plain) = (times(moves), times(&figures.plain));
    let seconds = |t: Option<(f64, f64)>| t.map_or("–".to_owned(), |(p50, max)| format!("{p50:.1} s / {max:.1} s"));
    let goal = if kubelet == Some(Kubelet::Recommended) { "≤ 17 s / ≤ 22 s" } else { "" };
    row("drain → pod Ready on the other node, p50 / max", seconds(ours), goal);
    if let (Some((ours, _)), Some((without, _))) = (ours, plain) {
        row("the same, plain, without a backup", seconds(plain), "");
        let goal = if kubelet == Some(Kubelet::Recommended) { "" } else { "≤ 1.00" };
        row("p50 with backup and Handoff ÷ plain", format!("{:.2}", ours / without), goal);
    }
    let all = |claim: &str| {
        let of = figures.claims.iter().flatten().filter(|c| c.text.starts_with(claim));
        let (held, count) = of.fold((0, 0), |(held, count), c| (held + usize::from(c.holds), count + 1));
        format!("{held} of {count}")
    };
    row("interrupted backups Completed under their own name", all("the backup completed"), "all");
    row("blocks uploaded again ÷ blocks, mean / max", again(moves), "≤ 5 %");
    row("restored data equal to the snapshot", all("the restored data"), "all");
    row("moved volume's data equal", all("the moved volume's data"), "all");
    let mut reviews = Histogram::default();
    for outcome in moves {
        reviews.add(&outcome.reviews);
    }
    row("review of an eviction with a backup in flight, p50", report::reviews(&reviews), "≤ 50 ms");
    row("review of an eviction without, p50", report::reviews(&figures.reviews_without_backup), "≤ 5 ms");
    row("pre-stages left", moves.iter().map(|m| m.prestages.len()).sum::<usize>().to_string(), "0");
    row("drains that ended by themselves", all("the drain ended"), "all");
    row("node still cordoned then", all("the node was still cordoned"), "all");
    for (how, what) in [
        (Disturb::KillLeader, "leader killed at a random moment"),
        (Disturb::RestartReplicas, "all replicas restarted one after another"),
    ] {
        if moves.iter().filter_map(|m| m.disturbed.as_ref()).any(|d| d.how == how) {
            row(what, all(how.claim()), "all");
        }
    }
    let equal = figures.plain.iter().filter(|m| matches!(m.moved, Compared::Equal(_))).count();
    if !figures.plain.is_empty() {
        row("data equal after a plain move", format!("{equal} of {}", figures.plain.len()), "all");
    }
    table
}

fn again(moves: &[Outcome]) -> String {
    let ratios = moves.iter().filter_map(|m| m.backup.as_ref()?.blocks).map(|blocks| blocks.ratio() * 100.0);
    let ratios: Vec<f64> = ratios.collect();
    let Some((_, max)) = report::median_and_max(&ratios) else { return "not counted".to_owned() };
    let count = f64::from(u32::try_from(ratios.len()).unwrap_or(u32::MAX));
    format!("{:.1} % / {max:.1} %", ratios.iter().sum::<f64>() / count)
}

fn write(figures: &Figures, to: Option<&Path>) -> Result<()> {
    let Some(path) = to else { return Ok(()) };
    let text = serde_json::to_string_pretty(figures).context("cannot write the figures")?;
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
