//! Which cluster, as whom, which namespace: the flags that kubectl has, under the same names.

use anyhow::{Context, bail};
use clap::{Args, ValueHint};
use jiff::SignedDuration;
use kube::{
    Api, Client, Config, Resource,
    api::{ApiResource, DynamicObject},
    config::{KubeConfigOptions, Kubeconfig},
    core::NamespaceResourceScope,
};
use std::path::PathBuf;

/// Which cluster, and what is where in it.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Cluster")]
pub struct ClusterArgs {
    /// Namespace of the pod, claim or handoff; otherwise that of the context.
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// Kubeconfig file; otherwise `$KUBECONFIG`, then `~/.kube/config`, then the account of the pod this runs in.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig.
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
    /// Cluster of the kubeconfig, in place of the context's.
    #[arg(long, value_name = "NAME")]
    pub cluster: Option<String>,
    /// User of the kubeconfig, in place of the context's.
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// Act as this user.
    #[arg(long = "as", value_name = "USER")]
    pub as_user: Option<String>,
    /// Act as a member of this group; may be given several times.
    #[arg(long, value_name = "GROUP")]
    pub as_group: Vec<String>,
    /// Longest silence of the API server, like `5s` or `1m`; `0`: no bound.
    #[arg(long, value_name = "DURATION", default_value = "0", value_parser = timeout)]
    pub request_timeout: Timeout,
    /// Namespace of Longhorn.
    #[arg(long, value_name = "NAMESPACE", env = "HANDOFF_LONGHORN_NAMESPACE", default_value = "longhorn-system")]
    pub longhorn_namespace: String,
    /// Namespace of Handoff.
    #[arg(long, value_name = "NAMESPACE", env = "HANDOFF_NAMESPACE", default_value = "handoff-system")]
    pub handoff_namespace: String,
}

/// A bound, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeout(Option<std::time::Duration>);

/// As kubectl reads it: `0`, a number of seconds, or a duration.
fn timeout(text: &str) -> Result<Timeout, String> {
    let duration = match text.parse::<u32>() {
        Ok(seconds) => SignedDuration::from_secs(i64::from(seconds)),
        Err(_) => text.parse::<SignedDuration>().map_err(|_| "must be 0 or a duration like 5s or 1m".to_owned())?,
    };
    let duration = std::time::Duration::try_from(duration).map_err(|_| "must not be negative".to_owned())?;
    Ok(Timeout((!duration.is_zero()).then_some(duration)))
}

/// A cluster that can be asked.
#[derive(Clone)]
pub struct Cluster {
    /// The way to it.
    pub client: Client,
    /// Namespace that is meant when none is named.
    pub namespace: String,
    /// The namespace that was named, if one was.
    pub named: Option<String>,
    /// Namespace of Longhorn.
    pub longhorn: String,
    /// Namespace of Handoff.
    pub handoff: String,
}

impl Cluster {
    /// The objects of one kind in a namespace, or in all of them.
    pub fn objects<K>(&self, namespace: Option<&str>) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        match namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }

    /// Longhorn's objects of one kind, as they are.
    pub fn longhorn_objects(&self, kind: &str, plural: &str) -> Api<DynamicObject> {
        let kind = ApiResource {
            group: "longhorn.io".to_owned(),
            version: "v1beta2".to_owned(),
            api_version: "longhorn.io/v1beta2".to_owned(),
            kind: kind.to_owned(),
            plural: plural.to_owned(),
        };
        Api::namespaced_with(self.client.clone(), &self.longhorn, &kind)
    }
}

