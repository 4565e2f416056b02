//! `handoff serve`: wiring only. Caches → coordinator → webhook and extender, certificates beside them, and one rule:
//! when a part that must not end ends, the process ends, with its name in the last line.

use crate::{
    args::ServeArgs,
    listen::{self, Limits},
    logs,
    observe::{self, Pages, Reviews},
};
use anyhow::{Context, anyhow, bail};
use handoff_certs::{CertsConfig, Serving, WebhookNames, server_config, server_config_mtls};
use handoff_cluster::{Cache, Change, ClusterCache, ObjectKey, OnChange, Task};
use handoff_coordinator::{
    Coordinator, Parts, api::VolumeHandoff, handoffs::Handoffs, lease::Elector, metrics::Metrics, queue::Queue,
};
use handoff_storage::longhorn::{DRIVER, Longhorn};
use jiff::Timestamp;
use kube::{Api, Client, Config};
use prometheus_client::registry::Registry;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinSet,
};

/// After SIGTERM we go on answering for this long: the Service still sends us reviews until its endpoints are updated.
const LAME_DUCK: Duration = Duration::from_secs(4);
/// Longest time in-flight requests are given after that.
const DRAIN: Duration = Duration::from_secs(10);

/// Runs until SIGTERM, or until a part fails.
pub async fn run(args: ServeArgs) -> anyhow::Result<()> {
    logs::start(args.log_format, &args.log)?;
    let policy = args.policy()?;
    // the rest of the program passes the provider explicitly; this is for libraries that ask for the default one
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = client().await?;
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    let reviews = Arc::new(Reviews::new(&mut registry));
    let caches = Caches::new(&client, &args.longhorn_namespace);
    let elector = Elector::new(client.clone(), &args.namespace, "handoff", &args.pod_name);
    let coordinator = Arc::new(Coordinator::new(Parts {
        client: client.clone(),
        cluster: caches.cluster,
        storage: Arc::new(caches.storage),
        handoffs: caches.handoffs,
        policy,
        metrics,
        queue: caches.queue,
        leadership: elector.leadership(),
        identity: ObjectKey::new(&args.namespace, &args.pod_name),
    }));
    let (stop_leading, lead_until) = watch::channel(false);
    let (stop_serving, serve_until) = watch::channel(false);
    let (leading_now, leading) = watch::channel(false);
    let mut parts = JoinSet::new();
    for (name, task) in caches.tasks {
        parts.spawn(named(name, task));
    }
    for _ in 0..args.workers {
        let coordinator = coordinator.clone();
        parts.spawn(named("worker", async move { coordinator.work().await }));
    }
    parts.spawn(named("reaper", reap(coordinator.clone())));
    parts.spawn(named("new leader", look_when_leading(coordinator.clone(), leading.clone())));
    let serving = certificates(&args, &client, &mut parts, leading).await?;
    let mut servers = serve(&args, &coordinator, &serving, registry, reviews, &serve_until).await?;
    let election = tokio::spawn(elector.run(lead_until, leading_now));
    let ended = tokio::select! {
        () = termination() => Ok(()),
        Some(part) = parts.join_next() => Err(anyhow!("{} ended", part.unwrap_or("a part"))),
        Some(server) = servers.join_next() => Err(match server { Ok(Err(e)) => e, _ => anyhow!("a listener ended") }),
    };
    // the lease goes first: another replica takes over while we still answer
    stop_leading.send_replace(true);
    let _ = election.await;
    if ended.is_ok() {
        tokio::time::sleep(LAME_DUCK).await;
    }
    stop_serving.send_replace(true);
    while servers.join_next().await.is_some() {}
    ended
}

/// In a pod the API server is named by the environment: a static binary cannot rely on the resolver.
async fn client() -> anyhow::Result<Client> {
    let config = match Config::incluster_env() {
        Ok(config) => config,
        Err(_) => Config::infer().await.context("no cluster: neither in a pod nor is there a kubeconfig")?,
    };
    Client::try_from(config).context("cannot make an API client")
}

/// The caches and the tasks that keep them current. Whatever changes, the volume concerned is queued.
pub struct Caches {
    /// Volumes to look at.
    pub queue: Arc<Queue>,
    /// The Kubernetes side.
    pub cluster: ClusterCache,
    /// The storage side.
    pub storage: Longhorn,
    /// Our own objects.
    pub handoffs: Cache<Handoffs>,
    /// What keeps the above current.
    pub tasks: Vec<Task>,
}

