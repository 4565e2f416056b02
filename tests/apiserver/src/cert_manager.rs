//! The real cert-manager: its controllers, its cainjector and its webhook as child processes, installed as its chart does.

use crate::{
    bench::Bench,
    control_plane::User,
    http::{Read, eventually},
    process::{Process, free_port},
    world::core,
};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::{path::Path, time::Duration};

/// The name of its webhook, of the Service before it and of both configurations.
const WEBHOOK: &str = "cert-manager-webhook";
/// How long it may take to come up.
const UP: Duration = Duration::from_mins(1);

/// It runs. Dropping it ends it.
pub struct CertManager {
    _processes: [Process; 3],
}

impl CertManager {
    /// Installs and starts it, and waits until the API server asks its webhook.
    pub async fn start(bench: &Bench) -> Result<Self> {
        let directory = bench.cert_manager.as_deref().context("this needs --cert-manager")?;
        let crds = directory.join("crds").display().to_string();
        bench.plane.kubectl_ok(&["apply", "--server-side", "-f", &crds]).await.context("cert-manager's definitions")?;
        bench.world.namespace("cert-manager").await?;
        let port = free_port()?;
        configure(bench, port).await?;
        let processes = processes(bench, directory, port)?;
        let injected = eventually(UP, async || {
            let object = bench.admin.get(&configuration("validating")).await?.ok()?;
            Ok(object.has("/webhooks/0/clientConfig/caBundle").then_some(()))
        });
        injected.await?.context("cert-manager's cainjector does not write into its own webhook configuration")?;
        Ok(Self { _processes: processes })
    }
}

fn configuration(kind: &str) -> String {
    let plural = format!("/apis/admissionregistration.k8s.io/v1/{kind}webhookconfigurations");
    format!("{plural}/{WEBHOOK}")
}

fn processes(bench: &Bench, directory: &Path, port: u16) -> Result<[Process; 3]> {
    let kubeconfig = format!("--kubeconfig={}", bench.plane.kubeconfig(User::Admin)?);
    let webhook = [
        kubeconfig.clone(),
        format!("--secure-port={port}"),
        format!("--healthz-port={}", free_port()?),
        "--metrics-listen-address=0".to_owned(),
        "--dynamic-serving-ca-secret-namespace=cert-manager".to_owned(),
        format!("--dynamic-serving-ca-secret-name={WEBHOOK}-ca"),
        format!("--dynamic-serving-dns-names={WEBHOOK}.cert-manager.svc"),
    ];
    let start = |program: &str, arguments: &[String]| {
        let name = format!("cert-manager-{program}");
        Process::start(&name, &bench.plane.logs(), &directory.join(program), arguments, &[])
    };
    let kubeconfig = [kubeconfig];
    Ok([start("controller", &kubeconfig)?, start("cainjector", &kubeconfig)?, start("webhook", &webhook)?])
}

/// Its Service and webhook configurations, with the rules of its chart.
async fn configure(bench: &Bench, port: u16) -> Result<()> {
    let service = json!({"metadata": {"name": WEBHOOK}, "spec": {"type": "ExternalName", "externalName": "127.0.0.1"}});
    bench.admin.create(&core("cert-manager", "services", ""), &service).await?;
    let rule = |groups: Value, operations: Value, resources: Value| json!([{"apiGroups": groups, "apiVersions": ["v1"], "operations": operations, "resources": resources}]);
    let groups = json!(["cert-manager.io", "acme.cert-manager.io"]);
    for (kind, path, rules) in [
        ("validating", "/validate", rule(groups, json!(["CREATE", "UPDATE"]), json!(["*/*"]))),
        ("mutating", "/mutate", rule(json!(["cert-manager.io"]), json!(["CREATE"]), json!(["certificaterequests"]))),
    ] {
        let made = json!({
            "metadata": {"name": WEBHOOK,
                "annotations": {"cert-manager.io/inject-ca-from-secret": format!("cert-manager/{WEBHOOK}-ca")}},
            "webhooks": [{
                "name": "webhook.cert-manager.io", "rules": rules, "admissionReviewVersions": ["v1"],
                "matchPolicy": "Equivalent", "timeoutSeconds": 10, "failurePolicy": "Fail", "sideEffects": "None",
                "clientConfig": {"service": {"name": WEBHOOK, "namespace": "cert-manager", "path": path, "port": port}},
            }],
        });
        let path = configuration(kind);
        let collection = path.rsplit_once('/').map_or(path.as_str(), |(collection, _)| collection);
        bench.admin.create(collection, &made).await?;
    }
    Ok(())
}
