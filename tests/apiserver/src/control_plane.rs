//! A real control plane without nodes: etcd, kube-apiserver, kube-controller-manager, and kube-schedulers on demand.

use crate::{
    args::Paths,
    http::{Api, eventually},
    process::{Process, free_port},
};
use anyhow::{Context, Result, bail};
use kube::{Client, Config, config::AuthInfo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use serde_json::json;
use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};
use tempfile::TempDir;

/// Who calls. Each has a token of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// May do everything.
    Admin,
    /// Handoff's service account: it has what `deploy/kustomize/rbac.yaml` gives it, and nothing else.
    Handoff,
    /// kube-scheduler.
    Scheduler,
    /// The second kube-scheduler's service account.
    SecondScheduler,
    /// kube-controller-manager.
    ControllerManager,
    /// The kubelet of a node.
    Node(&'static str),
}

/// The fake nodes.
pub const NODES: [&str; 3] = ["node-a", "node-b", "node-c"];

impl User {
    fn all() -> impl Iterator<Item = Self> {
        let fixed = [Self::Admin, Self::Handoff, Self::Scheduler, Self::SecondScheduler, Self::ControllerManager];
        fixed.into_iter().chain(NODES.map(Self::Node))
    }

    fn token(self) -> String {
        format!("{self:?}").to_lowercase().replace(['(', ')', '"'], "-")
    }

    /// A line of kube-apiserver's token file.
    fn line(self) -> String {
        let (name, groups) = match self {
            Self::Admin => ("admin".to_owned(), "system:masters"),
            Self::Handoff => (
                "system:serviceaccount:handoff-system:handoff".to_owned(),
                "system:serviceaccounts,system:serviceaccounts:handoff-system",
            ),
            Self::SecondScheduler => (
                "system:serviceaccount:handoff-system:handoff-scheduler".to_owned(),
                "system:serviceaccounts,system:serviceaccounts:handoff-system",
            ),
            Self::Scheduler => ("system:kube-scheduler".to_owned(), ""),
            Self::ControllerManager => ("system:kube-controller-manager".to_owned(), ""),
            Self::Node(node) => (format!("system:node:{node}"), "system:nodes"),
        };
        format!("{},{name},{name},\"{groups}\"\n", self.token())
    }
}

/// The control plane. Dropping it ends it and removes its files.
pub struct ControlPlane {
    /// Where everything is kept.
    pub dir: TempDir,
    /// kube-apiserver's address.
    pub url: String,
    kubernetes: PathBuf,
    ca_der: Vec<u8>,
    processes: Vec<Process>,
    keep_logs: Option<PathBuf>,
    /// kube-schedulers speak HTTP/1.1 only.
    pub http1: bool,
}

