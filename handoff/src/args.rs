//! Flags and environment: the only place that reads them. Every value has a unit and a default, and is checked before
//! anything starts.

use crate::{
    commands::{
        cordon_check::CordonCheckArgs,
        doctor::DoctorArgs,
        explain::ExplainArgs,
        history::HistoryArgs,
        orders::OrderArgs,
        plan::PlanArgs,
        reference::{CompletionArgs, ManArgs},
        release::ReleaseArgs,
        simulate::SimulateArgs,
        status::StatusArgs,
        uninstall::UninstallArgs,
    },
    otlp::Endpoint,
};
use anyhow::{Context, bail};
use clap::{ArgAction, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use handoff_certs::Source;
use handoff_cluster::ObjectKey;
use handoff_coordinator::{
    clock::Clock,
    policy::Policy,
    verdicts::settings::{EvictionPolicy, Mode},
};
use handoff_extender::ExtenderConfig;
use handoff_replica::Config;
use handoff_webhook::{SchedulerTier, WebhookConfig};
use jiff::SignedDuration;
use std::{
    ffi::OsString,
    net::{IpAddr, Ipv4Addr},
    path::Path,
};

/// Pods move within seconds, and their backups finish anyway.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the webhook, the extender and the controller.
    Serve(Box<ServeArgs>),
    /// Run on a node: say when a volume that leaves it is unstaged.
    Agent(AgentArgs),
    /// List all volumes on the move or owing.
    Status(Box<StatusArgs>),
    /// Say what holds a pod, a volume or a node, what is owed and what happens next.
    Explain(Box<ExplainArgs>),
    /// Say what a drain of a node would do now.
    Plan(Box<PlanArgs>),
    /// Say whether a node can be drained now, by exit code.
    CordonCheck(Box<CordonCheckArgs>),
    /// Look at every precondition of an installation that works; what does not hold comes with its fix.
    Doctor(Box<DoctorArgs>),
    /// List the moves and Events that are remembered.
    History(Box<HistoryArgs>),
    /// End a hold now: the next eviction is let through.
    Release(Box<ReleaseArgs>),
    /// Try owed backups now, and those that were given up.
    Resume(Box<OrderArgs>),
    /// Stop owing backups: they will not be made complete.
    Abandon(Box<OrderArgs>),
    /// What if a node with so many volumes were drained: simulate it, with Handoff and without.
    Simulate(Box<SimulateArgs>),
    /// Withdraw what Handoff has put into the cluster, before its manifests are deleted.
    Uninstall(Box<UninstallArgs>),
    /// Print the CustomResourceDefinition.
    Crd,
    /// Print a completion script.
    Completion(CompletionArgs),
    /// Print the man page.
    Man(ManArgs),
    /// Print docs/cli.md.
    #[command(hide = true)]
    Markdown,
}

impl Args {
    /// The command line. Called as a plugin of kubectl, which is by the name `kubectl-handoff`, it speaks of itself as
    /// `kubectl handoff`.
    pub fn read(words: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let words = words.into_iter().collect::<Vec<_>>();
        let program = words.first().map(Path::new).and_then(Path::file_stem);
        let mut command = Self::command();
        if program.is_some_and(|name| name == "kubectl-handoff") {
            command = command.bin_name("kubectl handoff");
        }
        Self::from_arg_matches(&command.try_get_matches_from(words)?)
    }
}

/// Format of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// For people.
    Human,
}

