//! Certificates from a real cert-manager: issued, injected, served with, and renewed under load without a failed call.

use crate::{
    bench::{Bench, MUTATING, SOON, VALIDATING, Workload, point_webhooks},
    cert_manager::CertManager,
    control_plane::User,
    http::{Api, Read, eventually},
    load::under_load,
    mtls, scheduler,
    world::core,
};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const NS: &str = "handoff-system";
const CERTIFICATES: &str = "/apis/cert-manager.io/v1/namespaces/handoff-system/certificates";
/// How long cert-manager may take.
const ISSUED: Duration = Duration::from_mins(1);

pub async fn run(bench: &mut Bench) -> Result<()> {
    let ns = "cert-manager-load";
    bench.world.namespace(ns).await?;
    let idle = bench.plain(ns, "idle").await?;
    bench.replicas.kill().await?;
    for secret in ["handoff-certs", "handoff-certs-scheduler"] {
        bench.admin.delete(&core(NS, "secrets", secret), &json!({})).await?.ok()?;
    }
    let began = Instant::now();
    let _cert_manager = CertManager::start(bench).await?;
    let overlay = bench.deploy.join("cert-manager").display().to_string();
    bench.plane.kubectl_ok(&["apply", "-k", &overlay]).await.context("deploy/cert-manager")?;
    // the manifests bring the Service back, which nobody serves here
    point_webhooks(&bench.admin, bench.replicas.webhook.port).await?;
    issued(bench, began).await?;
    injected(bench).await?;
    // one more than the manifests have
    bench.names.push("handoff-third".to_owned());
    bench.start_replicas(&["--certificates=cert-manager"]).await?;
    serves(bench).await?;
    renewed(bench, &idle).await
}

fn is_ready(certificate: &Value) -> bool {
    let conditions = certificate.items("/status/conditions");
    conditions.iter().any(|c| c.text("/type") == "Ready" && c.text("/status") == "True")
}

async fn issued(bench: &mut Bench, began: Instant) -> Result<()> {
    let all = eventually(ISSUED, async || {
        let list = bench.admin.get(CERTIFICATES).await?.ok()?;
        let items = list.items("/items");
        Ok((items.len() == 3 && items.iter().all(is_ready)).then(|| list.clone()))
    });
    let all = all.await?;
    let list = bench.admin.get(CERTIFICATES).await?.ok()?;
    let names = list.items("/items").iter().filter(|c| is_ready(c)).map(|c| c.text("/metadata/name"));
    let saw = format!("{} after {:.1} s", names.collect::<Vec<_>>().join(", "), began.elapsed().as_secs_f64());
    bench.report.check("cert-manager issues the certificates of our overlay", all.is_some(), saw);
    all.map(drop).context("no certificates")
}

/// An entry of the Secret that we serve with, as base64.
async fn entry(bench: &Bench, name: &str) -> Result<String> {
    let secret = bench.admin.get(&core(NS, "secrets", "handoff-certs")).await?.ok()?;
    Ok(secret["data"][name].as_str().unwrap_or_default().to_owned())
}

/// The cainjector keeps CAs that were there before beside the new one.
async fn injected(bench: &mut Bench) -> Result<()> {
    let found = eventually(ISSUED, async || {
        let ca = entry(bench, "ca.crt").await?;
        let mut webhooks = 0;
        for configuration in [MUTATING, VALIDATING] {
            let object = bench.admin.get(configuration).await?.ok()?;
            for webhook in object.items("/webhooks") {
                webhooks += 1;
                if ca.is_empty() || !mtls::bundle_holds(webhook.text("/clientConfig/caBundle"), &ca) {
                    return Ok(None);
                }
            }
        }
        Ok(Some(webhooks))
    });
    let found = found.await?;
    let saw = format!("{} webhooks", found.unwrap_or_default());
    bench.report.check("its cainjector writes the CA into all of our webhooks", found.is_some(), saw);
    Ok(())
}

/// The certificate that a replica shows, if it is the Secret's.
async fn served(bench: &Bench) -> Result<Option<String>> {
    let pem = entry(bench, "tls.crt").await?;
    let shown = mtls::shown(bench.replicas.webhook.port, &entry(bench, "ca.crt").await?).await.ok();
    Ok(shown.filter(|shown| mtls::is_first_of(shown, &pem)).map(|_| pem))
}

async fn serves(bench: &mut Bench) -> Result<()> {
    let shown = eventually(SOON, async || served(bench).await).await?;
    bench.report.check("Handoff serves its webhook with them", shown.is_some(), "");
    let files = scheduler::write_files(bench).await?;
    let answer = eventually(SOON, async || {
        let answer = mtls::call(bench.replicas.extender.port, &files, mtls::Client::Of(&files)).await;
        Ok(answer.ok().filter(|status| *status == 200))
    });
    let answer = answer.await?;
    bench.report.check("and lets the scheduler's certificate in", answer.is_some(), format!("{answer:?}"));
    let secrets = bench.plane.api(User::Handoff)?;
    let change = secrets.post(&core(NS, "secrets", ""), &json!({"metadata": {"name": "x"}})).await?;
    let other = secrets.get(&core(NS, "secrets", "handoff-ca")).await?;
    let denied = change.status == 403 && other.status == 403;
    let saw = format!("{}; {}", change.brief(), other.brief());
    bench.report.check("without a right to write Secrets or to read the CA's", denied, saw);
    Ok(())
}

/// Has cert-manager renew a certificate, as its command line does.
async fn renew(admin: &Api, name: &str) -> Result<()> {
    let path = format!("{CERTIFICATES}/{name}");
    let certificate = admin.get(&path).await?.ok()?;
    let revision = certificate["status"]["revision"].as_u64().unwrap_or_default();
    let mut conditions = certificate.items("/status/conditions").to_vec();
    conditions.push(json!({"type": "Issuing", "status": "True", "reason": "ManuallyTriggered",
        "message": "renewal asked for", "lastTransitionTime": certificate["metadata"]["creationTimestamp"]}));
    admin.merge(&format!("{path}/status"), &json!({"status": {"conditions": conditions}})).await?;
    let done = eventually(ISSUED, async || {
        let certificate = admin.get(&path).await?.ok()?;
        let now = certificate["status"]["revision"].as_u64().unwrap_or_default();
        Ok((now > revision && is_ready(&certificate)).then_some(()))
    });
    done.await?.with_context(|| format!("cert-manager does not renew {name}"))
}

/// Leaf, CA and leaf again, while calls come in without a pause.
async fn renewed(bench: &mut Bench, idle: &Workload) -> Result<()> {
    let first = entry(bench, "tls.crt").await?;
    let (leaves, calls) = under_load(bench, idle, renewals(bench, &first)).await?;
    bench.report.check(
        "renewals of leaf, CA and leaf are taken up",
        leaves == 2,
        format!("{leaves} new leaves served"),
    );
    let all = format!("and none of {} replicas fails a call meanwhile", bench.replicas.count());
    bench.report.check(&all, calls.all_answered() && bench.replicas.count() == 3, calls);
    injected(bench).await
}

/// How many new leaves came to be served.
async fn renewals(bench: &Bench, first: &str) -> Result<usize> {
    let mut last = first.to_owned();
    let mut leaves = 0;
    for names in [&["handoff"][..], &["handoff-ca", "handoff"]] {
        for name in names {
            renew(&bench.admin, name).await?;
        }
        let next = eventually(Duration::from_secs(20), async || Ok(served(bench).await?.filter(|pem| *pem != last)));
        if let Some(pem) = next.await? {
            leaves += 1;
            last = pem;
        }
    }
    Ok(leaves)
}
