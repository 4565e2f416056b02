//! `handoff status`: all volumes on the move or owing.

use super::{
    End,
    connection::{Cluster, ClusterArgs},
    history::seconds,
    look,
    output::{self, Format, OutputArgs, Report, relative},
};
use anyhow::Context;
use clap::Args;
use futures::{StreamExt, TryStreamExt};
use handoff_coordinator::api::{Phase, ResumeState, VolumeHandoff, VolumeHandoffStatus};
use jiff::Timestamp;
use kube::{
    ResourceExt,
    runtime::{WatchStreamExt, watcher},
};
use serde::Serialize;
use std::{collections::BTreeMap, io::IsTerminal, time::Duration};

/// Changes that come closer together than this are one.
const CALM: Duration = Duration::from_millis(200);

/// `handoff status`.
#[derive(Args, Debug)]
pub struct StatusArgs {
    /// Finished handoffs too: they are kept for an hour.
    #[arg(short, long)]
    pub all: bool,
    /// All namespaces; this is so unless one is named.
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    pub all_namespaces: bool,
    /// Print it again whenever something changes, until interrupted.
    #[arg(short, long)]
    pub watch: bool,
    /// How it is printed.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// All volumes on the move or owing.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// One per volume, the newest move first.
    pub volumes: Vec<Row>,
    /// Finished handoffs that are not listed.
    pub finished: usize,
    #[serde(skip)]
    now: Timestamp,
}

/// One volume.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Namespace of the claim.
    pub namespace: String,
    /// The claim.
    pub claim: String,
    /// The `PersistentVolume`.
    pub volume: String,
    /// The pod that leaves or left.
    pub pod: String,
    /// The node that is left.
    pub from: String,
    /// The node it goes to, as far as that is known.
    pub to: Option<String>,
    /// Where it stands; none before the first decision.
    pub phase: Option<Phase>,
    /// Since when.
    pub since: Timestamp,
    /// The eviction is held until then at most.
    pub held_until: Option<Timestamp>,
    /// `1/2 safe`.
    pub backups: String,
    /// What is owed.
    pub owed: Vec<Owed>,
    /// From the trigger to a ready workload; none before that.
    pub seconds: Option<f64>,
    /// What happens now.
    pub now: String,
}

/// A backup that is owed.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Owed {
    /// Its name.
    pub backup: String,
    /// Where it stands.
    pub state: ResumeState,
    /// How often it was made to run again.
    pub attempts: u32,
    /// Not tried again before this.
    pub next_try_at: Option<Timestamp>,
}

/// Lists what is on the move or owing.
pub async fn run(args: StatusArgs) -> anyhow::Result<End> {
    let cluster = args.cluster.connect().await?;
    if args.watch {
        return watch(&cluster, &args).await;
    }
    let handoffs = look::handoffs(&cluster, cluster.named.as_deref()).await?;
    output::print(&status(&handoffs, args.all, Timestamp::now()), args.output.output)?;
    Ok(End::Yes)
}

async fn watch(cluster: &Cluster, args: &StatusArgs) -> anyhow::Result<End> {
    let api = cluster.objects::<VolumeHandoff>(cluster.named.as_deref());
    // the first answer says whether this is allowed at all; the watch would try for ever
    api.list(&kube::api::ListParams::default().limit(1))
        .await
        .context("cannot list VolumeHandoffs: is Handoff installed?")?;
    let mut stream = watcher(api, watcher::Config::default()).default_backoff().boxed();
    let mut handoffs = BTreeMap::new();
    let (mut listing, mut changed) = (true, false);
    loop {
        let next = if changed && !listing {
            tokio::time::timeout(CALM, stream.try_next()).await
        } else {
            Ok(stream.try_next().await)
        };
        match next {
            Ok(Ok(Some(event))) => {
                listing = take_in(event, &mut handoffs).unwrap_or(listing);
                changed = true;
            }
            Ok(Ok(None)) => return Ok(End::Yes),
            Ok(Err(error)) => eprintln!("handoff: the watch was interrupted, retrying: {error}"),
            Err(_) => {
                let all = handoffs.values().cloned().collect::<Vec<_>>();
                show(&status(&all, args.all, Timestamp::now()), args.output.output)?;
                changed = false;
            }
        }
    }
}

/// Whether a list is under way now, if this event says.
fn take_in(event: watcher::Event<VolumeHandoff>, handoffs: &mut BTreeMap<String, VolumeHandoff>) -> Option<bool> {
    match event {
        watcher::Event::Init => {
            handoffs.clear();
            Some(true)
        }
        watcher::Event::InitDone => Some(false),
        watcher::Event::Apply(handoff) | watcher::Event::InitApply(handoff) => {
            handoffs.insert(handoff.name_any(), handoff);
            None
        }
        watcher::Event::Delete(handoff) => {
            handoffs.remove(&handoff.name_any());
            None
        }
    }
}

fn show(status: &Status, format: Format) -> anyhow::Result<()> {
    let text = match format {
        // one line per change, so that it can be read as it comes
        Format::Json => serde_json::to_string(status).context("cannot write JSON")? + "\n",
        Format::Yaml => format!("---\n{}", output::render(status, format)?),
        Format::Table if std::io::stdout().is_terminal() => {
            format!("\x1b[H\x1b[2J{}", output::render(status, format)?)
        }
        Format::Table => format!("{}\n", output::render(status, format)?),
    };
    output::write(&text)
}

