//! `handoff resume` and `handoff abandon`: orders about owed backups. They are written into the `VolumeHandoff`, under its
//! resourceVersion; the replica that leads obeys them.

use super::{
    End,
    connection::{Cluster, ClusterArgs},
    output::{self, OutputArgs, Progress, Report, Tone, paint},
    subject::{self, Object},
};
use anyhow::{Context, bail};
use clap::Args;
use handoff_coordinator::api::{Order, OrderKind, ResumeState, VolumeHandoff, is_done};
use jiff::Timestamp;
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use serde::Serialize;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;

/// Rounds before giving up on a contended object.
pub const ROUNDS: usize = 5;
/// How long the leading replica is given to obey before this says that it has not yet.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked whether it has.
const POLL: Duration = Duration::from_millis(250);

/// `handoff resume` and `handoff abandon`.
#[derive(Args, Debug)]
pub struct OrderArgs {
    /// Whose backups: `pod/NAME`, `pvc/NAME` or `pv/NAME`.
    #[arg(required = true, num_args = 1..=2, value_name = "OBJECT")]
    pub object: Vec<String>,
    /// Only this backup; may be given several times. Otherwise all that are meant.
    #[arg(short, long, value_name = "NAME")]
    pub backup: Vec<String>,
    /// Do not ask.
    #[arg(short, long)]
    pub yes: bool,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// How it is printed.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// What became of an order.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Orders {
    /// What was asked for.
    pub order: OrderKind,
    /// Nothing was written.
    pub dry_run: bool,
    /// One per backup.
    pub backups: Vec<Ordered>,
}

/// One backup.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ordered {
    /// Namespace of the handoff.
    pub namespace: String,
    /// Name of the handoff and of the volume.
    pub volume: String,
    /// The backup.
    pub backup: String,
    /// Where it stands now.
    pub state: ResumeState,
    /// The leading replica has taken the order.
    pub obeyed: bool,
}

/// Writes an order for each backup that is meant, and waits for a while until it is obeyed.
pub async fn run(args: OrderArgs, order: OrderKind) -> anyhow::Result<End> {
    let object = Object::parse(&args.object)?;
    let cluster = args.cluster.connect().await?;
    let handoffs = subject::handoffs_of(&cluster, &object).await?;
    let meant = meant(&handoffs, order, &args.backup).with_context(|| format!("nothing to do for {object}"))?;
    let names = meant.iter().map(|(_, backup)| backup.as_str()).collect::<Vec<_>>().join(", ");
    if order == OrderKind::Abandon && !args.dry_run {
        let question = format!("Abandon backup {names}? It will not be made complete.");
        if !output::confirm(&question, args.yes)? {
            bail!("not confirmed, nothing was done");
        }
    }
    let report = give(&cluster, &meant, order, args.dry_run, Timestamp::now()).await?;
    output::print(&report, args.output.output)?;
    Ok(if report.dry_run || report.backups.iter().all(|b| b.obeyed) { End::Yes } else { End::No })
}

/// Handoff and backup for each backup that is meant. The error says why there is none, or that a named one is none.
pub fn meant<'a>(
    handoffs: &'a [VolumeHandoff],
    order: OrderKind,
    named: &[String],
) -> anyhow::Result<Vec<(&'a VolumeHandoff, String)>> {
    let mut found = Vec::new();
    for handoff in handoffs {
        let resumes = handoff.journal().resumes;
        for checkpoint in &handoff.spec.checkpoints {
            let state = resumes.iter().find(|r| r.backup == checkpoint.backup).map(|r| r.state);
            // what was given up can be tried again
            let again = order == OrderKind::Resume && state == Some(ResumeState::Unrecoverable);
            let is_named = named.is_empty() || named.contains(&checkpoint.backup);
            if is_named && (again || !is_done(&resumes, &checkpoint.backup)) {
                found.push((handoff, checkpoint.backup.clone()));
            }
        }
    }
    if let Some(unknown) = named.iter().find(|name| !found.iter().any(|(_, backup)| backup == *name)) {
        bail!("no backup {unknown} is owed");
    }
    if found.is_empty() {
        bail!("no backup is owed");
    }
    Ok(found)
}