impl ClusterArgs {
    /// Connects, without asking anything yet.
    pub async fn connect(&self) -> anyhow::Result<Cluster> {
        let config = self.config().await?;
        let namespace = self.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).context("cannot make an API client")?;
        Ok(self.at(client, namespace))
    }

    /// The cluster behind `client`.
    pub fn at(&self, client: Client, namespace: String) -> Cluster {
        Cluster {
            client,
            namespace,
            named: self.namespace.clone(),
            longhorn: self.longhorn_namespace.clone(),
            handoff: self.handoff_namespace.clone(),
        }
    }

    async fn config(&self) -> anyhow::Result<Config> {
        let options =
            KubeConfigOptions { context: self.context.clone(), cluster: self.cluster.clone(), user: self.user.clone() };
        let named = self.context.is_some() || self.cluster.is_some() || self.user.is_some();
        let loaded = match &self.kubeconfig {
            Some(path) => {
                let file = Kubeconfig::read_from(path).with_context(|| format!("kubeconfig {}", path.display()))?;
                Config::from_custom_kubeconfig(file, &options).await
            }
            None => Config::from_kubeconfig(&options).await,
        };
        let mut config = match loaded {
            Ok(config) => config,
            // in a pod: the name of the API server is in the environment, as a static binary cannot ask a resolver
            Err(error) if self.kubeconfig.is_none() && !named => match Config::incluster_env() {
                Ok(config) => config,
                Err(_) => return Err(error).context("no cluster: is KUBECONFIG set?"),
            },
            Err(error) => return Err(error).context("cannot use the kubeconfig"),
        };
        if !self.as_group.is_empty() && self.as_user.is_none() {
            bail!("--as-group needs --as");
        }
        if let Some(user) = &self.as_user {
            config.auth_info.impersonate = Some(user.clone());
            config.auth_info.impersonate_groups = (!self.as_group.is_empty()).then(|| self.as_group.clone());
        }
        if self.request_timeout.0.is_some() {
            config.connect_timeout = self.request_timeout.0;
            config.read_timeout = self.request_timeout.0;
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Tool {
        #[command(flatten)]
        cluster: ClusterArgs,
    }

    fn args(flags: &[&str]) -> Result<ClusterArgs, clap::Error> {
        Tool::try_parse_from(["tool"].iter().chain(flags)).map(|tool| tool.cluster)
    }

    const KUBECONFIG: &str = r"
apiVersion: v1
kind: Config
current-context: one
clusters:
- {name: a, cluster: {server: 'http://a.test:1'}}
- {name: b, cluster: {server: 'http://b.test:2'}}
users:
- {name: u, user: {token: t}}
contexts:
- {name: one, context: {cluster: a, user: u, namespace: shop}}
- {name: two, context: {cluster: b, user: u}}
";

    async fn config(flags: &[&str]) -> anyhow::Result<(String, String, Config)> {
        let name = flags.concat().replace('/', "_");
        let path = std::env::temp_dir().join(format!("handoff-kubeconfig-{}-{name}", std::process::id()));
        std::fs::write(&path, KUBECONFIG).unwrap();
        let mut args = args(flags)?;
        args.kubeconfig.get_or_insert_with(|| path.clone());
        let config = args.config().await;
        std::fs::remove_file(&path).unwrap();
        let config = config?;
        let namespace = args.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        Ok((config.cluster_url.to_string(), namespace, config))
    }

    #[tokio::test]
    async fn the_flags_do_what_they_do_in_kubectl() {
        for (flags, url, namespace) in [
            (&[][..], "http://a.test:1/", "shop"),
            (&["-n", "x"], "http://a.test:1/", "x"),
            (&["--context", "two"], "http://b.test:2/", "default"),
            (&["--cluster", "b"], "http://b.test:2/", "shop"),
        ] {
            let (found, in_namespace, _) = config(flags).await.unwrap();
            assert_eq!((found.as_str(), in_namespace.as_str()), (url, namespace), "{flags:?}");
        }
        let (_, _, config) = config(&["--as", "jane", "--as-group", "dev", "--as-group", "ops"]).await.unwrap();
        assert_eq!(config.auth_info.impersonate.as_deref(), Some("jane"));
        assert_eq!(config.auth_info.impersonate_groups, Some(vec!["dev".to_owned(), "ops".to_owned()]));
    }

    #[tokio::test]
    async fn what_is_not_there_is_named() {
        for (flags, named) in [
            (&["--context", "three"][..], "three"),
            (&["--kubeconfig", "/nonexistent/config"], "/nonexistent/config"),
            (&["--as-group", "dev"], "--as"),
        ] {
            let error = format!("{:#}", config(flags).await.map(|_| ()).unwrap_err());
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn time_outs_are_read_as_kubectl_reads_them() {
        let read = |text: &str| args(&["--request-timeout", text]).map(|a| a.request_timeout.0.map(|d| d.as_secs()));
        assert_eq!(read("0").unwrap(), None);
        assert_eq!(read("7").unwrap(), Some(7));
        assert_eq!(read("2m").unwrap(), Some(120));
        for wrong in ["soon", "-5s"] {
            let error = args(&[&format!("--request-timeout={wrong}")]).unwrap_err().to_string();
            assert!(error.contains("--request-timeout"), "{error}");
        }
    }
}