/// What is on the move or owing, as far as `handoffs` say; with `all`, what is finished too.
pub fn status(handoffs: &[VolumeHandoff], all: bool, now: Timestamp) -> Status {
    let mut shown = handoffs.iter().filter(|h| all || !h.is_finished()).collect::<Vec<_>>();
    shown.sort_by_key(|h| (h.is_finished(), std::cmp::Reverse(h.spec.triggered_at)));
    let finished = handoffs.len() - shown.len();
    Status { volumes: shown.into_iter().map(|h| row(h, now)).collect(), finished, now }
}

fn row(handoff: &VolumeHandoff, now: Timestamp) -> Row {
    let VolumeHandoffStatus { to, phase, backups_safe, duration, message, resumes, .. } = handoff.journal();
    let owed = handoff.owed().map(|checkpoint| {
        let resume = resumes.iter().find(|r| r.backup == checkpoint.backup);
        Owed {
            backup: checkpoint.backup.clone(),
            state: resume.map_or(ResumeState::Waiting, |r| r.state),
            attempts: resume.map_or(0, |r| r.attempts),
            next_try_at: resume.and_then(|r| r.next_try_at),
        }
    });
    let spec = &handoff.spec;
    Row {
        namespace: handoff.namespace().unwrap_or_default(),
        claim: spec.volume.claim.clone(),
        volume: handoff.name_any(),
        pod: spec.pod.name.clone(),
        from: spec.from.clone(),
        to,
        phase,
        since: spec.triggered_at,
        held_until: spec.hold.map(|h| h.deadline).filter(|at| now < *at),
        backups: backups_safe,
        owed: owed.collect(),
        seconds: seconds(&duration),
        now: message,
    }
}

impl Report for Status {
    fn text(&self) -> String {
        let mut text = if self.volumes.is_empty() {
            "No volume is on the move, and no backup is owed.".to_owned()
        } else {
            let header = ["NAMESPACE", "CLAIM", "POD", "FROM", "TO", "PHASE", "SINCE", "BACKUPS", "MOVE", "NOW"];
            output::table(header, self.volumes.iter().map(|row| row.cells(self.now)))
        };
        if self.finished > 0 {
            let (count, s) = (self.finished, if self.finished == 1 { " is" } else { "s are" });
            text = format!("{text}\n{count} handoff{s} finished: --all shows them.");
        }
        text
    }
}

impl Row {
    fn cells(&self, now: Timestamp) -> [String; 10] {
        let held = self.held_until.map(|at| format!("held until {at:.0} at most; ")).unwrap_or_default();
        [
            self.namespace.clone(),
            self.claim.clone(),
            self.pod.clone(),
            self.from.clone(),
            self.to.clone().unwrap_or_else(|| "-".to_owned()),
            self.phase.map_or_else(|| "-".to_owned(), |p| format!("{p:?}")),
            relative(self.since, now),
            self.backups.clone(),
            self.seconds.map_or_else(|| "-".to_owned(), |s| format!("{s:.1}s")),
            format!("{held}{}", self.now),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at, handoff};
    use super::*;
    use handoff_coordinator::api::Hold;

    #[test]
    fn what_moves_or_owes_comes_first_and_what_is_finished_is_counted() {
        let (mut moving, mut finished) = (handoff("one"), handoff("two"));
        moving.spec.hold = Some(Hold { since: at(0), deadline: at(60) });
        moving.status.as_mut().unwrap().message = "moving from a to b".into();
        finished.status.as_mut().unwrap().finished_at = Some(at(40));
        let handoffs = [finished, moving];

        let report = status(&handoffs, false, at(50));
        assert_eq!((report.volumes.len(), report.finished), (1, 1));
        let row = &report.volumes[0];
        assert_eq!((row.volume.as_str(), row.held_until, row.owed.len()), ("one", Some(at(60)), 1));
        let lines = report.text().lines().map(ToOwned::to_owned).collect::<Vec<_>>();
        let cells = lines[1].split("  ").map(str::trim).filter(|c| !c.is_empty()).collect::<Vec<_>>();
        assert_eq!(cells[..6], ["shop", "data-one", "db-0", "a", "b", "Moving"]);
        assert_eq!(cells[6], "50s ago");
        assert!(cells[9].starts_with("held until") && cells[9].ends_with("moving from a to b"), "{}", cells[9]);
        assert_eq!(lines[2], "1 handoff is finished: --all shows them.");

        let report = status(&handoffs, true, at(70));
        let names = report.volumes.iter().map(|v| v.volume.as_str()).collect::<Vec<_>>();
        assert_eq!((names, report.finished), (vec!["one", "two"], 0));
        assert_eq!(report.volumes[0].held_until, None, "the hold is over");
    }

    #[test]
    fn nothing_to_report_is_a_sentence() {
        assert_eq!(status(&[], false, at(0)).text(), "No volume is on the move, and no backup is owed.");
    }

    #[test]
    fn programs_get_what_people_see() {
        let json = serde_json::to_value(status(&[handoff("one")], false, at(9))).unwrap();
        let row = &json["volumes"][0];
        assert_eq!(
            row["owed"][0],
            serde_json::json!({
                "backup": "b1", "state": "Waiting", "attempts": 1, "nextTryAt": at(30).to_string(),
            })
        );
        assert_eq!((&row["phase"], &row["heldUntil"]), (&"Moving".into(), &serde_json::Value::Null));
    }
}
