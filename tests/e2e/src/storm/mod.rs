//! A drain storm: a node with many small volumes, some with backups in flight, drained at once. The same without Handoff
//! and with it, in one run.

mod fleet;
mod series;
mod watch;

use crate::{
    args::StormArgs,
    bench::Bench,
    drain::{Drain, WITHOUT_STORAGE},
    handoff,
    journey::Compared,
    report::{self, Claim, print_claims},
    restore, settle, workload,
};
use anyhow::{Context, Result};
use fleet::Fleet;
use std::{collections::BTreeMap, time::Duration};
use watch::Story;

/// A drain that has not ended by then does not end.
const DRAIN: Duration = Duration::from_mins(10);
/// Longhorn notices a lost backup within a few seconds.
const LOSS_SHOWS: Duration = Duration::from_secs(15);

/// One storm, weathered.
struct Weathered {
    story: Story,
    drain: (Option<i32>, f64, String),
    claims: Vec<Claim>,
}

/// `storm`: whether every claim held.
pub async fn run(bench: &Bench, args: &StormArgs) -> Result<bool> {
    if let Some(moves) = args.moves {
        return series::run(bench, args, moves).await;
    }
    println!(
        "{} volumes, {} with backups of {} MiB in flight, link {}",
        args.volumes, args.backups, bench.data, bench.common.link
    );
    bench.without_handoff().await?;
    let without = one(bench, args, false).await.context("without Handoff")?;
    bench.with_handoff().await.context("installing Handoff")?;
    let with = one(bench, args, true).await.context("with Handoff")?;
    println!("\n{}", table(&without, &with));
    println!("\nresumes with Handoff, in seconds after the drain began\n{}", with.story.resumes());
    Ok(verdict(&[without.claims, with.claims].concat()))
}

/// Prints the claims; whether all hold.
fn verdict(claims: &[Claim]) -> bool {
    println!("\nClaims");
    print_claims(claims);
    let failed = claims.iter().filter(|c| !c.holds).count();
    println!("\n{} passed, {failed} failed", claims.len() - failed);
    failed == 0
}

async fn one(bench: &Bench, args: &StormArgs, handoff: bool) -> Result<Weathered> {
    println!("\n{}", if handoff { "with Handoff" } else { "without Handoff" });
    workload::remove_leftovers(&bench.cluster).await?;
    let fleet = fleet::launch(bench, args).await.context("launching the fleet")?;
    weather(bench, args, &fleet, handoff).await
}

/// Loads the fleet and drains its node, with Handoff or without.
async fn weather(bench: &Bench, args: &StormArgs, fleet: &Fleet, handoff: bool) -> Result<Weathered> {
    let how = if handoff { "with Handoff" } else { "without Handoff" };
    let cargo = fleet::load(bench, args, fleet).await.context("loading the fleet")?;
    let watch = watch::Watch::start(&bench.cluster, fleet, &cargo.backups);
    settle::mark(&bench.cluster, &fleet.node).await?;
    // nobody would hold storage without Handoff, and volumes would be stranded: the same as `moves` does for plain moves
    let drain = Drain::start(&fleet.node, (!handoff).then_some(WITHOUT_STORAGE))?.wait(DRAIN).await?;
    let arrived = watch.all_ready(DRAIN).await;
    let safe = if handoff {
        watch.all_complete(DRAIN).await
    } else {
        tokio::time::sleep(LOSS_SHOWS).await;
        false
    };
    let story = watch.end();
    let mut claims = Vec::new();
    let mut claim = |text: &str, holds: bool, found: String| {
        claims.push(Claim::new(&format!("{how}: {text}"), holds, found));
    };
    claim("the drain ended by itself", drain.0 == Some(0), format!("after {:.1} s {}", drain.1, drain.2));
    claim("all pods are ready elsewhere", arrived, story.arrivals());
    if handoff {
        claim("all backups completed under their own names", safe && story.own_names(&cargo.backups), story.ends());
        let left = handoff::prestages(&bench.cluster).await?;
        claim("no pre-stage is left", left.is_empty(), left.join(", "));
    }
    settle::uncordon(bench).await?;
    let now = fleet::checksums(fleet).await?;
    let differ = cargo.data.iter().filter_map(|(pod, sums)| {
        let found = now.get(pod).cloned().unwrap_or_default();
        workload::difference(sums, &found).map(|how| format!("{pod}: {how}"))
    });
    let differ = differ.collect::<Vec<_>>();
    claim("the data of all volumes is equal", differ.is_empty(), differ.join("; "));
    if let Some((pod, backup)) = cargo.backups.first_key_value().filter(|_| handoff && safe) {
        settle::storage(bench).await?;
        let end = crate::backup::state(&bench.cluster, backup).await?;
        let found = restore::checksums(&bench.cluster, &end.url, &bench.common.image).await?;
        let restored = Compared::of(cargo.data.get(pod).unwrap_or(&BTreeMap::new()), &found);
        claims.push(report::compared(&format!("{how}: the restored data of {pod} equals the snapshot's"), &restored));
    }
    Ok(Weathered { story, drain, claims })
}

fn table(without: &Weathered, with: &Weathered) -> comfy_table::Table {
    let mut table = report::table(&["drain storm", "without Handoff", "with Handoff"]);
    let mut row = |figure: &str, of: &dyn Fn(&Weathered) -> String| {
        table.add_row([figure.to_owned(), of(without), of(with)]);
    };
    row("drain → pod Ready, min / p50 / p90 / max, s", &|w| w.story.arrivals());
    row("drain ended after, s", &|w| format!("{:.1}", w.drain.1));
    row("backups in the end", &|w| w.story.ends());
    row("drain → backup Completed, min / p50 / max, s", &|w| w.story.safe());
    row("backups that ran again at a time, at most", &|w| w.story.most_at_a_time().to_string());
    table
}
