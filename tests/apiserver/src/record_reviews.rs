//! Admission reviews of a real API server, written down as they came, each for what a real client does.

use crate::{
    bench::{Bench, MUTATING, SOON, VALIDATING},
    checks::{outage::scheduled, storage},
    control_plane::User,
    http::{Read, eventually},
    scheduler,
    world::{Volume, core, longhorn, pod},
};
use anyhow::{Context, Result};
use axum::{Json, Router, body::Bytes, extract::State, http::Uri};
use base64::{Engine, engine::general_purpose::STANDARD};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use serde_json::{Value, json};
use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

const NS: &str = "rec";

/// The review that is waited for: the first on this path that holds this text.
struct Wanted {
    file: &'static str,
    path: &'static str,
    text: String,
}

/// A webhook that allows everything and writes down what is wanted.
struct Recorder {
    directory: PathBuf,
    wanted: Mutex<Vec<Wanted>>,
}

struct Tls {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let Ok((stream, peer)) = self.listener.accept().await else { continue };
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, peer);
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Recorder {
    /// Starts it in place of Handoff, for every webhook, and without the conditions that keep reviews away.
    async fn start(bench: &Bench, directory: &Path) -> Result<Arc<Self>> {
        let (ca, config) = certificates()?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("no port")?;
        let port = listener.local_addr().context("no port")?.port();
        let recorder = Arc::new(Self { directory: directory.to_owned(), wanted: Mutex::default() });
        let router = Router::new().fallback(allow).with_state(Arc::clone(&recorder));
        let tls = Tls { listener, acceptor: TlsAcceptor::from(Arc::new(config)) };
        tokio::spawn(async move { axum::serve(tls, router).await });
        for configuration in [MUTATING, VALIDATING] {
            let object = bench.admin.get(configuration).await?.ok()?;
            let mut webhooks = object["webhooks"].clone();
            for webhook in webhooks.as_array_mut().into_iter().flatten() {
                webhook["clientConfig"]["service"]["port"] = json!(port);
                webhook["clientConfig"]["caBundle"] = json!(ca);
                webhook["matchConditions"] = json!([]);
            }
            bench.admin.merge(configuration, &json!({"webhooks": webhooks})).await?;
        }
        // the API server takes a moment to see it
        tokio::time::sleep(Duration::from_secs(2)).await;
        Ok(recorder)
    }

    fn expect(&self, file: &'static str, path: &'static str, text: impl Into<String>) {
        let wanted = Wanted { file, path, text: text.into() };
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner).push(wanted);
    }

    /// Waits until everything that is wanted has come.
    async fn all(&self) -> Result<()> {
        let missing = || {
            let wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
            wanted.iter().map(|w| w.file).collect::<Vec<_>>().join(", ")
        };
        let done = eventually(SOON * 3, async || Ok(missing().is_empty().then_some(())));
        done.await?.with_context(|| format!("these never came: {}", missing()))
    }
}

async fn allow(State(recorder): State<Arc<Recorder>>, uri: Uri, body: Bytes) -> Json<Value> {
    let text = String::from_utf8_lossy(&body);
    let found = {
        let mut wanted = recorder.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        let at = wanted.iter().position(|w| w.path == uri.path() && text.contains(&w.text));
        at.map(|at| wanted.remove(at))
    };
    if let Some(Wanted { file, .. }) = found {
        let path = recorder.directory.join(file).with_extension("json");
        match std::fs::write(&path, &body) {
            Ok(()) => println!("recorded {} ({} bytes)", path.display(), body.len()),
            Err(error) => eprintln!("cannot write {}: {error}", path.display()),
        }
    }
    let review: Value = serde_json::from_slice(&body).unwrap_or_default();
    Json(json!({"apiVersion": review["apiVersion"], "kind": review["kind"],
        "response": {"uid": review["request"]["uid"], "allowed": true}}))
}

fn certificates() -> Result<(String, ServerConfig)> {
    let mut ca = CertificateParams::new(Vec::new())?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let names = vec!["handoff-webhook.handoff-system.svc".to_owned()];
    let leaf = CertificateParams::new(names)?.signed_by(&key, &ca)?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(vec![leaf.der().clone()], key).context("bad certificate")?;
    Ok((STANDARD.encode(ca.pem()), config))
}

