//! The page of moves in a real browser: headless Chromium, told what to do over its debugging pipe. Without a harness, so
//! that "not checked" is seen. `HANDOFF_SCREENSHOT=docs/moves.png` keeps the picture.

mod chromium;

use anyhow::{Context, Result, ensure};
use chromium::{Browser, Tab};
use handoff::page::{
    self,
    view::{Replica, View},
};
use handoff_coordinator::api::{Hold, Phase, VolumeHandoff};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::{
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::net::TcpListener;

/// Larger than this a picture is not kept.
const PICTURE: usize = 200_000;

fn main() -> ExitCode {
    let Some(program) = chromium::find() else {
        eprintln!(
            "\nNOT CHECKED: the page of moves in a browser. There is no Chromium: apt-get install chromium-headless-shell\n"
        );
        return ExitCode::SUCCESS;
    };
    let runtime = tokio::runtime::Runtime::new();
    let checked = runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(check(&program)));
    match checked {
        Ok(()) => {
            println!("the page of moves in {program}: ok");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("the page of moves in {program}: {error:?}");
            ExitCode::FAILURE
        }
    }
}

fn at(seconds: f64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(1_800_000_000) + SignedDuration::from_secs_f64(seconds)
}

/// A move that began so many seconds ago.
fn handoff(name: &str, claim: &str, began: f64, steps: &[(&str, f64)], status: &Value) -> Result<VolumeHandoff> {
    let timeline = steps.iter().map(|(what, s)| json!({"what": what, "at": at(s - began)})).collect::<Vec<_>>();
    let mut object = json!({
        "apiVersion": "volumehandoff.io/v1alpha1", "kind": "VolumeHandoff",
        "metadata": {"name": name, "namespace": "shop", "uid": name},
        "spec": {
            "volume": {"driver": "driver.longhorn.io", "handle": name, "volume": name, "claim": claim},
            "pod": {"name": claim.trim_start_matches("data-"), "uid": "p"}, "from": "node-1", "trigger": "Eviction",
            "triggeredAt": at(-began),
            "checkpoints": [{
                "backup": format!("backup-of-{name}"), "uid": "b", "snapshot": "s", "target": "default",
                "mode": "incremental", "progress": 23, "recordedAt": at(-began),
            }],
        },
        "status": {"moveStartedAt": at(-began), "from": "node-1", "to": "node-2", "timeline": timeline},
    });
    for (key, value) in status.as_object().into_iter().flatten() {
        object["status"][key] = value.clone();
    }
    serde_json::from_value(object).context("no handoff")
}

/// What the page is about: moves in every state, and a name that would be a script.
fn scene() -> Result<Vec<VolumeHandoff>> {
    let held =
        [("Eviction", 0.0), ("PodTerminating", 21.0), ("Detached", 24.4), ("Attached", 29.3), ("WorkloadReady", 33.0)];
    let done = [
        ("Eviction", 0.0),
        ("PodTerminating", 0.4),
        ("PreStaged", 2.1),
        ("Detached", 3.8),
        ("BackupLost backup-of-pvc-2", 4.0),
        ("Adopted", 5.0),
        ("Attached", 8.9),
        ("WorkloadReady", 13.9),
        ("BackupResumed backup-of-pvc-2", 45.0),
        ("BackupCompleted backup-of-pvc-2", 160.0),
    ];
    let owes = [
        ("Eviction", 0.0),
        ("PodTerminating", 0.3),
        ("Detached", 4.1),
        ("BackupLost backup-of-pvc-1", 4.2),
        ("Attached", 9.6),
        ("WorkloadReady", 14.2),
        ("BackupResumed backup-of-pvc-1", 50.0),
    ];
    let resume = |backup: &str, state: &str| json!([{"backup": backup, "state": state, "attempts": 1}]);
    let moving = json!({"phase": "Moving", "backupsSafe": "0/1 safe"});
    let resuming = json!({
        "phase": "Resuming", "backupsSafe": "0/1 safe", "resumes": resume("backup-of-pvc-1", "Running"),
    });
    let complete = |backup: &str, finished: f64| {
        let resumes = resume(backup, "Completed");
        json!({"phase": "Complete", "backupsSafe": "1/1 safe", "finishedAt": at(finished), "resumes": resumes})
    };
    let mut waited = handoff("pvc-3", "data-queue-0", 5400.0, &held, &complete("backup-of-pvc-3", -5360.0))?;
    waited.spec.hold = Some(Hold { since: at(-5400.0), deadline: at(-5340.0) });
    let leaves = [("Eviction", 0.0), ("PodTerminating", 0.4), ("Detached", 3.9)];
    Ok(vec![
        handoff("pvc-0", "data-db-0", 6.0, &leaves, &moving)?,
        handoff("pvc-1", "data-search-1", 2520.0, &owes, &resuming)?,
        handoff("pvc-2", "data-mail-0", 3100.0, &done, &complete("backup-of-pvc-2", -2940.0))?,
        waited,
    ])
}

async fn check(program: &str) -> Result<()> {
    let handoffs = Arc::new(Mutex::new(scene()?));
    let shown = handoffs.clone();
    let source = move || {
        let handoffs = shown.lock().unwrap_or_else(PoisonError::into_inner);
        let replica = Replica { name: "handoff-0".into(), leads: true, missing: vec![] };
        View::of(replica, handoffs.iter(), &[], at(0.0))
    };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = format!("http://{}/", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, page::router(Arc::new(source))).await });

    let mut browser = Browser::start(program)?;
    let mut tab = browser.open(&address).await?;
    looks(&mut tab).await.context("what is shown")?;
    keyboard_and_updates(&mut tab, &handoffs).await.context("keyboard and updates")?;
    dark(&mut tab).await.context("dark mode")?;
    names(&mut tab, &handoffs).await.context("names")?;
    let said = tab.complaints();
    ensure!(said.is_empty(), "the browser complained: {said:?}");
    Ok(())
}

