//! What only the lab can do: the speed of the link, the S3 server's log, processes on nodes. All through its control
//! program; on another cluster these are left out, and the report says so.

use crate::{args::Kubelet, cluster::Read};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::{path::PathBuf, process::Stdio};
use tokio::process::Command;

/// Node that the lab's S3 server runs on, and its log there.
const S3_NODE: &str = "lab-control-plane";
const S3_LOG: &str = "/var/lib/s3lab/access.log";

/// A packet filter's rule of ours is known by this.
const OUR_RULE: &str = "--comment handoff-e2e";

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

    /// SIGKILL for the first process of a pod's first container.
    pub async fn kill_container(&self, pod: &Value) -> Result<()> {
        let container = pod.text("/status/containerStatuses/0/containerID").trim_start_matches("containerd://");
        if container.is_empty() {
            bail!("pod {} has no container", pod.name());
        }
        let pid = format!("pid=$(ctr -n k8s.io tasks ls | awk '$1 == \"{container}\" {{print $2}}')");
        let script = format!("{pid} && [ -n \"$pid\" ] && kill -KILL \"$pid\"");
        self.on_node(pod.text("/spec/nodeName"), &script)
            .await
            .with_context(|| format!("cannot kill {}", pod.name()))?;
        Ok(())
    }

    /// Ends all processes of a node at once, as a power cut does.
    pub async fn power_off(&self, node: &str) -> Result<()> {
        self.run(&["exec", "docker", "kill", node]).await.map(drop)
    }

    /// Boots a node again; does nothing when it runs.
    pub async fn power_on(&self, node: &str) -> Result<()> {
        self.run(&["exec", "docker", "start", node]).await.map(drop)
    }

    /// Stops a node's kubelet, or starts it again. What runs there goes on.
    pub async fn kubelet_runs(&self, node: &str, runs: bool) -> Result<()> {
        let verb = if runs { "start" } else { "stop" };
        self.on_node(node, &format!("systemctl {verb} kubelet")).await.map(drop)
    }

    /// Drops all that a pod on the node sends to the API server, without an answer.
    pub async fn cut_off(&self, node: &str, pod_ip: &str) -> Result<()> {
        let rule = format!("FORWARD -s {pod_ip} -p tcp --dport 6443 -m comment {OUR_RULE} -j DROP");
        self.on_node(node, &format!("iptables -I {rule}")).await.map(drop)
    }

    /// Undoes all of `cut_off` on the node.
    pub async fn let_through(&self, node: &str) -> Result<()> {
        let rules = format!("iptables -S FORWARD | sed -n '/{OUR_RULE}/s/^-A/-D/p'");
        self.on_node(node, &format!("{rules} | while read -r rule; do iptables $rule || exit 1; done")).await.map(drop)
    }

    /// Gives an image of a node a second name.
    pub async fn tag_image(&self, node: &str, image: &str, other: &str) -> Result<()> {
        let full = |name: &str| if name.contains('/') { name.to_owned() } else { format!("docker.io/library/{name}") };
        let script = format!("ctr -n k8s.io images tag --force {} {}", full(image), full(other));
        self.on_node(node, &script).await.map(drop)
    }

    /// Has connections to the S3 server refused, or taken again.
    pub async fn refuse_s3(&self, refuse: bool) -> Result<()> {
        let rule = "FORWARD -p tcp --dport 7070 -j REJECT --reject-with tcp-reset";
        let remove = format!("while iptables -D {rule} 2>/dev/null; do :; done");
        let script = if refuse { format!("{remove}; iptables -I {rule}") } else { remove };
        self.on_node(S3_NODE, &script).await.map(drop)
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