/// Does what the recorded clients do.
pub async fn run(bench: &mut Bench, directory: &Path) -> Result<()> {
    bench.replicas.kill().await?;
    let recorder = Recorder::start(bench, directory).await?;
    let _scheduler = scheduler::plain(bench, "scheduler-reviews", "").await?;
    bench.world.namespace(NS).await?;
    created(bench, &recorder).await?;
    evicted(bench, &recorder).await?;
    bound(bench, &recorder).await?;
    deleted(bench, &recorder).await?;
    snapshot(bench, &recorder).await
}

async fn created(bench: &Bench, recorder: &Recorder) -> Result<()> {
    recorder.expect("create-statefulset-pod", "/mutate/pods", "\"name\":\"db-0\"");
    recorder.expect("bind-kube-scheduler", "/validate/bindings", "\"name\":\"db-0\"");
    recorder.expect("create-replicaset-pod", "/mutate/pods", "\"ephemeral\"");
    for claim in ["data-db-0", "shared"] {
        bench.world.volume(&Volume::new(NS, claim), "", &["node-a"]).await?;
    }
    let labels = |app: &str| json!({"app": app});
    let template = |app: &str, claim: &str| {
        let mut pod = pod(NS, app, &[claim]);
        pod["metadata"] = json!({"labels": labels(app)});
        pod
    };
    let mut db = template("db", "data");
    db["spec"]["volumes"] = json!([]);
    let claims = json!([{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "storageClassName": "longhorn", "resources": {"requests": {"storage": "1Gi"}}}}]);
    let db = json!({"metadata": {"name": "db"}, "spec": {"serviceName": "db", "replicas": 1,
        "selector": {"matchLabels": labels("db")}, "template": db, "volumeClaimTemplates": claims}});
    bench.admin.create(&format!("/apis/apps/v1/namespaces/{NS}/statefulsets"), &db).await?;
    for (name, replicas, scratch) in [("web", 2, false), ("scratch", 1, true)] {
        let mut template = template(name, "shared");
        if scratch {
            let claim =
                json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
            let volume = json!({"name": "scratch", "ephemeral": {"volumeClaimTemplate": claim}});
            template["spec"]["volumes"].as_array_mut().context("no volumes")?.push(volume);
        }
        let deployment = json!({"metadata": {"name": name},
            "spec": {"replicas": replicas, "selector": {"matchLabels": labels(name)}, "template": template}});
        bench.admin.create(&format!("/apis/apps/v1/namespaces/{NS}/deployments"), &deployment).await?;
    }
    scheduled(bench, NS, "db-0").await?.context("db-0 is not scheduled")?;
    recorder.all().await
}

/// A pod of the Deployment that runs on a node.
async fn web(bench: &Bench) -> Result<(String, String)> {
    let pods = format!("{}?labelSelector=app%3Dweb", core(NS, "pods", ""));
    let found = eventually(SOON, async || {
        let list = bench.admin.get(&pods).await?.ok()?;
        let on = list.items("/items").iter().find(|p| p.has("/spec/nodeName") && !p.has("/metadata/deletionTimestamp"));
        Ok(on.map(|p| (p.text("/metadata/name").to_owned(), p.text("/spec/nodeName").to_owned())))
    });
    found.await?.context("no pod of web runs")
}