async fn looks(tab: &mut Tab<'_>) -> Result<()> {
    ensure!(tab.eval("location.pathname").await? == "/moves", "/ leads to /moves");
    ensure!(tab.eval("document.querySelectorAll('svg.bar').length").await? == 4);
    let tree = tab.accessibility().await?;
    let named = |role: &str, name: &str| tree.iter().any(|(r, n)| r == role && n.starts_with(name));
    for (role, name) in [
        ("heading", "Owed backups"),
        ("heading", "Moves"),
        ("columnheader", "Timeline"),
        ("rowheader", "backup-of-pvc-0"),
        ("rowheader", "shop/data-db-0"),
        ("button", "Pause updates"),
        ("image", "Timeline: detach 3.5 s, attach 2.1 s so far, total 6.0 s so far"),
        ("region", "Moves"),
        ("main", ""),
    ] {
        ensure!(named(role, name), "{role} {name:?} in {tree:?}");
    }
    ensure!(tree.iter().filter(|(role, _)| role == "image").all(|(_, name)| !name.is_empty()), "{tree:?}");
    let picture = tab.screenshot().await?;
    ensure!(picture.starts_with(b"\x89PNG") && picture.len() <= PICTURE, "a picture of {} bytes", picture.len());
    if let Some(file) = std::env::var_os("HANDOFF_SCREENSHOT") {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
        std::fs::write(&file, picture).with_context(|| format!("cannot write {}", file.display()))?;
    }
    // nothing is drawn over the edge of a phone either, except tables, which scroll by themselves
    tab.size(380, 800).await?;
    ensure!(tab.eval("document.documentElement.scrollWidth <= innerWidth").await? == true);
    tab.size(1280, 800).await
}

/// Reaches the first move's steps with the keyboard alone, opens them, and keeps its place while the page changes.
async fn keyboard_and_updates(tab: &mut Tab<'_>, handoffs: &Mutex<Vec<VolumeHandoff>>) -> Result<()> {
    let mut way = Vec::new();
    for _ in 0..20 {
        tab.press("Tab").await?;
        let focused = tab.eval("document.activeElement.id || document.activeElement.textContent").await?;
        let focused = focused.as_str().unwrap_or_default().to_owned();
        way.push(focused.clone());
        if focused.starts_with("steps-") {
            break;
        }
    }
    ensure!(way.iter().any(|w| w == "updates") && way.iter().any(|w| w == "moves-table"), "{way:?}");
    let steps = way.last().filter(|w| w.starts_with("steps-move-pvc-0")).context("no way to the steps")?.clone();
    ensure!(tab.eval("getComputedStyle(document.activeElement).outlineStyle").await? == "solid", "focus is seen");
    tab.press("Enter").await?;
    ensure!(tab.eval("document.activeElement.parentElement.open").await? == true);
    tab.eval("window.before = document.activeElement; 0").await?;

    *handoffs.lock().unwrap_or_else(PoisonError::into_inner) = {
        let mut changed = scene()?;
        if let Some(status) = &mut changed[0].status {
            status.phase = Some(Phase::Attached);
        }
        changed
    };
    tab.until("document.querySelector('main').textContent.includes('attached, the pod is starting')").await?;
    ensure!(tab.eval("window.before.isConnected").await? == false, "the page was brought up to date");
    ensure!(tab.eval("document.activeElement.id").await? == *steps, "focus stays");
    ensure!(tab.eval("document.activeElement.parentElement.open").await? == true, "what was open stays open");

    tab.eval("document.querySelector('#updates').click(); 0").await?;
    ensure!(tab.eval("document.querySelector('#updates').textContent").await? == "Resume updates");
    tab.eval("window.before = document.querySelector('main').firstElementChild; 0").await?;
    tokio::time::sleep(Duration::from_secs(6)).await;
    ensure!(tab.eval("window.before.isConnected").await? == true, "paused: nothing is replaced");
    tab.eval("document.querySelector('#updates').click(); 0").await?;
    tab.until("!window.before.isConnected").await
}

async fn dark(tab: &mut Tab<'_>) -> Result<()> {
    let paper = "getComputedStyle(document.body).backgroundColor";
    let light = tab.eval(paper).await?;
    tab.prefers("dark").await?;
    let dark = tab.eval(paper).await?;
    ensure!(light == "rgb(255, 255, 255)" && dark == "rgb(16, 20, 26)", "{light} and {dark}");
    tab.prefers("light").await
}

/// Names from the cluster are text, whatever is in them, also when the script puts them into the page.
async fn names(tab: &mut Tab<'_>, handoffs: &Mutex<Vec<VolumeHandoff>>) -> Result<()> {
    *handoffs.lock().unwrap_or_else(PoisonError::into_inner) = {
        let mut evil = scene()?;
        evil[0].spec.pod.name = "<img src=x onerror=\"window.hacked=1\"><script>window.hacked=1</script>".into();
        evil
    };
    tab.until("document.querySelector('main').textContent.includes('<img src=x')").await?;
    ensure!(tab.eval("typeof window.hacked").await? == "undefined");
    ensure!(tab.eval("document.querySelectorAll('main img, main script').length").await? == 0);
    Ok(())
}