/// `handoff serve`.
#[derive(Debug, Parser)]
pub struct ServeArgs {
    /// Name of this pod: its identity in the leader lease.
    #[arg(long, env = "POD_NAME")]
    pub pod_name: String,
    /// Namespace of this pod: its Secret, lease and Services are there.
    #[arg(long, env = "POD_NAMESPACE")]
    pub namespace: String,
    /// Namespace of Longhorn.
    #[arg(long, env = "HANDOFF_LONGHORN_NAMESPACE", default_value = "longhorn-system")]
    pub longhorn_namespace: String,
    /// Name of the Service in front of the webhook.
    #[arg(long, env = "HANDOFF_WEBHOOK_SERVICE_NAME", default_value = "handoff-webhook")]
    pub webhook_service: String,
    /// Name of the Service in front of the extender.
    #[arg(long, env = "HANDOFF_EXTENDER_SERVICE_NAME", default_value = "handoff-extender")]
    pub extender_service: String,
    /// Name of our webhook configurations, mutating and validating.
    #[arg(long, env = "HANDOFF_WEBHOOK_CONFIGURATION", default_value = "handoff")]
    pub webhook_configuration: String,
    /// Who makes the server certificate: `own` (we do), `cert-manager`, or `files:DIRECTORY` with tls.crt, tls.key and
    /// ca.crt.
    #[arg(long, env = "HANDOFF_CERTIFICATES", default_value_t = Source::Own)]
    pub certificates: Source,
    /// Name of the Secret with the certificates, ours or cert-manager's.
    #[arg(long, env = "HANDOFF_CERTS_SECRET", default_value = "handoff-certs")]
    pub certs_secret: String,
    /// Address to listen on.
    #[arg(long, env = "HANDOFF_LISTEN_ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED))]
    pub address: IpAddr,
    /// Port of the webhook (TLS).
    #[arg(long, env = "HANDOFF_LISTEN_WEBHOOK_PORT", default_value_t = 8443)]
    pub webhook_port: u16,
    /// Port of the extender (TLS, client certificate required).
    #[arg(long, env = "HANDOFF_LISTEN_EXTENDER_PORT", default_value_t = 8444)]
    pub extender_port: u16,
    /// Port of /healthz, /readyz, /metrics and /moves (plain HTTP).
    #[arg(long, env = "HANDOFF_LISTEN_METRICS_PORT", default_value_t = 8080)]
    pub metrics_port: u16,
    /// Whether /moves, a page that shows what moves and what is owed, is there.
    #[arg(long, env = "HANDOFF_MOVES_PAGE", default_value_t = true, action = ArgAction::Set)]
    pub moves_page: bool,
    /// Time for an answer to the scheduler; less than `httpTimeout` in its configuration (1 s in ours).
    #[arg(long, env = "HANDOFF_EXTENDER_DEADLINE", default_value = "800ms")]
    extender_deadline: SignedDuration,
    /// Longest question of the scheduler in MiB; 5,000 full nodes of 10 kB each are 50.
    #[arg(long, env = "HANDOFF_EXTENDER_BODY_MIB", default_value_t = 64)]
    extender_body_mib: u16,
    /// Memory in MiB that all questions with full nodes together may take.
    #[arg(long, env = "HANDOFF_EXTENDER_BODIES_MIB", default_value_t = 64)]
    extender_bodies_mib: u16,
    /// Name of a second scheduler that asks the extender: new pods with our volumes that name no scheduler are given to
    /// it. Off by default.
    #[arg(long, env = "HANDOFF_SCHEDULER_NAME", value_parser = SchedulerTier::parse_name)]
    pub scheduler_name: Option<String>,
    /// Extended resource that new pods with our volumes ask for, such as `volumehandoff.io/volume`: the extender's
    /// `managedResources`. Off by default.
    #[arg(long, env = "HANDOFF_SCHEDULER_MARKER", value_parser = SchedulerTier::parse_marker)]
    pub scheduler_marker: Option<String>,
    /// Volumes that are worked on at the same time.
    #[arg(long, env = "HANDOFF_WORKERS", default_value_t = 8)]
    pub workers: u16,
    /// Format of the log.
    #[arg(long, env = "HANDOFF_LOG_FORMAT", value_enum, default_value_t = LogFormat::Json)]
    pub log_format: LogFormat,
    /// Level of the log, as in `info` or `info,handoff_coordinator=debug`.
    #[arg(long, env = "HANDOFF_LOG", default_value = "info,kube_client=warn")]
    pub log: String,
    /// Where traces go: an OpenTelemetry collector's OTLP/HTTP receiver, as in `http://10.0.0.1:4318`. Off by default.
    #[arg(long, env = "HANDOFF_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<Endpoint>,
    /// Bounds.
    #[command(flatten)]
    pub bounds: Bounds,
}

