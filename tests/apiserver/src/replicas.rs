//! Replicas of the real `handoff serve` as child processes, behind the two fronts that take the place of its Services.

use crate::{
    args::Paths,
    control_plane::{ControlPlane, User},
    front::Front,
    http::eventually,
    metrics,
    process::{Process, free_port},
};
use anyhow::{Context, Result};
use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// One replica.
#[derive(Debug)]
pub struct Replica {
    process: Process,
    webhook: u16,
    extender: u16,
    metrics: u16,
}

/// All replicas, and what is in front of them.
#[derive(Debug)]
pub struct Replicas {
    /// In front of the webhook's port.
    pub webhook: Front,
    /// In front of the extender's port.
    pub extender: Front,
    /// By which way replicas reach kube-apiserver, if not directly.
    pub api_server: Option<String>,
    running: Vec<Replica>,
    program: PathBuf,
    started: usize,
    /// What replicas that were killed had counted.
    counted: String,
}

impl Replicas {
    /// The fronts, with no replica behind them.
    pub async fn new(paths: &Paths) -> Result<Self> {
        let (webhook, extender) = (Front::open().await?, Front::open().await?);
        let program = paths.handoff.clone();
        Ok(Self {
            webhook,
            extender,
            api_server: None,
            running: Vec::new(),
            program,
            started: 0,
            counted: String::new(),
        })
    }

    /// Starts one replica per name, with these flags besides, and waits until each says it is ready.
    pub async fn start(&mut self, plane: &ControlPlane, names: &[String], flags: &[&str]) -> Result<()> {
        let kubeconfig = match &self.api_server {
            Some(url) => plane.kubeconfig_by(User::Handoff, url)?,
            None => plane.kubeconfig(User::Handoff)?,
        };
        for name in names {
            self.started += 1;
            let (webhook, extender, metrics) = (free_port()?, free_port()?, free_port()?);
            let mut arguments = [
                "serve".to_owned(),
                format!("--pod-name={name}"),
                "--namespace=handoff-system".to_owned(),
                "--address=127.0.0.1".to_owned(),
                format!("--webhook-port={webhook}"),
                format!("--extender-port={extender}"),
                format!("--metrics-port={metrics}"),
                "--log-format=human".to_owned(),
                "--log=info,handoff_webhook=debug,handoff_extender=debug".to_owned(),
            ]
            .to_vec();
            arguments.extend(flags.iter().map(ToString::to_string));
            let env = [("KUBECONFIG", OsStr::new(&kubeconfig))];
            let log = format!("handoff-{}", self.started);
            let process = Process::start(&log, &plane.logs(), &self.program, &arguments, &env)?;
            self.running.push(Replica { process, webhook, extender, metrics });
        }
        for replica in &mut self.running {
            let ready = eventually(Duration::from_secs(30), async || {
                replica.process.check()?;
                Ok(page(replica.metrics, "/readyz").await.ok().filter(|text| text.contains("200 OK")))
            });
            ready.await?.context("a replica of handoff is not ready after 30 s")?;
        }
        self.show();
        Ok(())
    }

    /// SIGKILL to every replica.
    pub async fn kill(&mut self) -> Result<()> {
        self.counted = self.page().await?;
        self.running.clear();
        self.show();
        Ok(())
    }

    /// The extender's port of the first replica itself: what is measured must not pass through the front.
    pub fn extender_port(&self) -> Option<u16> {
        self.running.first().map(|r| r.extender)
    }

    /// The program under test.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// How many run.
    pub fn count(&self) -> usize {
        self.running.len()
    }

    /// CPU seconds of all that run.
    pub fn cpu_seconds(&self) -> f64 {
        self.running.iter().map(|r| r.process.cpu_seconds()).sum()
    }

    /// Keeps all that run on one core, see [`Process::keep_on`].
    pub fn keep_on(&self, core: Option<usize>) -> Result<()> {
        self.running.iter().try_for_each(|r| r.process.keep_on(core))
    }

    fn show(&self) {
        self.webhook.set_replicas(self.running.iter().map(|r| r.webhook).collect());
        self.extender.set_replicas(self.running.iter().map(|r| r.extender).collect());
    }

    /// All figures of all replicas, one page after the other.
    async fn page(&self) -> Result<String> {
        let mut pages = self.counted.clone();
        for replica in &self.running {
            pages += &page(replica.metrics, "/metrics").await?;
        }
        Ok(pages)
    }

    /// Whether one of them says that it leads.
    pub async fn leads(&self) -> Result<bool> {
        for replica in &self.running {
            if metrics::sum(&page(replica.metrics, "/metrics").await?, "handoff_leader", &[]) > 0.0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A figure, summed over all replicas.
    pub async fn figure(&self, metric: &str) -> Result<f64> {
        let mut pages = String::new();
        for replica in &self.running {
            pages += &page(replica.metrics, "/metrics").await?;
        }
        Ok(metrics::sum(&pages, metric, &[]))
    }

    /// Reviews or extender calls so far that carry these labels.
    pub async fn calls(&self, labels: &[&str]) -> Result<u64> {
        let page = self.page().await?;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // it counts calls
        Ok(metrics::sum(&page, "handoff_review_seconds_count", labels) as u64)
    }
}

/// One page of a plain HTTP port, head and all.
async fn page(port: u16, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.context("no metrics port")?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.context("metrics port")?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.context("metrics port")?;
    Ok(text)
}