async fn give(
    cluster: &Cluster,
    meant: &[(&VolumeHandoff, String)],
    what: OrderKind,
    dry_run: bool,
    now: Timestamp,
) -> anyhow::Result<Orders> {
    let order = Order { what, at: now };
    let mut progress = Progress::default();
    let mut backups = Vec::new();
    for (handoff, backup) in meant {
        let api: Api<VolumeHandoff> = Api::namespaced(cluster.client.clone(), &handoff.namespace().unwrap_or_default());
        let mut latest = VolumeHandoff::clone(handoff);
        if !dry_run {
            latest = write(&api, &handoff.name_any(), backup, order).await?;
            let until = Instant::now() + PATIENCE;
            while !is_obeyed(&latest, backup, order) && Instant::now() < until {
                progress.say(&format!("waiting for the leading replica to take the order about {backup}"));
                tokio::time::sleep(POLL).await;
                latest = api.get(&handoff.name_any()).await.context("cannot read the VolumeHandoff")?;
            }
        }
        let state = latest.journal().resumes.iter().find(|r| r.backup == *backup).map(|r| r.state);
        backups.push(Ordered {
            namespace: handoff.namespace().unwrap_or_default(),
            volume: handoff.name_any(),
            backup: backup.clone(),
            state: state.unwrap_or(ResumeState::Waiting),
            obeyed: is_obeyed(&latest, backup, order),
        });
    }
    Ok(Orders { order: what, dry_run, backups })
}

/// Writes the order, whoever else writes meanwhile.
async fn write(api: &Api<VolumeHandoff>, name: &str, backup: &str, order: Order) -> anyhow::Result<VolumeHandoff> {
    for _ in 0..ROUNDS {
        let handoff = api.get(name).await.with_context(|| format!("cannot read VolumeHandoff {name}"))?;
        let patch = patch(&handoff, backup, order)
            .with_context(|| format!("backup {backup} is no longer written down in VolumeHandoff {name}"))?;
        match api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(written) => return Ok(written),
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(error).with_context(|| format!("cannot write VolumeHandoff {name}")),
        }
    }
    bail!("VolumeHandoff {name} kept changing under us; nothing was ordered")
}

/// The merge patch that adds the order, if nobody has changed the handoff since. `None`: the backup is not in it.
fn patch(handoff: &VolumeHandoff, backup: &str, order: Order) -> Option<Value> {
    let mut checkpoints = handoff.spec.checkpoints.clone();
    checkpoints.iter_mut().find(|c| c.backup == backup)?.order = Some(order);
    // a merge patch replaces a list as a whole
    Some(json!({"metadata": {"resourceVersion": handoff.resource_version()}, "spec": {"checkpoints": checkpoints}}))
}

fn is_obeyed(handoff: &VolumeHandoff, backup: &str, order: Order) -> bool {
    let resume = handoff.journal().resumes.into_iter().find(|r| r.backup == backup);
    resume.is_some_and(|r| match order.what {
        OrderKind::Abandon => r.state.is_final(),
        OrderKind::Resume => r.order_at == Some(order.at),
    })
}

