//! What only the lab can do: the speed of the link, the S3 server's log, processes on nodes. All through its control
//! program; on another cluster these are left out, and the report says so.

use crate::args::Kubelet;
use anyhow::{Context, Result, bail};
use std::{path::PathBuf, process::Stdio};
use tokio::process::Command;

/// Node that the lab's S3 server runs on, and its log there.
const S3_NODE: &str = "lab-control-plane";
const S3_LOG: &str = "/var/lib/s3lab/access.log";

/// The lab's control program.
#[derive(Clone, Debug)]
pub struct Lab(PathBuf);

impl Lab {
    /// By its path.
    pub fn new(program: PathBuf) -> Self {
        Self(program)
    }

    /// Sets the speed of the link to the S3 server; `off` for all it gives.
    pub async fn link(&self, rate: &str) -> Result<()> {
        self.run(&["link", rate]).await.map(drop)
    }

    /// Sets how often the kubelets look.
    pub async fn kubelet(&self, how: Kubelet) -> Result<()> {
        let how = match how {
            Kubelet::Recommended => "fast",
            Kubelet::Default => "default",
        };
        self.run(&["kubelet", how]).await.map(drop)
    }

    /// Runs a shell command on a node and returns what it prints.
    pub async fn on_node(&self, node: &str, script: &str) -> Result<String> {
        self.run(&["exec", "docker", "exec", node, "sh", "-c", script]).await
    }

    /// Length of the S3 server's log.
    pub async fn s3_log_length(&self) -> Result<u64> {
        let length = self.on_node(S3_NODE, &format!("wc -c <{S3_LOG}")).await?;
        length.trim().parse().context("unreadable length of the S3 server's log")
    }

    /// The S3 server's log from a length on, only the lines that hold a text.
    pub async fn s3_log(&self, from: u64, containing: &str) -> Result<String> {
        let script = format!("tail -c +{} {S3_LOG} | grep -F -- '{containing}' || true", from + 1);
        self.on_node(S3_NODE, &script).await
    }

    async fn run(&self, args: &[&str]) -> Result<String> {
        let output = Command::new(&self.0).args(args).stdin(Stdio::null()).kill_on_drop(true).output().await;
        let output = output.with_context(|| format!("cannot run {}", self.0.display()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("{} {}: {}", self.0.display(), args.join(" "), said.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
