//! kube-schedulers with the configurations that users get, pointed at this machine.

use crate::{bench::Bench, control_plane::User, process::Process};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

/// Directory that the manifests name for kube-scheduler's files.
const FILES: &str = "/etc/kubernetes/handoff";

/// kube-scheduler's certificate and configuration as `deploy/scheduler/write-files` writes them. Returns the directory.
pub async fn write_files(bench: &Bench) -> Result<PathBuf> {
    let directory = bench.plane.path("scheduler-files");
    let script = bench.deploy.join("scheduler/write-files");
    let path = format!("{}:/usr/bin:/bin", bench.plane.programs().display());
    let run = async || -> Result<Result<(), String>> {
        let mut command = tokio::process::Command::new(&script);
        command.arg(&directory).env("PATH", &path).env("KUBECONFIG", bench.plane.kubeconfig(User::Admin)?);
        let output = command.output().await.context("cannot run write-files")?;
        Ok(if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) })
    };
    // the replica that leads writes the Secret
    let done = crate::http::eventually(crate::bench::SOON, async || Ok(run().await?.ok())).await?;
    if done.is_none() {
        bail!("write-files: {}", run().await?.err().unwrap_or_default());
    }
    Ok(directory)
}

/// Starts a scheduler with a configuration of `deploy/scheduler` that was written to `files`. `edit` changes its text
/// further.
pub async fn start(
    bench: &Bench,
    name: &str,
    files: &Path,
    file: &str,
    edit: impl Fn(String) -> String,
) -> Result<Process> {
    let text = std::fs::read_to_string(files.join(file)).with_context(|| format!("cannot read {file}"))?;
    let text = here(bench, files, &text)?;
    let path = bench.plane.path(&format!("{name}.yaml"));
    std::fs::write(&path, edit(text)).context("cannot write a scheduler's configuration")?;
    bench.plane.scheduler(name, &path).await
}

/// A configuration for this machine: another kubeconfig, other paths, our address in place of the Service's.
fn here(bench: &Bench, files: &Path, text: &str) -> Result<String> {
    let kubeconfig = bench.plane.kubeconfig(User::Scheduler)?;
    let address = format!("https://127.0.0.1:{}", bench.replicas.extender.port);
    let mut out = String::new();
    for line in text.lines() {
        let url = line.trim_start_matches(['-', ' ']).starts_with("urlPrefix:");
        let line = match line.split_once("https://").filter(|_| url) {
            Some((before, after)) => {
                let path = after.find('/').map_or("", |at| &after[at..]);
                format!("{before}{address}{path}")
            }
            None => line.replace(FILES, &files.display().to_string()),
        };
        let line = line.replace("/etc/kubernetes/scheduler.conf", &kubeconfig);
        // it would wait for a lease of its predecessor
        out += &line.replace("leaderElect: true", "leaderElect: false");
        out.push('\n');
    }
    Ok(out)
}

/// A configuration without any extender. `client` is put into its `clientConnection`.
pub async fn plain(bench: &Bench, name: &str, client: &str) -> Result<Process> {
    let path = bench.plane.path(&format!("{name}.yaml"));
    let text = format!(
        "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n\
         clientConnection: {{{client}kubeconfig: {}}}\nleaderElection: {{leaderElect: false}}\n",
        bench.plane.kubeconfig(User::Scheduler)?
    );
    std::fs::write(&path, text).context("cannot write a scheduler's configuration")?;
    bench.plane.scheduler(name, &path).await
}