impl Report for Orders {
    fn text(&self) -> String {
        let verb = match self.order {
            OrderKind::Resume => "resume",
            OrderKind::Abandon => "abandon",
        };
        let lines = self.backups.iter().map(|b| {
            let Ordered { namespace, volume, backup, state, .. } = b;
            if self.dry_run {
                return format!("would {verb} backup {backup} of {namespace}/{volume}, which is {state:?}");
            }
            if b.obeyed {
                let what = paint(Tone::Good, &format!("{verb}: taken"));
                return format!("{what}: backup {backup} of {namespace}/{volume} is {state:?}");
            }
            let what = paint(Tone::Doubtful, "ordered, not taken yet");
            format!("{what}: backup {backup} of {namespace}/{volume}. Does a replica lead? See `handoff doctor`")
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::super::{
        fake::Api as Fake,
        tests::{at, handoff},
    };
    use super::*;

    const PATH: &str = "/apis/volumehandoff.io/v1alpha1/namespaces/shop/volumehandoffs/one";

    fn with_state(state: &str) -> VolumeHandoff {
        let mut handoff = handoff("one");
        handoff.status.as_mut().unwrap().resumes[0].state = serde_json::from_value(json!(state)).unwrap();
        handoff
    }

    #[test]
    fn which_backups_are_meant() {
        for (state, order, wanted) in [
            ("Waiting", OrderKind::Resume, true),
            ("Waiting", OrderKind::Abandon, true),
            ("Running", OrderKind::Abandon, true),
            ("Completed", OrderKind::Resume, false),
            ("Completed", OrderKind::Abandon, false),
            ("Unrecoverable", OrderKind::Resume, true),
            ("Unrecoverable", OrderKind::Abandon, false),
            ("Abandoned", OrderKind::Resume, false),
        ] {
            let handoffs = [with_state(state)];
            assert_eq!(meant(&handoffs, order, &[]).is_ok(), wanted, "{state} {order:?}");
        }
        let handoffs = [with_state("Waiting")];
        let named = meant(&handoffs, OrderKind::Resume, &["b1".into()]).unwrap();
        assert_eq!(named[0].1, "b1");
        let error = meant(&handoffs, OrderKind::Resume, &["b1".into(), "b2".into()]).unwrap_err();
        assert_eq!(error.to_string(), "no backup b2 is owed");
    }

    #[test]
    fn an_order_changes_one_checkpoint_and_has_its_precondition() {
        let mut two = handoff("one");
        let mut second = two.spec.checkpoints[0].clone();
        second.backup = "b2".into();
        two.spec.checkpoints.push(second);
        let order = Order { what: OrderKind::Abandon, at: at(9) };
        let patch = patch(&two, "b2", order).unwrap();
        assert_eq!(patch["metadata"]["resourceVersion"], "1");
        assert_eq!(patch["spec"]["checkpoints"][0].get("order"), None);
        assert_eq!(patch["spec"]["checkpoints"][1]["order"], json!({"what": "Abandon", "at": at(9)}));
        assert!(super::patch(&two, "b3", order).is_none());
    }

    #[tokio::test]
    async fn an_order_is_written_through_the_changes_of_others_and_seen_to_be_obeyed() {
        let api = Fake::default();
        api.put(PATH, json!(handoff("one")));
        // somebody is quicker twice, then the leader obeys
        api.conflict(2);
        let obey = api.clone();
        let leader = tokio::spawn(async move {
            loop {
                let object = obey.get(PATH).unwrap();
                if object.pointer("/spec/checkpoints/0/order/what") == Some(&json!("Abandon")) {
                    obey.put(PATH, {
                        let mut object = object;
                        object["status"]["resumes"][0]["state"] = json!("Abandoned");
                        object
                    });
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        let handoffs = [handoff("one")];
        let meant = meant(&handoffs, OrderKind::Abandon, &[]).unwrap();
        let report = give(&api.cluster("shop"), &meant, OrderKind::Abandon, false, at(9)).await.unwrap();
        leader.await.unwrap();
        assert_eq!((report.backups[0].state, report.backups[0].obeyed), (ResumeState::Abandoned, true));
        assert!(report.text().contains("taken"), "{}", report.text());
    }

    #[tokio::test]
    async fn a_dry_run_writes_nothing() {
        let api = Fake::default();
        api.put(PATH, json!(handoff("one")));
        let handoffs = [handoff("one")];
        let meant = meant(&handoffs, OrderKind::Resume, &[]).unwrap();
        let report = give(&api.cluster("shop"), &meant, OrderKind::Resume, true, at(9)).await.unwrap();
        assert_eq!(report.text(), "would resume backup b1 of shop/one, which is Waiting");
        assert_eq!(api.writes(), Vec::<String>::new());
    }
}
