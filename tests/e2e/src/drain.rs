//! The real `kubectl drain`, as an operator runs it, as a child process.

use anyhow::{Context, Result};
use std::{
    process::Stdio,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::{Child, Command},
    task::JoinHandle,
};

/// Leaves instance managers and Longhorn's CSI controllers on the node.
pub const WITHOUT_STORAGE: &str = "longhorn.io/component!=instance-manager,\
     app notin (csi-attacher,csi-provisioner,csi-resizer,csi-snapshotter)";

/// A drain under way.
pub struct Drain {
    child: Child,
    started: Instant,
    output: [JoinHandle<Vec<String>>; 2],
}

/// How a drain ended.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Ended {
    /// Exit code; `None` when it did not end by itself in time.
    pub code: Option<i32>,
    /// Seconds it ran.
    pub seconds: f64,
    /// Whether the node was still cordoned when it ended.
    pub still_cordoned: bool,
    /// The last thing it complained about.
    pub complaint: String,
}

impl Drain {
    /// The command line for a node, all of it or with pods that match a selector only.
    pub fn arguments(node: &str, selector: Option<&str>) -> Vec<String> {
        let mut args = ["drain", node, "--ignore-daemonsets", "--delete-emptydir-data"].map(str::to_owned).to_vec();
        args.extend(selector.map(|s| format!("--pod-selector={s}")));
        args
    }

    /// Starts it.
    pub fn start(node: &str, selector: Option<&str>) -> Result<Self> {
        let started = Instant::now();
        let mut command = Command::new("kubectl");
        command.args(Self::arguments(node, selector)).stdin(Stdio::null()).kill_on_drop(true);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("cannot run kubectl")?;
        let output = [lines(child.stdout.take()), lines(child.stderr.take())];
        Ok(Self { child, started, output })
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait().context("cannot look at kubectl")?.is_none())
    }

    /// Waits until it ends, or ends it when the time is up. Returns exit code, seconds, and its last complaint.
    pub async fn wait(mut self, limit: Duration) -> Result<(Option<i32>, f64, String)> {
        let left = limit.saturating_sub(self.started.elapsed());
        let code = if let Ok(status) = tokio::time::timeout(left, self.child.wait()).await {
            status.context("cannot wait for kubectl")?.code()
        } else {
            self.child.kill().await.context("cannot end kubectl")?;
            None
        };
        let seconds = self.started.elapsed().as_secs_f64();
        let [out, err] = self.output;
        let said: Vec<String> = out.await.into_iter().chain(err.await).flatten().collect();
        let complaint = said.into_iter().rfind(|line| line.contains("rror"));
        Ok((code, seconds, complaint.unwrap_or_default()))
    }
}

fn lines(from: Option<impl AsyncRead + Unpin + Send + 'static>) -> JoinHandle<Vec<String>> {
    tokio::spawn(async move {
        let mut all = Vec::new();
        let Some(from) = from else { return all };
        let mut lines = BufReader::new(from).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            all.push(line);
        }
        all
    })
}
