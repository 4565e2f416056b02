//! `handoff serve`: wiring only. Caches → coordinator → webhook and extender, certificates beside them, and one rule:
//! when a part that must not end ends, the process ends, with its name in the last line.

use crate::{
    args::ServeArgs,
    clock::{ApiClock, noting},
    listen::{self, Limits},
    logs,
    observe::{self, Missing, Pages, figures},
    otlp::{Otlp, Sent},
    page, permissions,
};
use anyhow::{Context, anyhow, bail};
use axum::Router;
use handoff_certs::{CertsConfig, Keeper, Serving, WebhookNames, server_config, server_config_mtls};
use handoff_coordinator::{Coordinator, clock::Clock};
use handoff_replica::{Core, Work};
use kube::{Client, Config, client::ClientBuilder};
use prometheus_client::registry::Registry;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinSet,
};
use tower::layer::layer_fn;

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
    let clock = Arc::new(ApiClock::default());
    let client = client(&clock).await?;
    let mut registry = Registry::default();
    let otlp = otlp(&args, &mut registry)?;
    let core = Core::new(args.replica(policy, Clock::default()), &client, &mut registry);
    core.reviews.count_failed_open_by(&core.coordinator);
    if let Some(otlp) = &otlp {
        core.coordinator.send_traces_to(otlp.clone());
    }
    let (webhook, extender) = (core.webhook(), core.extender());
    let coordinator = core.coordinator.clone();
    let (stop_leading, lead_until) = watch::channel(false);
    let (stop_serving, serve_until) = watch::channel(false);
    let Work { tasks, election, leading } = core.work(lead_until);
    let mut parts = JoinSet::new();
    for (name, task) in tasks {
        parts.spawn(named(name, task));
    }
    parts.spawn(named("permissions", permissions::watch(client.clone(), permissions::needed(&args))));
    let serving = Serving::new(clock.clone());
    let missing = missing(&coordinator, &serving);
    figures::register(&mut registry, &coordinator, serving.clone(), clock, missing.clone());
    parts.spawn(named("certificates", keeper(&args, &client, &serving)?.run(leading)));
    let moves = page::of(coordinator.clone(), args.pod_name.clone(), missing.clone());
    let moves = if args.moves_page { page::router(moves) } else { Router::new() };
    let routers = Routers { webhook, extender, moves };
    let mut servers = serve(&args, &serving, missing, registry, routers, &serve_until).await?;
    let election = tokio::spawn(election);
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
    if let Some(otlp) = otlp {
        otlp.end().await;
    }
    ended
}

/// Where the API server is. In a pod it is named by the environment: a static binary cannot rely on the resolver.
pub(crate) async fn cluster() -> anyhow::Result<Config> {
    match Config::incluster_env() {
        Ok(config) => Ok(config),
        Err(_) => Config::infer().await.context("no cluster: neither in a pod nor is there a kubeconfig"),
    }
}

/// The collector, if one is named.
fn otlp(args: &ServeArgs, registry: &mut Registry) -> anyhow::Result<Option<Arc<Otlp>>> {
    let sent = Sent::new(registry);
    let start = |endpoint| Otlp::start(endpoint, &args.namespace, &args.pod_name, sent);
    Ok(args.otlp_endpoint.as_ref().map(start).transpose()?.map(Arc::new))
}

async fn client(clock: &Arc<ApiClock>) -> anyhow::Result<Client> {
    let builder = ClientBuilder::try_from(cluster().await?).context("cannot make an API client")?;
    Ok(builder.with_layer(&layer_fn(|service| noting(clock, service))).build())
}

async fn named(name: &'static str, task: impl Future<Output = ()>) -> &'static str {
    task.await;
    name
}

fn keeper(args: &ServeArgs, client: &Client, serving: &Serving) -> anyhow::Result<Keeper> {
    let names = [&args.webhook_service, &args.extender_service];
    let names =
        names.into_iter().flat_map(|s| [format!("{s}.{}.svc", args.namespace), format!("{s}.{}", args.namespace)]);
    let config = CertsConfig::new(&args.namespace, &args.certs_secret, names.collect());
    let name = args.webhook_configuration.clone();
    let webhooks = WebhookNames { mutating: vec![name.clone()], validating: vec![name] };
    let keeper = Keeper::new(client.clone(), args.certificates.clone(), config, webhooks, serving.clone());
    keeper.context("bad configuration")
}

/// What keeps this replica from being ready.
fn missing(coordinator: &Arc<Coordinator>, serving: &Serving) -> Missing {
    let (coordinator, serving) = (coordinator.clone(), serving.clone());
    Arc::new(move || {
        let mut missing = coordinator.missing();
        missing.extend((!serving.is_usable()).then_some("a valid certificate"));
        missing
    })
}

struct Routers {
    webhook: Router,
    extender: Router,
    moves: Router,
}

async fn serve(
    args: &ServeArgs,
    serving: &Serving,
    missing: Missing,
    mut registry: Registry,
    Routers { webhook, extender, moves }: Routers,
    until: &watch::Receiver<bool>,
) -> anyhow::Result<JoinSet<anyhow::Result<()>>> {
    let bind = async |port: u16| {
        let address = SocketAddr::new(args.address, port);
        TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
    };
    let connections = figures::connections(&mut registry);
    let limits = |listener| Limits { grace: DRAIN, open: connections(listener), ..Limits::default() };
    let mut servers = JoinSet::new();

    let (listener, tls) = (bind(args.webhook_port).await?, server_config(serving.resolver.clone())?);
    let stop = until.clone();
    let webhook_limits = limits("webhook");
    servers.spawn(async move {
        listen::serve_tls(listener, tls, webhook, webhook_limits, stop).await.context("webhook listener")
    });

    let tls = server_config_mtls(serving.resolver.clone(), serving.roots.clone())?;
    let (listener, stop) = (bind(args.extender_port).await?, until.clone());
    // the extender bounds each body, and all of them together, itself; this only keeps its error from being ours
    let extender_limits = Limits { body: args.extender().body.saturating_add(1 << 20), ..limits("extender") };
    servers.spawn(async move {
        listen::serve_tls(listener, tls, extender, extender_limits, stop).await.context("extender listener")
    });

    let (listener, stop, limits) = (bind(args.metrics_port).await?, until.clone(), limits("metrics"));
    let pages = observe::router(Pages { registry: Arc::new(registry), missing }).merge(moves);
    servers.spawn(async move { listen::serve_plain(listener, pages, limits, stop).await.context("metrics listener") });
    if args.webhook_port == args.extender_port {
        bail!("bad configuration: webhook-port and extender-port are both {}", args.webhook_port);
    }
    Ok(servers)
}

pub(crate) async fn termination() {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        tracing::error!("cannot listen for signals; stop this process with SIGKILL");
        return std::future::pending().await;
    };
    tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
    tracing::info!("asked to stop: giving the lease back, finishing what is in flight");
}
