//! The command line.

use clap::{Parser, Subcommand};
use std::path::PathBuf;

/// Runs Handoff against a real kube-apiserver, kube-scheduler and kube-controller-manager on 127.0.0.1.
///
/// Nodes, kubelets and Longhorn are played by this program; see README.md. `make apiserver-test` gives all paths.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Args {
    /// What all commands need.
    #[command(flatten)]
    pub paths: Paths,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Where things are.
#[derive(Clone, Debug, Parser)]
pub struct Paths {
    /// Directory with etcd, kube-apiserver, kube-controller-manager, kube-scheduler and kubectl.
    #[arg(long, global = true, env = "HANDOFF_KUBERNETES", default_value = "")]
    pub kubernetes: PathBuf,
    /// Longhorn's `CustomResourceDefinitions`.
    #[arg(long, global = true, env = "HANDOFF_LONGHORN_CRDS", default_value = "")]
    pub longhorn_crds: PathBuf,
    /// Directory with cert-manager's controller, cainjector and webhook, and its `crds`.
    #[arg(long, global = true, env = "HANDOFF_CERT_MANAGER")]
    pub cert_manager: Option<PathBuf>,
    /// The program under test.
    #[arg(long, global = true, env = "HANDOFF_BINARY", default_value = "")]
    pub handoff: PathBuf,
    /// Handoff's manifests: `kustomize` and `scheduler` below it are used as users use them.
    #[arg(long, global = true, default_value = "deploy")]
    pub deploy: PathBuf,
    /// Copy the logs of all processes here at the end.
    #[arg(long, global = true)]
    pub logs: Option<PathBuf>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Every check; the last line says how many passed.
    Check {
        /// Only these groups of checks (the names in the output's headings).
        only: Vec<String>,
    },
    /// Pods per second of a real kube-scheduler without an extender, with Handoff, and with an extender that does nothing.
    /// Figures only.
    Throughput(Throughput),
    /// The extender that does nothing.
    #[command(hide = true)]
    Echo {
        /// Port on 127.0.0.1.
        port: u16,
        /// Its certificate.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
        /// The CA of its clients.
        clients: PathBuf,
    },
    /// Write the four kinds of extender calls of a real kube-scheduler, in both modes, and the reviews of a real API
    /// server to a directory.
    Record {
        /// The directory.
        directory: PathBuf,
    },
}

/// `throughput`.
#[derive(Clone, Debug, Parser)]
pub struct Throughput {
    /// Nodes.
    #[arg(long, default_value_t = 500)]
    pub nodes: usize,
    /// Pods with a bound claim each, per round.
    #[arg(long, default_value_t = 1000)]
    pub pods: usize,
    /// Rounds of each of the three, after one of each that does not count.
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// kube-scheduler speaks HTTP/1.1 only, not HTTP/2 as it does by itself.
    #[arg(long)]
    pub http1: bool,
}