impl ControlPlane {
    /// Starts etcd, kube-apiserver and kube-controller-manager, and waits until they are ready.
    pub async fn start(paths: &Paths) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("handoff-apiserver-").tempdir().context("no temporary directory")?;
        std::fs::create_dir(dir.path().join("logs"))?;
        let url = format!("https://127.0.0.1:{}", free_port()?);
        let ca_der = certificates(dir.path()).context("cannot make certificates")?;
        std::fs::write(dir.path().join("tokens.csv"), User::all().map(User::line).collect::<String>())?;
        let kubernetes = paths.kubernetes.clone();
        let keep_logs = paths.logs.clone();
        let mut plane = Self { dir, url, kubernetes, ca_der, processes: Vec::new(), keep_logs, http1: false };
        plane.api_server()?;
        let admin = plane.api(User::Admin)?;
        let ready = eventually(Duration::from_mins(3), async || {
            plane.check()?;
            Ok(admin.get("/readyz").await.ok().filter(crate::http::Answer::is_ok))
        });
        ready.await?.context("kube-apiserver is not ready after 3 minutes")?;
        let manager = plane.controller_manager()?;
        plane.processes.push(manager);
        Ok(plane)
    }

    /// A file of ours.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where processes log.
    pub fn logs(&self) -> PathBuf {
        self.path("logs")
    }

    fn file(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn api_server(&mut self) -> Result<()> {
        let (client, peer) = (free_port()?, free_port()?);
        let (client, peer) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
        let etcd = [
            format!("--data-dir={}", self.file("etcd")),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=default={peer}"),
            "--unsafe-no-fsync".to_owned(),
            "--log-level=warn".to_owned(),
        ];
        let api_server = [
            format!("--etcd-servers={client}"),
            "--bind-address=127.0.0.1".to_owned(),
            "--advertise-address=127.0.0.1".to_owned(),
            format!("--secure-port={}", self.url.rsplit(':').next().unwrap_or_default()),
            format!("--tls-cert-file={}", self.file("tls.crt")),
            format!("--tls-private-key-file={}", self.file("tls.key")),
            format!("--service-account-key-file={}", self.file("tls.crt")),
            format!("--service-account-signing-key-file={}", self.file("tls.key")),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--token-auth-file={}", self.file("tokens.csv")),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
            // or each pod would wait for its service account, and each claim for a controller that lets it go
            "--disable-admission-plugins=ServiceAccount,StorageObjectInUseProtection".to_owned(),
            "--endpoint-reconciler-type=none".to_owned(),
            // nothing here is slow but this machine
            "--max-requests-inflight=2000".to_owned(),
            "--max-mutating-requests-inflight=1000".to_owned(),
        ];
        self.processes.push(self.program("etcd", "etcd", &etcd)?);
        self.processes.push(self.program("kube-apiserver", "kube-apiserver", &api_server)?);
        Ok(())
    }

    fn controller_manager(&self) -> Result<Process> {
        let kubeconfig = self.kubeconfig(User::ControllerManager)?;
        let arguments = [
            format!("--kubeconfig={kubeconfig}"),
            format!("--authentication-kubeconfig={kubeconfig}"),
            format!("--authorization-kubeconfig={kubeconfig}"),
            format!("--service-account-private-key-file={}", self.file("tls.key")),
            format!("--root-ca-file={}", self.file("ca.crt")),
            format!("--secure-port={}", free_port()?),
            "--bind-address=127.0.0.1".to_owned(),
            "--use-service-account-credentials=true".to_owned(),
            "--leader-elect=false".to_owned(),
            // no node-lifecycle: the fake nodes renew no lease
            "--controllers=serviceaccount-controller,serviceaccount-token-controller,namespace-controller,\
             replicaset-controller,deployment-controller,statefulset-controller,daemonset-controller,\
             disruption-controller,garbage-collector-controller"
                .to_owned(),
        ];
        self.program("kube-controller-manager", "kube-controller-manager", &arguments)
    }

    /// Starts a program of Kubernetes under a name of its own.
    fn program(&self, program: &str, name: &str, arguments: &[String]) -> Result<Process> {
        Process::start(name, &self.logs(), &self.kubernetes.join(program), arguments, &[])
    }

    /// Starts a kube-scheduler with a configuration and waits until it answers.
    pub async fn scheduler(&self, name: &str, configuration: &Path) -> Result<Process> {
        let kubeconfig = self.kubeconfig(User::Scheduler)?;
        let port = free_port()?;
        let arguments = [
            format!("--config={}", configuration.display()),
            format!("--authentication-kubeconfig={kubeconfig}"),
            format!("--authorization-kubeconfig={kubeconfig}"),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={port}"),
            format!("--cert-dir={}", self.file("scheduler-certs")),
            // whoever is on this machine may see figures and profiles
            "--authorization-always-allow-paths=/healthz,/metrics,/debug/pprof/*".to_owned(),
            "--v=2".to_owned(),
        ];
        let http1 = [("DISABLE_HTTP2", OsStr::new("true"))];
        let env = if self.http1 { http1.as_slice() } else { &[] };
        let program = self.kubernetes.join("kube-scheduler");
        let mut process = Process::start(name, &self.logs(), &program, &arguments, env)?;
        process.port = Some(port);
        let listening = eventually(Duration::from_secs(30), async || {
            process.check()?;
            Ok(tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok())
        });
        listening.await?.with_context(|| format!("{name} does not listen after 30 s"))?;
        Ok(process)
    }

    /// Runs kubectl as the administrator.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<Output> {
        let kubeconfig = self.kubeconfig(User::Admin)?;
        let mut command = tokio::process::Command::new(self.kubernetes.join("kubectl"));
        command.args(arguments).env("KUBECONFIG", kubeconfig).env("HOME", self.dir.path()).kill_on_drop(true);
        command.output().await.context("cannot run kubectl")
    }

    /// As [`Self::kubectl`], and it must succeed.
    pub async fn kubectl_ok(&self, arguments: &[&str]) -> Result<()> {
        let output = self.kubectl(arguments).await?;
        if !output.status.success() {
            bail!("kubectl {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    /// The directory with kubectl.
    pub fn programs(&self) -> &OsStr {
        self.kubernetes.as_os_str()
    }

    /// The path of a user's kubeconfig.
    pub fn kubeconfig(&self, user: User) -> Result<String> {
        self.kubeconfig_by(user, &self.url)
    }

    /// The same, by another way to the API server.
    pub fn kubeconfig_by(&self, user: User, url: &str) -> Result<String> {
        let direct = if url == self.url { "" } else { "-other-way" };
        let path = self.path(&format!("{}{direct}.kubeconfig", user.token()));
        let mut cluster = json!({"server": url});
        if url.starts_with("https:") {
            cluster["certificate-authority"] = json!(self.file("ca.crt"));
        }
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "here",
            "clusters": [{"name": "here", "cluster": cluster}],
            "users": [{"name": "me", "user": {"token": user.token()}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
        });
        std::fs::write(&path, config.to_string()).context("cannot write a kubeconfig")?;
        Ok(path.display().to_string())
    }

    /// A user's way to the API server.
    pub fn api(&self, user: User) -> Result<Api> {
        Ok(Api::new(self.client(user)?))
    }

    /// A user's API client.
    pub fn client(&self, user: User) -> Result<Client> {
        let mut config = Config::new(self.url.parse().context("bad URL")?);
        config.root_cert = Some(vec![self.ca_der.clone()]);
        config.auth_info = AuthInfo { token: Some(user.token().into()), ..AuthInfo::default() };
        // what the API server answers is what is looked at
        config.default_retry = false;
        Client::try_from(config).context("cannot make an API client")
    }

    /// CPU seconds of etcd and the API server so far.
    pub fn api_server_cpu_seconds(&self) -> f64 {
        self.processes.iter().take(2).map(Process::cpu_seconds).sum()
    }

    /// Keeps everything but schedulers on one core, see [`Process::keep_on`].
    pub fn keep_on(&self, core: Option<usize>) -> Result<()> {
        self.processes.iter().try_for_each(|process| process.keep_on(core))
    }

    fn check(&mut self) -> Result<()> {
        self.processes.iter_mut().try_for_each(Process::check)
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        if let Some(target) = &self.keep_logs {
            let _ = std::fs::create_dir_all(target);
            for entry in std::fs::read_dir(self.logs()).into_iter().flatten().flatten() {
                let _ = std::fs::copy(entry.path(), target.join(entry.file_name()));
            }
        }
    }
}

/// A CA and a server certificate for 127.0.0.1. The server's key also signs service account tokens.
fn certificates(dir: &Path) -> Result<Vec<u8>> {
    let mut ca = CertificateParams::new(Vec::new())?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    ca.distinguished_name.push(DnType::CommonName, "test control plane");
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate()?)?;
    let mut server = CertificateParams::new(vec!["127.0.0.1".to_owned()])?;
    server.distinguished_name.push(DnType::CommonName, "kube-apiserver");
    let key = KeyPair::generate()?;
    let server = server.signed_by(&key, &ca)?;
    std::fs::write(dir.join("ca.crt"), ca.pem())?;
    std::fs::write(dir.join("tls.crt"), server.pem())?;
    std::fs::write(dir.join("tls.key"), key.serialize_pem())?;
    Ok(ca.der().to_vec())
}
