//! Every way in which a backup is interrupted: one after the other, on the real cluster, each from fresh data to the
//! comparison of every checksum.

mod contracts;
mod drains;
mod karpenter;
mod nodes;
mod operations;
mod owed;
mod passage;
mod pods;
mod prestage;
mod storage;
mod way;

pub use pods::cordon;
pub use way::Way;

use crate::{
    args::{InterruptArgs, WorkloadKind},
    bench::Bench,
    report::{self, print_claims},
    workload,
};
use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use passage::Passage;
use std::{fs, io::Write, path::Path};

/// `interrupt`: whether every claim held.
pub async fn run(bench: &Bench, args: &InterruptArgs) -> Result<bool> {
    let nodes = bench.nodes.len();
    let ways = if args.only.is_empty() { Way::value_variants().to_vec() } else { args.only.clone() };
    let (ways, left_out): (Vec<_>, Vec<_>) = ways.into_iter().partition(|way| way.lacks(nodes).is_none());
    for (way, lacks) in left_out.iter().filter_map(|way| Some((way, way.lacks(nodes)?))) {
        println!("left out: {} needs {lacks}", way.name());
    }
    if ways.is_empty() {
        bail!("nothing is left to do");
    }
    if bench.lab.is_none() && ways.iter().any(|way| way.needs_lab()) {
        let names = ways.iter().filter(|way| way.needs_lab()).map(|way| way.name()).collect::<Vec<_>>();
        bail!("these need --lab, as they act on processes or on the S3 server: {}", names.join(", "));
    }
    bench.with_handoff().await.context("installing Handoff")?;
    let mut passages = Vec::new();
    for way in ways {
        println!("\n{}: {}", way.name(), way.title());
        let passage = one(bench, way).await.with_context(|| way.name());
        // one that could not be carried out must not hide what the others show
        let passage = passage.unwrap_or_else(|error| Passage::broken(way, &error));
        print_claims(&passage.claims);
        passages.push(passage);
    }
    if let Some(path) = &args.outcomes {
        write_outcomes(bench, path, &passages)?;
    }
    println!("\n{}", table(&passages));
    let failed = passages.iter().flat_map(|p| &p.claims).filter(|c| !c.holds).count();
    let passed = passages.iter().map(|p| p.claims.len()).sum::<usize>() - failed;
    println!("\n{passed} passed, {failed} failed");
    Ok(failed == 0)
}

async fn one(bench: &Bench, way: Way) -> Result<Passage> {
    way.prepare(bench).await.context("preparing")?;
    workload::remove_leftovers(&bench.cluster).await?;
    let (kind, image) = (WorkloadKind::Statefulset, &bench.common.image);
    workload::deploy_with(&bench.cluster, kind, image, &way.parameters()).await?;
    way.adapt(bench).await.context("adapting the workload")?;
    let made = passage::make(bench, way).await;
    // what was done to the cluster is undone whatever came of it
    way.undo(bench).await.context("putting the cluster back in order")?;
    made
}

/// Adds how they ended to a file.
fn write_outcomes(bench: &Bench, path: &Path, passages: &[Passage]) -> Result<()> {
    let version = bench.longhorn.trim_start_matches('v');
    let lines = passages.iter().map(|passage| passage.outcome(version) + "\n").collect::<String>();
    let file = fs::OpenOptions::new().append(true).create(true).open(path);
    let written = file.and_then(|mut file| file.write_all(lines.as_bytes()));
    written.with_context(|| format!("cannot write {}", path.display()))
}

fn table(passages: &[Passage]) -> comfy_table::Table {
    let mut table = report::table(&["interruption", "backup in the end", "s to Ready", "blocks again/all", "claims"]);
    for passage in passages {
        let seconds = passage.ready.map_or("–".to_owned(), |s| format!("{s:.1}"));
        let blocks = passage.blocks.map_or("–".to_owned(), |b| format!("{}/{}", b.again, b.blocks));
        let held = passage.claims.iter().filter(|c| c.holds).count();
        let claims = format!("{held} of {}", passage.claims.len());
        table.add_row([passage.way.name(), passage.end.clone(), seconds, blocks, claims]);
    }
    table
}
