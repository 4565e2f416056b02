//! `handoff-apiserver`: the real `handoff serve` against a real kube-apiserver, kube-scheduler and
//! kube-controller-manager, all on 127.0.0.1. Nodes and Longhorn are played; see README.md.

mod args;
mod bench;
mod cert_manager;
mod checks;
mod control_plane;
mod echo;
mod front;
mod http;
mod kubelet;
mod load;
mod metrics;
mod mtls;
mod process;
mod proxy;
mod record;
mod record_reviews;
mod replicas;
mod report;
mod scheduler;
mod throughput;
mod world;

use clap::Parser;
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    match Box::pin(run(args::Args::parse())).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("handoff-apiserver: {error:#}");
            ExitCode::from(2)
        }
    }
}

async fn run(args: args::Args) -> anyhow::Result<bool> {
    // one provider for the whole process, as in the program under test
    let _ = rustls::crypto::ring::default_provider().install_default();
    let work = async {
        match &args.command {
            args::Command::Check { only } => checks::run(&args.paths, only).await,
            args::Command::Throughput(wanted) => throughput::run(&args.paths, wanted).await,
            args::Command::Echo { port, certificate, key, clients } => {
                echo::serve(*port, certificate, key, clients).await.map(|()| true)
            }
            args::Command::Record { directory } => record::run(&args.paths, directory).await,
        }
    };
    let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        done = work => done,
        // the guards end the children and remove the files
        _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
        _ = term.recv() => anyhow::bail!("asked to stop"),
    }
}