async fn evicted(bench: &Bench, recorder: &Recorder) -> Result<()> {
    let path = core(NS, "pods", "db-0/eviction");
    let eviction = |version: &str, options: Value| {
        json!({"apiVersion": version, "kind": "Eviction", "metadata": {"name": "db-0", "namespace": NS},
            "deleteOptions": options})
    };
    let pod = bench.admin.get(&core(NS, "pods", "db-0")).await?.ok()?;
    let (uid, node) = (pod.text("/metadata/uid"), pod.text("/spec/nodeName").to_owned());
    recorder.expect("evict-with-uid", "/validate/evictions", "preconditions");
    let dry = json!({"dryRun": ["All"], "preconditions": {"uid": uid}});
    bench.admin.post(&path, &eviction("policy/v1", dry)).await?.ok()?;
    // the API server sends it as policy/v1
    recorder.expect("evict-v1beta1", "/validate/evictions", "\"name\":\"db-0\"");
    bench.admin.post(&path, &eviction("policy/v1beta1", json!({"dryRun": ["All"]}))).await?.ok()?;
    let all = ["--ignore-daemonsets", "--delete-emptydir-data", "--force"];
    recorder.expect("evict-kubectl-drain-dry-run", "/validate/evictions", "\"name\":\"db-0\"");
    bench.plane.kubectl_ok(&[&["drain", &node, "--dry-run=server"], all.as_slice()].concat()).await?;
    let (name, node) = web(bench).await?;
    recorder.expect("evict-kubectl-drain", "/validate/evictions", format!("\"name\":\"{name}\""));
    bench.plane.kubectl_ok(&[&["drain", &node], all.as_slice()].concat()).await?;
    bench.plane.kubectl_ok(&["uncordon", &node]).await?;
    recorder.all().await?;
    recorder.expect("evict-instance-manager", "/validate/storage-evictions", "\"name\":\"instance-manager-rec\"");
    let labels = json!({"longhorn.io/component": "instance-manager"});
    storage::storage_pod(bench, "instance-manager-rec", labels).await?;
    storage::evict(bench, "longhorn-system", "instance-manager-rec", false).await?.ok()?;
    recorder.all().await
}

async fn bound(bench: &Bench, recorder: &Recorder) -> Result<()> {
    recorder.expect("bind-legacy", "/validate/bindings", "\"name\":\"nope\"");
    let mut nope = pod(NS, "nope", &[]);
    nope["spec"]["schedulerName"] = json!("nobody");
    bench.admin.create(&core(NS, "pods", ""), &nope).await?;
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "nope", "namespace": NS},
        "target": {"apiVersion": "v1", "kind": "Node", "name": "node-b"}});
    bench.admin.post(&core(NS, "bindings", ""), &binding).await?.ok()?;
    recorder.all().await
}

async fn deleted(bench: &Bench, recorder: &Recorder) -> Result<()> {
    let path = "/validate/pods-delete";
    scheduled(bench, NS, "db-0").await?.context("db-0 is not scheduled")?;
    recorder.expect("delete-kubectl", path, "\"name\":\"db-0\"");
    recorder.expect("delete-kubelet-final", path, "\"username\":\"system:node:");
    bench.plane.kubectl_ok(&["delete", "pod", "db-0", "-n", NS]).await?;
    recorder.all().await?;
    scheduled(bench, NS, "db-0").await?.context("db-0 is not scheduled")?;
    recorder.expect("delete-statefulset-controller", path, "statefulset-controller\"");
    bench.plane.kubectl_ok(&["scale", "statefulset/db", "-n", NS, "--replicas=0"]).await?;
    recorder.all().await?;
    let (name, _) = web(bench).await?;
    recorder.expect("delete-kubectl-force", path, format!("\"name\":\"{name}\""));
    bench.plane.kubectl_ok(&["delete", "pod", &name, "-n", NS, "--force", "--grace-period=0"]).await?;
    recorder.all().await?;
    let (name, _) = web(bench).await?;
    recorder.expect("delete-collection", path, format!("\"name\":\"{name}\""));
    let collection = format!("{}?labelSelector=app%3Dweb", core(NS, "pods", ""));
    bench.admin.delete(&collection, &json!({})).await?.ok()?;
    recorder.all().await
}

async fn snapshot(bench: &Bench, recorder: &Recorder) -> Result<()> {
    recorder.expect("delete-snapshot", "/validate/snapshots", "\"name\":\"rec-snapshot\"");
    bench.world.backup(&Volume::new(NS, "shared"), "rec-snapshot", 40).await?;
    let admin = bench.plane.api(User::Admin)?;
    admin.delete(&longhorn("snapshots", "rec-snapshot"), &json!({})).await?.ok()?;
    recorder.all().await
}
