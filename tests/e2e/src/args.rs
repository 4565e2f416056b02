//! The command line.

use crate::interruptions::Way;
use clap::{Parser, Subcommand, ValueEnum};
use std::{path::PathBuf, time::Duration};

/// Drains nodes of a real cluster under a running backup and tells what became of pod, backup and data.
///
/// The cluster is the one of KUBECONFIG; it needs Longhorn with an available backup target, two worker nodes, and
/// `kubectl` in PATH. In the lab: `tests/lab/lab exec target/ci/handoff-e2e --lab tests/lab/lab demo`.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Args {
    /// What all commands need.
    #[command(flatten)]
    pub common: Common,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What all commands need.
#[derive(Debug, Parser)]
pub struct Common {
    /// The lab's control program: sets the speed of the link, reads the S3 server's log, kills processes on nodes.
    /// Without it the link is used as it is and what was uploaded is not counted.
    #[arg(long, global = true, env = "HANDOFF_E2E_LAB")]
    pub lab: Option<PathBuf>,
    /// The kustomization that installs Handoff.
    #[arg(long, global = true, default_value = "deploy/kustomize")]
    pub deploy: PathBuf,
    /// Handoff is installed already, another way: it is left as it is.
    #[arg(long, global = true)]
    pub installed: bool,
    /// Image of the workload; needs `sh`, `head`, `find`, `sync` and `sha256sum`.
    #[arg(long, global = true, default_value = "lab.local/shell:1")]
    pub image: String,
    /// Speed of the link to the backup target (lab only).
    #[arg(long, global = true, default_value = "16mbit")]
    pub link: String,
    /// Fresh random data under each backup, in MiB; 200, for `ci` and `interrupt` 100, for `storm` 40.
    #[arg(long, global = true, value_parser = clap::value_parser!(u32).range(20..=400))]
    pub data: Option<u32>,
    /// Progress of the backup, in percent, at which the drain begins.
    #[arg(long, global = true, default_value_t = 20, value_parser = clap::value_parser!(u8).range(1..=90))]
    pub at_progress: u8,
    /// Namespace of Longhorn.
    #[arg(long, global = true, default_value = "longhorn-system")]
    pub longhorn_namespace: String,
    /// Leave workload and data in the cluster at the end.
    #[arg(long, global = true)]
    pub keep: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The same move without a backup, with one and without Handoff, and with both: side by side.
    Demo(DemoArgs),
    /// A series of full drains, each with a fresh backup in flight, and its figures.
    Moves(MovesArgs),
    /// Every way in which a backup is interrupted, one after the other.
    Interrupt(InterruptArgs),
    /// A node with many volumes drained at once, without Handoff and with it.
    Storm(StormArgs),
    /// A short series with every check; the last line says how many passed.
    Ci(CiArgs),
    /// The tools as people call them: every command, in every format, as `handoff` and as `kubectl handoff`.
    Cli(CliArgs),
}

/// `demo`.
#[derive(Debug, Parser)]
#[command(args_override_self = true)]
pub struct DemoArgs {
    /// How long a move without Handoff is given before the node is uncordoned, in seconds.
    #[arg(long, default_value = "90", value_parser = seconds)]
    pub stuck_after: Duration,
    /// Only these of the scenes a, a', b and c; there is no verdict then.
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<String>,
    /// Set the kubelets' reporting first (lab only).
    #[arg(long)]
    pub kubelet: Option<Kubelet>,
}

/// `moves`.
#[derive(Debug, Parser)]
#[command(args_override_self = true)]
pub struct MovesArgs {
    /// Moves with a backup in flight.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub count: u32,
    /// Set the kubelets' reporting first (lab only).
    #[arg(long)]
    pub kubelet: Option<Kubelet>,
    /// Kind of the workload.
    #[arg(long, default_value = "statefulset")]
    pub workload: WorkloadKind,
    /// Measure moves without backup and without Handoff too, storage left out of the drain.
    #[arg(long)]
    pub plain_too: bool,
    /// How many of these.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub plain_count: u32,
    /// SIGKILL the leader at a random moment of each move (lab only).
    #[arg(long)]
    pub kill_leader: bool,
    /// Restart all replicas of Handoff, one after the other, during each move.
    #[arg(long, conflicts_with = "kill_leader")]
    pub restart_replicas: bool,
    /// Restore and compare after every n-th move only.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub restore_every: u32,
    /// Write all figures to this file.
    #[arg(long)]
    pub json: Option<PathBuf>,
}

/// `interrupt`.
#[derive(Debug, Parser)]
pub struct InterruptArgs {
    /// Only these.
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<Way>,
    /// Add how each ended to this file, in the columns of tests/e2e/outcomes.tsv.
    #[arg(long)]
    pub outcomes: Option<PathBuf>,
}

/// `storm`.
#[derive(Debug, Parser)]
pub struct StormArgs {
    /// Volumes, each of a pod of its own.
    #[arg(long, default_value_t = 12)]
    pub volumes: usize,
    /// How many of them have a backup in flight.
    #[arg(long, default_value_t = 4)]
    pub backups: usize,
    /// Size of each volume.
    #[arg(long, default_value = "200Mi")]
    pub size: String,
    /// With Handoff only: drain one node after the other until so many pods have moved, and look for what is left.
    #[arg(long)]
    pub moves: Option<usize>,
}

/// `ci`.
#[derive(Debug, Parser)]
pub struct CiArgs {
    /// Let this Prometheus scrape the replicas meanwhile, and check what it has seen.
    #[arg(long, env = "HANDOFF_E2E_PROMETHEUS")]
    pub prometheus: Option<PathBuf>,
    /// Moves; when there are three or more, the last one is a Deployment's.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub count: u32,
    /// Write all figures to this file.
    #[arg(long)]
    pub json: Option<PathBuf>,
}

/// `cli`.
#[derive(Debug, Parser)]
pub struct CliArgs {
    /// The program.
    #[arg(long)]
    pub handoff: PathBuf,
    /// Kind of the workload.
    #[arg(long, default_value = "statefulset")]
    pub workload: WorkloadKind,
}

impl Command {
    /// Fresh data under each backup, in MiB, unless asked otherwise.
    pub fn data(&self) -> u32 {
        match self {
            Self::Ci(_) | Self::Cli(_) | Self::Interrupt(_) => 100,
            Self::Storm(_) => 40,
            Self::Demo(_) | Self::Moves(_) => 200,
        }
    }
}

/// How often the kubelets look at what changed on their node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kubelet {
    /// Every second, as Handoff recommends.
    Recommended,
    /// Every 10 s, as Kubernetes does.
    Default,
}

/// Kind of the workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkloadKind {
    /// The replacement has the old pod's name, so it is created when that is gone.
    Statefulset,
    /// The replacement is created at once, and waits for the volume.
    Deployment,
}

fn seconds(text: &str) -> Result<Duration, std::num::ParseIntError> {
    text.parse().map(Duration::from_secs)
}