/// Bounds of a handoff; each is a duration like `90s`, `5m` or `1h`.
#[derive(Debug, Parser)]
pub struct Bounds {
    /// How much is done where no annotation `volumehandoff.io/mode` says: `enabled`, `observe` (say what would be done)
    /// or `disabled` (only what is opted in).
    #[arg(long, env = "HANDOFF_MODE", default_value_t = Mode::Enabled)]
    mode: Mode,
    /// What an eviction is answered while a backup is in flight, where no annotation `volumehandoff.io/eviction-policy`
    /// says: `Checkpoint` or `FinishIfNear`.
    #[arg(long, env = "HANDOFF_EVICTION_POLICY", default_value = "Checkpoint")]
    eviction_policy: EvictionPolicy,
    /// An eviction is held no longer than this under `FinishIfNear`, where no annotation `volumehandoff.io/max-hold` says
    /// (at most 100 s).
    #[arg(long, env = "HANDOFF_EVICTION_HOLD", default_value = "60s")]
    eviction_hold: SignedDuration,
    /// A pre-stage that nobody adopted is withdrawn after this.
    #[arg(long, env = "HANDOFF_PRESTAGE_EXPIRY", default_value = "120s")]
    prestage_expiry: SignedDuration,
    /// How often a backup is made to run again before it is given up. 80 are more than six hours: a backup target may be
    /// away for a night.
    #[arg(long, env = "HANDOFF_RESUME_ATTEMPTS", default_value_t = 80)]
    resume_attempts: u32,
    /// Resumed backups that may run at a time whose volumes are on the same node.
    #[arg(long, env = "HANDOFF_RESUMES_PER_NODE", default_value_t = 2)]
    resumes_per_node: u32,
    /// The same, to the same backup target.
    #[arg(long, env = "HANDOFF_RESUMES_PER_TARGET", default_value_t = 8)]
    resumes_per_target: u32,
    /// Wait after the first failed run; doubles with each.
    #[arg(long, env = "HANDOFF_RESUME_BACKOFF", default_value = "15s")]
    resume_backoff: SignedDuration,
    /// Upper bound of that wait.
    #[arg(long, env = "HANDOFF_RESUME_BACKOFF_MAX", default_value = "300s")]
    resume_backoff_max: SignedDuration,
    /// A backup is resumed this long after the volume settled even if the pod is not ready.
    #[arg(long, env = "HANDOFF_SETTLE_WAIT", default_value = "60s")]
    settle_wait: SignedDuration,
    /// A pod of the storage manager is kept on a drained node no longer than this (at most 100 s).
    #[arg(long, env = "HANDOFF_STORAGE_HOLD", default_value = "100s")]
    storage_hold: SignedDuration,
    /// A snapshot that an owed backup needs is protected no longer than this.
    #[arg(long, env = "HANDOFF_SNAPSHOT_PROTECTION", default_value = "6h")]
    snapshot_protection: SignedDuration,
    /// A finished handoff is kept this long.
    #[arg(long, env = "HANDOFF_RETENTION", default_value = "1h")]
    retention: SignedDuration,
    /// A backup that was lost while nobody watched is taken up if it ended no longer ago than this.
    #[arg(long, env = "HANDOFF_LOST_MAX_AGE", default_value = "1h")]
    lost_max_age: SignedDuration,
}

impl ServeArgs {
    /// The bounds, checked.
    pub fn policy(&self) -> anyhow::Result<Policy> {
        let b = &self.bounds;
        let policy = Policy {
            mode: b.mode,
            eviction_policy: b.eviction_policy,
            eviction_hold: b.eviction_hold,
            prestage_expiry: b.prestage_expiry,
            resume_attempts: b.resume_attempts,
            resumes_per_node: b.resumes_per_node,
            resumes_per_target: b.resumes_per_target,
            resume_backoff: b.resume_backoff,
            resume_backoff_max: b.resume_backoff_max,
            settle_wait: b.settle_wait,
            storage_hold: b.storage_hold,
            snapshot_protection: b.snapshot_protection,
            retention: b.retention,
            lost_max_age: b.lost_max_age,
            ..Policy::default()
        };
        let checked = policy.check().and_then(|()| self.extender().check());
        checked.map_err(anyhow::Error::msg).context("bad configuration")?;
        if self.workers == 0 {
            bail!("bad configuration: workers must be at least 1");
        }
        Ok(policy)
    }

    /// The bounds of the extender; [`Self::policy`] checks them.
    pub fn extender(&self) -> ExtenderConfig {
        ExtenderConfig {
            deadline: self.extender_deadline.max(SignedDuration::ZERO).unsigned_abs(),
            body: usize::from(self.extender_body_mib) << 20,
            large_bodies: usize::from(self.extender_bodies_mib) << 20,
            ..ExtenderConfig::default()
        }
    }
}

impl ServeArgs {
    /// What the replica is told; `policy` as checked by [`Self::policy`].
    pub fn replica(&self, policy: Policy, clock: Clock) -> Config {
        Config {
            identity: ObjectKey::new(&self.namespace, &self.pod_name),
            longhorn_namespace: self.longhorn_namespace.clone(),
            workers: self.workers,
            policy,
            webhook: self.webhook(),
            extender: self.extender(),
            clock,
        }
    }

    /// What the webhook does.
    pub fn webhook(&self) -> WebhookConfig {
        let tier = SchedulerTier { scheduler_name: self.scheduler_name.clone(), marker: self.scheduler_marker.clone() };
        WebhookConfig { tier, ..WebhookConfig::default() }
    }
}

