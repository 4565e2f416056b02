//! `handoff simulate`: what if a node with so many volumes were drained. The coordinator of this program runs against a
//! cluster in this process, once with Handoff and once without; no cluster is asked anything.

use super::{
    End,
    output::{self, OutputArgs, Progress, Report, Tone, paint, span, table},
};
use anyhow::{Context, bail};
use clap::Args;
use handoff_simulate::{
    longhorn::Release,
    storm::{Figures, Storm, Times},
};
use jiff::SignedDuration;
use serde::Serialize;
use std::{fmt::Write, thread};

const MIB: u64 = 1 << 20;

/// `handoff simulate`.
#[derive(Args, Debug)]
pub struct SimulateArgs {
    /// Volumes on the node that is drained, each used by a pod of its own.
    #[arg(long, default_value_t = 500)]
    pub volumes: usize,
    /// How many of them have a backup in flight.
    #[arg(long, default_value_t = 100)]
    pub with_backups: usize,
    /// Nodes of the cluster, the drained one among them.
    #[arg(long, default_value_t = 5)]
    pub nodes: usize,
    /// New data of each backup, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    pub backup_size: u64,
    /// MiB that each backup sends in a second.
    #[arg(long, value_name = "MIB", default_value_t = 10)]
    pub upload_rate: u64,
    /// How often kubelets report (`nodeStatusUpdateFrequency`).
    #[arg(long, value_name = "DURATION", default_value = "10s")]
    pub kubelet_tick: SignedDuration,
    /// Version of Longhorn.
    #[arg(long, value_name = "VERSION", default_value = "1.10.0")]
    pub longhorn: String,
    /// What is not over by then, in the time of the simulation, counts as not done.
    #[arg(long, value_name = "DURATION", default_value = "2h")]
    pub patience: SignedDuration,
    /// What chance is drawn from.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How it is printed.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// What came of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Simulated {
    /// Version of Longhorn.
    pub longhorn: String,
    /// Volumes on the node.
    pub volumes: usize,
    /// Those with a backup in flight.
    pub with_backups: usize,
    /// Nodes.
    pub nodes: usize,
    /// What chance was drawn from.
    pub seed: u64,
    /// What is not over by then counts as not done, in seconds.
    pub patience_seconds: i64,
    /// With Handoff.
    pub with_handoff: Figures,
    /// Without.
    pub without_handoff: Figures,
}

/// Runs both.
pub async fn run(args: SimulateArgs) -> anyhow::Result<End> {
    let storm = storm(&args)?;
    let ran = {
        let mut progress = Progress::default();
        progress.say(&format!("simulating the drain of {} volumes, twice", storm.volumes));
        // each has a thread of its own: it keeps a clock that stands still while something is computed
        let (with, without) = (simulate(&storm, true), simulate(&storm, false));
        tokio::task::spawn_blocking(|| anyhow::Ok((joined(with)?, joined(without)?))).await
    };
    let (with_handoff, without_handoff) = ran.context("the simulation ended early")??;
    let report = Simulated {
        longhorn: storm.release.version.clone(),
        volumes: storm.volumes,
        with_backups: storm.with_backups,
        nodes: storm.nodes,
        seed: storm.seed,
        patience_seconds: args.patience.as_secs(),
        with_handoff,
        without_handoff,
    };
    output::print(&report, args.output.output)?;
    Ok(if report.with_handoff.broken.is_empty() { End::Yes } else { End::No })
}

fn storm(args: &SimulateArgs) -> anyhow::Result<Storm> {
    if args.volumes == 0 || args.with_backups > args.volumes {
        bail!("--volumes must be at least 1, and --with-backups no more than that");
    }
    if args.nodes < 2 {
        bail!("--nodes must be at least 2: the pods have to go somewhere");
    }
    if args.upload_rate == 0 || args.backup_size == 0 {
        bail!("--upload-rate and --backup-size must be at least 1");
    }
    if !args.kubelet_tick.is_positive() || !args.patience.is_positive() {
        bail!("--kubelet-tick and --patience must be more than 0 s");
    }
    let Some(release) = Release::known(&args.longhorn) else {
        bail!("--longhorn {}: Handoff knows 1.7 to 1.12, as in 1.10.0", args.longhorn);
    };
    Ok(Storm {
        volumes: args.volumes,
        with_backups: args.with_backups,
        nodes: args.nodes,
        backup_bytes: args.backup_size.saturating_mul(MIB),
        upload_rate: args.upload_rate.saturating_mul(MIB),
        kubelet_tick: args.kubelet_tick.unsigned_abs(),
        release,
        seed: args.seed,
        patience: args.patience.unsigned_abs(),
    })
}

fn simulate(storm: &Storm, with_handoff: bool) -> thread::JoinHandle<std::io::Result<Figures>> {
    let storm = storm.clone();
    thread::spawn(move || storm.run(with_handoff))
}

fn joined(thread: thread::JoinHandle<std::io::Result<Figures>>) -> anyhow::Result<Figures> {
    match thread.join() {
        Ok(figures) => figures.context("cannot start a simulation"),
        Err(_) => bail!("the simulation ended early"),
    }
}

