//! Instructions per request, by `valgrind --tool=callgrind`: a figure that does not depend on what else the machine
//! does. No network: the router is called directly, on one thread.

use crate::{
    load::By,
    ours::{self, Work},
};
use anyhow::{Context, ensure};
use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    http::{Request, StatusCode, header},
};
use std::{hint::black_box, path::Path, process::Command};
use tokio::runtime;
use tower::ServiceExt;

/// The function whose instructions are counted, as callgrind shows its name; not its closure, which would end the count.
const MEASURED: &str = "*handoff_bench::instructions::measured";

/// How many requests of a kind are counted; enough to make what happens once disappear.
fn count(work: Work) -> u32 {
    match work {
        Work::Create | Work::Delete | Work::Evict | Work::Bind => 200,
        Work::FilterNames | Work::Prioritize => 10,
        Work::FilterNodes => 3,
        Work::FilterAllNodes => 1,
    }
}

/// Calls one handler of [`plan`] as often as [`count`] says; run below callgrind, which counts in [`measured`] only.
pub fn drive(which: usize) -> anyhow::Result<()> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let router = runtime.block_on(ours::router())?;
    let (work, by) = plan().nth(which).context("there are fewer handlers")?;
    let body = Bytes::from(work.body()?);
    // the first request makes what is made once: metrics, thread pools
    warm_up(&runtime, &router, &by.path(work), &body)?;
    measured(&runtime, &router, &by.path(work), &body, count(work))
}

fn plan() -> impl Iterator<Item = (Work, By)> {
    Work::ALL.into_iter().flat_map(|work| By::BOTH.map(|by| (work, by)))
}

fn warm_up(runtime: &runtime::Runtime, router: &Router, path: &str, body: &Bytes) -> anyhow::Result<()> {
    runtime.block_on(call(router, path, body))
}

#[inline(never)]
fn measured(runtime: &runtime::Runtime, router: &Router, path: &str, body: &Bytes, count: u32) -> anyhow::Result<()> {
    runtime.block_on(async {
        for _ in 0..count {
            call(router, path, body).await?;
        }
        Ok(())
    })
}

async fn call(router: &Router, path: &str, body: &Bytes) -> anyhow::Result<()> {
    let request =
        Request::post(path).header(header::CONTENT_TYPE, "application/json").body(Body::from(body.clone()))?;
    let response = router.clone().oneshot(request).await?;
    ensure!(response.status() == StatusCode::OK, "{path}: {}", response.status());
    black_box(to_bytes(response.into_body(), usize::MAX).await?);
    Ok(())
}

/// CPU time per request in microseconds, all threads together: less exact than instructions, and at once.
pub fn cpu_all() -> anyhow::Result<Vec<(Work, By, f64)>> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let router = runtime.block_on(ours::router())?;
    let mut found = Vec::new();
    for (work, by) in plan() {
        let body = Bytes::from(work.body()?);
        let count = 10 * count(work);
        warm_up(&runtime, &router, &by.path(work), &body)?;
        let mut rounds = Vec::new();
        for _ in 0..5 {
            let before = cpu_nanoseconds()?;
            measured(&runtime, &router, &by.path(work), &body, count)?;
            rounds.push((cpu_nanoseconds()? - before) / 1e3 / f64::from(count));
        }
        rounds.sort_by(f64::total_cmp);
        found.push((work, by, rounds[rounds.len() / 2]));
    }
    Ok(found)
}

/// Time on a CPU of all threads of this process (proc(5), schedstat).
fn cpu_nanoseconds() -> anyhow::Result<f64> {
    let mut sum = 0.0;
    for task in std::fs::read_dir("/proc/self/task")? {
        let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
        sum += text.split(' ').next().context("schedstat is empty")?.parse::<f64>()?;
    }
    Ok(sum)
}

/// Instructions per request, in the order of [`plan`]; the profiles stay in `folder`. Fails without valgrind.
pub fn count_all(folder: &Path) -> anyhow::Result<Vec<(Work, By, f64)>> {
    std::fs::create_dir_all(folder)?;
    let mut found = Vec::new();
    for (which, (work, by)) in plan().enumerate() {
        let file = folder.join(format!("{work:?}-{by:?}.callgrind"));
        let status = Command::new("valgrind")
            .args(["--quiet", "--tool=callgrind", "--collect-atstart=no"])
            .arg(format!("--toggle-collect={MEASURED}"))
            .arg(format!("--callgrind-out-file={}", file.display()))
            .arg(std::env::current_exe()?)
            .args(["drive", &which.to_string()])
            .status()
            .context("valgrind does not start")?;
        ensure!(status.success(), "valgrind: {status}");
        let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let line =
            text.lines().find_map(|line| line.strip_prefix("summary: ").or_else(|| line.strip_prefix("totals: ")));
        let total: f64 = line.context("no summary in the profile")?.trim().parse()?;
        ensure!(total > 0.0, "callgrind did not see {MEASURED}");
        found.push((work, by, total / f64::from(count(work))));
    }
    Ok(found)
}