/// `handoff agent`.
#[derive(Debug, Parser)]
pub struct AgentArgs {
    /// Name of this node.
    #[arg(long, env = "NODE_NAME")]
    pub node: String,
    /// The directory under which the kubelet stages CSI volumes, which must be mounted here under the same path.
    #[arg(long, env = "HANDOFF_KUBELET_PLUGINS", default_value = "/var/lib/kubelet/plugins/kubernetes.io/csi")]
    pub plugins: String,
    /// Format of the log.
    #[arg(long, env = "HANDOFF_LOG_FORMAT", value_enum, default_value_t = LogFormat::Json)]
    pub log_format: LogFormat,
    /// Level of the log.
    #[arg(long, env = "HANDOFF_LOG", default_value = "info,kube_client=warn")]
    pub log: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_a_plugin_it_speaks_of_itself_as_kubectl_does() {
        for (program, name) in [("/usr/bin/handoff", "handoff"), ("/x/kubectl-handoff", "kubectl handoff")] {
            let usage = Args::read([program, "plan"].map(OsString::from)).unwrap_err().to_string();
            assert!(usage.contains(&format!("Usage: {name} plan ")), "{usage}");
        }
        let args = Args::read(["kubectl-handoff", "status", "-n", "shop"].map(OsString::from)).unwrap();
        assert!(matches!(args.command, Command::Status(s) if s.cluster.namespace.as_deref() == Some("shop")));
    }

    fn serve(flags: &[&str]) -> Result<ServeArgs, clap::Error> {
        let base = ["serve", "--pod-name", "p", "--namespace", "n"];
        ServeArgs::try_parse_from(base.iter().chain(flags))
    }

    #[test]
    fn the_defaults_are_the_policys_own() {
        assert_eq!(serve(&[]).unwrap().policy().unwrap(), Policy::default());
    }

    #[test]
    fn the_source_of_certificates_is_one_flag() {
        assert_eq!(serve(&[]).unwrap().certificates, Source::Own);
        let files = serve(&["--certificates", "files:/etc/tls"]).unwrap().certificates;
        assert_eq!(files, Source::Files("/etc/tls".into()));
        let error = serve(&["--certificates", "vault"]).unwrap_err().to_string();
        assert!(error.contains("--certificates") && error.contains("own, cert-manager or files:DIRECTORY"), "{error}");
    }

    #[test]
    fn no_variable_of_ours_is_one_that_kubernetes_sets_for_our_services() {
        use clap::CommandFactory;
        let links = ["HANDOFF_WEBHOOK_", "HANDOFF_EXTENDER_"]
            .map(|s| ["PORT", "SERVICE_HOST", "SERVICE_PORT", "PORT_443_TCP"].map(|l| format!("{s}{l}")));
        for arg in ServeArgs::command().get_arguments() {
            let env = arg.get_env().unwrap_or_default().to_string_lossy().into_owned();
            assert!(!links.iter().flatten().any(|l| *l == env), "{env}");
        }
    }

    #[test]
    fn the_extenders_bounds() {
        assert_eq!(serve(&[]).unwrap().extender(), ExtenderConfig::default());
        for (flags, named) in [
            (["--extender-deadline=0s", "--extender-body-mib=1"], "extender-deadline"),
            (["--extender-deadline=-1s", "--extender-body-mib=1"], "extender-deadline"),
            (["--extender-deadline=1s", "--extender-body-mib=65"], "extender-bodies"),
        ] {
            let error = serve(&flags).unwrap().policy().unwrap_err();
            assert!(format!("{error:#}").contains(named), "{error:#}");
        }
    }

    #[test]
    fn modes_and_marks_are_off_unless_asked_for_and_checked() {
        assert_eq!(serve(&[]).unwrap().webhook(), WebhookConfig::default());
        let args = serve(&["--mode", "disabled", "--eviction-policy", "FinishIfNear", "--eviction-hold", "90s"]);
        let policy = args.unwrap().policy().unwrap();
        assert_eq!((policy.mode, policy.eviction_policy), (Mode::Disabled, EvictionPolicy::FinishIfNear));
        assert_eq!(policy.eviction_hold, SignedDuration::from_secs(90));
        for (flag, value) in [
            ("--mode", "off"),
            ("--eviction-policy", "Wait"),
            ("--eviction-hold", "2m"),
            ("--scheduler-name", "default-scheduler"),
            ("--scheduler-marker", "cpu"),
        ] {
            let error = match serve(&[flag, value]) {
                Ok(args) => format!("{:#}", args.policy().unwrap_err()),
                Err(error) => error.to_string(),
            };
            assert!(error.contains(flag.trim_start_matches('-')), "{error}");
        }
        let tier = serve(&["--scheduler-name", "second", "--scheduler-marker", "a.b/c"]).unwrap().webhook().tier;
        assert_eq!((tier.scheduler_name.as_deref(), tier.marker.as_deref()), (Some("second"), Some("a.b/c")));
    }

    #[test]
    fn a_bad_bound_is_named() {
        let error = serve(&["--storage-hold", "101s"]).unwrap().policy().unwrap_err();
        assert!(format!("{error:#}").contains("storage-hold must be at most 100 s"), "{error:#}");
        assert!(serve(&["--retention", "soon"]).unwrap_err().to_string().contains("--retention"));
    }
}