impl Report for Simulated {
    fn text(&self) -> String {
        let Self { longhorn, volumes, with_backups, nodes, seed, .. } = self;
        let patience = span(SignedDuration::from_secs(self.patience_seconds));
        let (with, without) = (&self.with_handoff, &self.without_handoff);
        let rows = [
            row("pod runs again", "with", &with.move_seconds),
            row("", "without", &without.move_seconds),
            row("the same, backup in flight", "with", &with.move_seconds_with_backup),
            row("", "without", &without.move_seconds_with_backup),
            row("backup is safe", "with", &with.safe_seconds),
            row("", "without", &without.safe_seconds),
        ];
        let head = format!(
            "one of {nodes} nodes drained, {volumes} volumes, {with_backups} with a backup in flight, Longhorn {longhorn}"
        );
        let mut text = String::new();
        let _ = writeln!(text, "{}", paint(Tone::Heading, &head));
        let table = table(["SECONDS UNTIL", "HANDOFF", "DONE", "NOT DONE", "P50", "P90", "P99", "MAX"], rows);
        let _ = writeln!(text, "{table}\nnot done: not within {patience}");
        let _ = writeln!(text, "the drain itself: {} with Handoff, {} without", ended(with), ended(without));
        let _ = writeln!(text, "blocks sent for each one that is needed: {} with Handoff; seed {seed}", ratio(with));
        for what in &with.broken {
            let _ = writeln!(text, "{}", paint(Tone::Bad, what));
        }
        text
    }
}

fn row(what: &str, handoff: &str, times: &Times) -> [String; 8] {
    let seconds = |value: f64| if times.done == 0 { "-".to_owned() } else { format!("{value:.1}") };
    let (p50, p90, p99, max) = (seconds(times.p50), seconds(times.p90), seconds(times.p99), seconds(times.max));
    let (done, not_done) = (times.done.to_string(), times.not_done.to_string());
    [what.to_owned(), handoff.to_owned(), done, not_done, p50, p90, p99, max]
}

fn ended(figures: &Figures) -> String {
    figures.drain_seconds.map_or_else(|| "does not end".to_owned(), |seconds| format!("{seconds:.1} s"))
}

fn ratio(figures: &Figures) -> String {
    if figures.blocks_there == 0 {
        return "-".to_owned();
    }
    let hundredths = figures.blocks_sent * 100 / figures.blocks_there;
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use std::time::Duration;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: SimulateArgs,
    }

    fn args(flags: &[&str]) -> SimulateArgs {
        Line::try_parse_from(["simulate"].iter().chain(flags)).unwrap().args
    }

    #[test]
    fn the_defaults_are_the_storm_of_the_documentation() {
        let storm = storm(&args(&[])).unwrap();
        assert_eq!((storm.volumes, storm.with_backups), (500, 100));
        assert_eq!(storm.kubelet_tick, Duration::from_secs(10));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (flags, named) in [
            (["--volumes=3", "--with-backups=4"], "--with-backups"),
            (["--nodes=1", "--seed=1"], "--nodes"),
            (["--upload-rate=0", "--seed=1"], "--upload-rate"),
            (["--kubelet-tick=0s", "--seed=1"], "--kubelet-tick"),
            (["--longhorn=1.6.4", "--seed=1"], "--longhorn"),
        ] {
            let error = storm(&args(&flags)).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn with_handoff_all_backups_become_safe_and_without_they_are_lost() {
        let storm = storm(&args(&["--volumes=6", "--with-backups=3", "--nodes=3", "--patience=20m"])).unwrap();
        let (with, without) = (storm.run(true).unwrap(), storm.run(false).unwrap());
        assert_eq!(with.broken, [""; 0]);
        assert_eq!((with.move_seconds.not_done, with.safe_seconds.not_done), (0, 0));
        assert_eq!(without.safe_seconds.done, 0, "cut, and nobody takes them up");
    }

    #[test]
    fn the_table_has_a_line_for_each_side() {
        let times = Times { done: 2, not_done: 1, p50: 14.0, p90: 15.0, p99: 15.0, max: 15.0 };
        let figures = Figures {
            move_seconds: times.clone(),
            move_seconds_with_backup: times,
            safe_seconds: Times::default(),
            blocks_sent: 103,
            blocks_there: 100,
            drain_seconds: Some(16.5),
            broken: Vec::new(),
        };
        let report = Simulated {
            longhorn: "v1.10.0".into(),
            volumes: 3,
            with_backups: 2,
            nodes: 4,
            seed: 7,
            patience_seconds: 7200,
            with_handoff: figures.clone(),
            without_handoff: Figures { drain_seconds: None, ..figures },
        };
        let text = report.text();
        assert!(text.contains("pod runs again") && text.contains("14.0"), "{text}");
        assert!(text.contains("16.5 s with Handoff, does not end without"), "{text}");
        assert!(text.contains("1.03 with Handoff"), "{text}");
    }
}
