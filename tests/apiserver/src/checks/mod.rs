//! The checks, one file per hook or promise.

mod binding;
mod cert_manager;
mod create;
mod delete;
mod eviction;
mod extender;
mod files;
mod hold;
mod lag;
mod optout;
pub mod outage;
mod permissions;
mod snapshot;
pub mod storage;
mod tier;
mod unrelated;

use crate::{args::Paths, bench::Bench, report::figure};
use anyhow::{Result, bail};
use futures::future::LocalBoxFuture;
use std::time::Instant;

type Check = for<'a> fn(&'a mut Bench) -> LocalBoxFuture<'a, Result<()>>;

const CHECKS: [(&str, Check); 16] = [
    ("create", |b| Box::pin(create::run(b))),
    ("unrelated", |b| Box::pin(unrelated::run(b))),
    ("delete", |b| Box::pin(delete::run(b))),
    ("eviction", |b| Box::pin(eviction::run(b))),
    ("binding", |b| Box::pin(binding::run(b))),
    ("snapshot", |b| Box::pin(snapshot::run(b))),
    ("storage", |b| Box::pin(storage::run(b))),
    ("optout", |b| Box::pin(optout::run(b))),
    ("hold", |b| Box::pin(hold::run(b))),
    ("lag", |b| Box::pin(lag::run(b))),
    ("extender", |b| Box::pin(extender::run(b))),
    ("tier", |b| Box::pin(tier::run(b))),
    ("permissions", |b| Box::pin(permissions::run(b))),
    ("outage", |b| Box::pin(outage::run(b))),
    ("files", |b| Box::pin(files::run(b))),
    // the last one: another source of certificates is installed and stays
    ("cert-manager", |b| Box::pin(cert_manager::run(b))),
];

/// Runs all checks, or those that are named. Whether all of them held.
pub async fn run(paths: &Paths, only: &[String]) -> Result<bool> {
    if let Some(unknown) = only.iter().find(|o| !CHECKS.iter().any(|(name, _)| name == o)) {
        bail!("there is no group {unknown}; there are {}", CHECKS.map(|(name, _)| name).join(", "));
    }
    let started = Instant::now();
    let mut bench = Bench::start(paths).await?;
    println!("control plane and {} replicas after {:.1} s", bench.replicas.count(), started.elapsed().as_secs_f64());
    for (name, check) in CHECKS {
        if only.is_empty() || only.iter().any(|o| o == name) {
            let began = Instant::now();
            bench.report.group(name);
            if let Err(error) = check(&mut bench).await {
                bench.report.check("the check ran to its end", false, format!("{error:#}"));
            }
            bench.clear().await?;
            figure("took", format!("{:.1} s", began.elapsed().as_secs_f64()));
        }
    }
    println!("\nall in {:.0} s", started.elapsed().as_secs_f64());
    Ok(bench.report.end())
}