impl Caches {
    /// Empty caches of what `client` reaches; they fill as the tasks run.
    pub fn new(client: &Client, longhorn_namespace: &str) -> Self {
        let queue = Arc::new(Queue::default());
        let mut handoffs = Cache::<Handoffs>::default();
        let add = queue.clone();
        let by_name: OnChange<String> = Arc::new(move |volume| add.add(&volume));
        let mut tasks = vec![handoffs.watch::<VolumeHandoff>(Api::all(client.clone()), by_name)];
        let (add, active) = (queue.clone(), handoffs.clone());
        let on_cluster: OnChange<Change> = Arc::new(move |change| match change {
            Change::Volume(volume) => add.add(&volume),
            // a cordon or a readiness matters to whatever is under way
            Change::Node(_) => active.read().unfinished().for_each(|volume| add.add(volume)),
        });
        let (cluster, cluster_tasks) = ClusterCache::of_cluster(client, &on_cluster);
        let (add, index) = (queue.clone(), cluster.clone());
        let on_storage: OnChange<String> = Arc::new(move |handle| {
            let volume = index.read().volume_of_handle(DRIVER, &handle);
            volume.iter().for_each(|v| add.add(&v.name));
        });
        let (storage, storage_tasks) = Longhorn::new(client.clone(), longhorn_namespace, cluster.clone(), &on_storage);
        tasks.extend(cluster_tasks);
        tasks.extend(storage_tasks);
        Self { queue, cluster, storage, handoffs, tasks }
    }
}

async fn named(name: &'static str, task: impl Future<Output = ()>) -> &'static str {
    task.await;
    name
}

async fn reap(coordinator: Arc<Coordinator>) {
    coordinator.reap().await;
}

async fn look_when_leading(coordinator: Arc<Coordinator>, mut leading: watch::Receiver<bool>) {
    while leading.changed().await.is_ok() {
        let leads = *leading.borrow_and_update();
        coordinator.leading(leads);
        while leads && !coordinator.missing().is_empty() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        if leads {
            coordinator.look_at_all();
        }
    }
}

async fn certificates(
    args: &ServeArgs,
    client: &Client,
    parts: &mut JoinSet<&'static str>,
    leading: watch::Receiver<bool>,
) -> anyhow::Result<Serving> {
    let names = [&args.webhook_service, &args.extender_service];
    let names =
        names.into_iter().flat_map(|s| [format!("{s}.{}.svc", args.namespace), format!("{s}.{}", args.namespace)]);
    let config = CertsConfig::new(&args.namespace, &args.certs_secret, names.collect());
    config.validate().context("bad configuration")?;
    let material = handoff_certs::ensure(client, &config, Timestamp::now()).await.context("no certificate")?;
    let serving = Serving::default();
    serving.load(&material, Timestamp::now()).context("cannot serve with the certificate in the Secret")?;
    let name = args.webhook_configuration.clone();
    let webhooks = WebhookNames { mutating: vec![name.clone()], validating: vec![name] };
    let upkeep = handoff_certs::run(client.clone(), config, webhooks, serving.clone(), leading);
    parts.spawn(named("certificates", upkeep));
    Ok(serving)
}

async fn serve(
    args: &ServeArgs,
    coordinator: &Arc<Coordinator>,
    serving: &Serving,
    registry: Registry,
    reviews: Arc<Reviews>,
    until: &watch::Receiver<bool>,
) -> anyhow::Result<JoinSet<anyhow::Result<()>>> {
    let bind = async |port: u16| {
        let address = SocketAddr::new(args.address, port);
        TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
    };
    let limits = Limits { grace: DRAIN, ..Limits::default() };
    let mut servers = JoinSet::new();

    let webhook =
        handoff_webhook::router(coordinator.clone(), handoff_webhook::WebhookConfig::default(), reviews.clone());
    let (listener, tls) = (bind(args.webhook_port).await?, server_config(serving.resolver.clone())?);
    let stop = until.clone();
    let webhook_limits = limits.clone();
    servers.spawn(async move {
        listen::serve_tls(listener, tls, webhook, webhook_limits, stop).await.context("webhook listener")
    });

    let extender = handoff_extender::router(coordinator.clone(), handoff_extender::ExtenderConfig::default(), reviews);
    let tls = server_config_mtls(serving.resolver.clone(), serving.roots.clone())?;
    let (listener, stop) = (bind(args.extender_port).await?, until.clone());
    // 5,000 nodes of 10 kB each, in full-node mode
    let extender_limits = Limits { body: 64 << 20, ..limits.clone() };
    servers.spawn(async move {
        listen::serve_tls(listener, tls, extender, extender_limits, stop).await.context("extender listener")
    });

    let ready = coordinator.clone();
    let pages = observe::router(Pages { registry: Arc::new(registry), missing: Arc::new(move || ready.missing()) });
    let (listener, stop) = (bind(args.metrics_port).await?, until.clone());
    servers.spawn(async move { listen::serve_plain(listener, pages, limits, stop).await.context("metrics listener") });
    if args.webhook_port == args.extender_port {
        bail!("bad configuration: webhook-port and extender-port are both {}", args.webhook_port);
    }
    Ok(servers)
}

async fn termination() {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        tracing::error!("cannot listen for signals; stop this process with SIGKILL");
        return std::future::pending().await;
    };
    tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
    tracing::info!("asked to stop: giving the lease back, finishing what is in flight");
}
