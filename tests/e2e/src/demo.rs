//! The same move several times, on equal volumes and over the same link, and all of it side by side.

use crate::{
    args::{DemoArgs, WorkloadKind},
    bench::Bench,
    journey::{Compared, Outcome, Plan, travel},
    report::{self, Claim, print_claims},
    timeline::{Step, Timeline},
    workload,
};
use anyhow::{Context, Result};
use std::time::Duration;

/// With Handoff a pod that is not there by then counts as stranded.
const PATIENCE: Duration = Duration::from_mins(4);

/// A run of the demo.
struct Scene {
    letter: &'static str,
    title: &'static str,
    plan: Plan,
}

/// Runs all scenes; whether every claim held.
pub async fn run(bench: &Bench, args: &DemoArgs) -> Result<bool> {
    if let (Some(kubelet), Some(lab)) = (args.kubelet, &bench.lab) {
        lab.kubelet(kubelet).await?;
    }
    println!("Longhorn {}, {} MiB of fresh random data, link {}", bench.longhorn, bench.data, link(bench));
    bench.without_handoff().await?;
    let mut outcomes = Vec::new();
    let chosen = |scene: &Scene| args.only.is_empty() || args.only.iter().any(|letter| letter == scene.letter);
    for scene in scenes(args.stuck_after).into_iter().filter(chosen) {
        if scene.plan.handoff {
            bench.with_handoff().await.context("installing Handoff")?;
        }
        outcomes.push((scene.letter, play(bench, &scene).await.with_context(|| format!("({})", scene.letter))?));
    }
    let timelines: Vec<(&str, &Timeline)> = outcomes.iter().map(|(letter, o)| (*letter, &o.timeline)).collect();
    println!("\n{}\n", report::side_by_side(&timelines));
    for scene in scenes(args.stuck_after).iter().filter(|scene| chosen(scene)) {
        println!("  {:2}  {}", scene.letter, scene.title);
    }
    if args.only.is_empty() { verdict(bench, &outcomes) } else { Ok(true) }
}

fn scenes(stuck_after: Duration) -> [Scene; 4] {
    let plain = Plan {
        backup: false,
        handoff: false,
        whole_node: true,
        limit: stuck_after,
        disturb: None,
        restore: false,
        live: true,
    };
    [
        Scene { letter: "a", title: "no backup, without Handoff", plan: plain },
        Scene {
            letter: "a'",
            title: "the same, Longhorn's own pods left out of the drain",
            plan: Plan { whole_node: false, ..plain },
        },
        Scene { letter: "b", title: "backup in flight, without Handoff", plan: Plan { backup: true, ..plain } },
        Scene {
            letter: "c",
            title: "backup in flight, with Handoff",
            plan: Plan { backup: true, handoff: true, limit: PATIENCE, restore: true, ..plain },
        },
    ]
}

fn link(bench: &Bench) -> &str {
    if bench.lab.is_some() { &bench.common.link } else { "as it is" }
}

async fn play(bench: &Bench, scene: &Scene) -> Result<Outcome> {
    println!("\n({}) {}", scene.letter, scene.title);
    workload::remove_leftovers(&bench.cluster).await?;
    workload::deploy(&bench.cluster, WorkloadKind::Statefulset, &bench.common.image).await?;
    let outcome = travel(bench, &scene.plan).await?;
    if outcome.stuck.is_some() {
        let seconds = scene.plan.limit.as_secs();
        println!("  after {seconds} s: {}; the node was uncordoned, and the pod came back", report::arrival(&outcome));
    }
    println!("  drain: {}", report::drain(&outcome));
    if let Some(backup) = &outcome.backup {
        println!("  backup: at {} % when the drain began, in the end {}", backup.at_drain, state(&outcome));
    }
    Ok(outcome)
}

fn state(outcome: &Outcome) -> String {
    let end = outcome.backup.as_ref().map(|b| &b.end);
    end.map_or("none".to_owned(), |end| match end.word.as_str() {
        "Completed" => "Completed".to_owned(),
        state => format!("{state} at {} %", end.progress),
    })
}

/// What was shown, in plain words, and whether it is what Handoff promises.
fn verdict(bench: &Bench, outcomes: &[(&str, Outcome)]) -> Result<bool> {
    let of = |letter: &str| {
        let found = outcomes.iter().find(|(l, _)| *l == letter);
        found.map(|(_, outcome)| outcome).context("a scene is missing")
    };
    let (plain, comparable, without, with) = (of("a")?, of("a'")?, of("b")?, of("c")?);
    println!("\nWithout Handoff");
    println!("  no backup, whole node:             {}", report::arrival(plain));
    println!("  no backup, without Longhorn's pods: {}", report::arrival(comparable));
    println!("  backup in flight, whole node:      {}, backup {}", report::arrival(without), state(without));
    println!("With Handoff");
    println!("  backup in flight, whole node:      {}, backup {}", report::arrival(with), state(with));

    println!("\nClaims");
    let mut claims = vec![needed(bench, without)];
    claims.extend(report::claims(with));
    let data: Vec<_> = [plain, comparable, without].into_iter().map(|o| &o.moved).collect();
    let equal = data.iter().all(|moved| matches!(moved, Compared::Equal(_)));
    claims.push(Claim::new("the other moves lost no data either", equal, String::new()));
    print_claims(&claims);
    Ok(claims.iter().all(|c| c.holds))
}

/// That there is something to put right.
fn needed(bench: &Bench, without: &Outcome) -> Claim {
    let found = format!("{}, backup {}", report::arrival(without), state(without));
    let lost = without.timeline.has(Step::BackupLost);
    if bench.pod_waits_for_backup() {
        let through = without.timeline.at(Step::Completed).unwrap_or(f64::INFINITY);
        let waits = !lost && without.ready().is_none_or(|ready| ready > through);
        return Claim::new("without Handoff the pod waits until its backup is through", waits, found);
    }
    Claim::new("without Handoff the backup is lost", lost, found)
}
