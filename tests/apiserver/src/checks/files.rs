//! Certificates from files that somebody else writes: served, renewed under load, and kept when the files turn bad.

use crate::{
    bench::{Bench, MUTATING, SOON, VALIDATING},
    http::{Read, eventually},
    load::under_load,
    mtls,
};
use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use serde_json::{Value, json};
use std::{path::Path, time::Duration};

const NAMES: [&str; 2] = ["handoff-webhook.handoff-system.svc", "handoff-extender.handoff-system.svc"];
/// Each replica looks every 5 s.
const LOOKED: Duration = Duration::from_secs(20);

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Result<Self> {
        let mut ca = CertificateParams::new(Vec::new())?;
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        ca.distinguished_name.push(DnType::CommonName, "somebody's CA");
        Ok(Self(CertifiedIssuer::self_signed(ca, KeyPair::generate()?)?))
    }

    /// Writes a new leaf and the CA. Returns the leaf as an entry of a Secret would hold it.
    fn write(&self, directory: &Path) -> Result<String> {
        let mut leaf = CertificateParams::new(NAMES.map(str::to_owned).to_vec())?;
        leaf.distinguished_name.push(DnType::CommonName, "handoff");
        let key = KeyPair::generate()?;
        let leaf = leaf.signed_by(&key, &self.0)?.pem();
        for (name, text) in [("tls.key", key.serialize_pem()), ("tls.crt", leaf.clone()), ("ca.crt", self.0.pem())] {
            std::fs::write(directory.join(name), text).with_context(|| format!("cannot write {name}"))?;
        }
        Ok(STANDARD.encode(leaf))
    }
}

/// Whoever brings the files writes the `caBundle` too.
async fn publish(bench: &Bench, ca: &str) -> Result<()> {
    for configuration in [MUTATING, VALIDATING] {
        let object = bench.admin.get(configuration).await?.ok()?;
        let all = 0..object.items("/webhooks").len();
        let steps =
            all.map(|at| json!({"op": "add", "path": format!("/webhooks/{at}/clientConfig/caBundle"), "value": ca}));
        bench.admin.patch(configuration, &steps.collect::<Value>()).await?;
    }
    Ok(())
}

/// Waits until every replica in turn shows the leaf.
async fn shown(bench: &Bench, ca: &str, leaf: &str) -> Result<bool> {
    let mut in_a_row = 0;
    let shown = eventually(LOOKED, async || {
        let shown = mtls::shown(bench.replicas.webhook.port, ca).await;
        in_a_row = if shown.is_ok_and(|shown| mtls::is_first_of(&shown, leaf)) { in_a_row + 1 } else { 0 };
        Ok((in_a_row > bench.replicas.count()).then_some(()))
    });
    Ok(shown.await?.is_some())
}

pub async fn run(bench: &mut Bench) -> Result<()> {
    let ns = "files";
    bench.world.namespace(ns).await?;
    let idle = bench.plain(ns, "idle").await?;
    let directory = bench.plane.path("somebodys-files");
    std::fs::create_dir(&directory).context("no directory")?;
    let authority = Authority::new()?;
    let leaf = authority.write(&directory)?;
    let ca = STANDARD.encode(authority.0.pem());
    bench.replicas.kill().await?;
    publish(bench, &ca).await?;
    bench.start_replicas(&[&format!("--certificates=files:{}", directory.display())]).await?;
    let served = shown(bench, &ca, &leaf).await?;
    bench.report.check("what the files hold is served, and the API server takes it", served, "");

    let (renewed, calls) = under_load(bench, &idle, async {
        let next = authority.write(&directory)?;
        Ok((shown(bench, &ca, &next).await?, next))
    })
    .await?;
    let (taken_up, leaf) = renewed;
    bench.report.check("new files are taken up, and no call fails", taken_up && calls.all_answered(), calls);

    let before = bench.replicas.figure("handoff_certificate_failing").await?;
    std::fs::write(directory.join("tls.crt"), "nothing of use").context("cannot write tls.crt")?;
    let loud = eventually(LOOKED, async || {
        let failing = bench.replicas.figure("handoff_certificate_failing").await?;
        #[allow(clippy::cast_precision_loss)] // a handful of replicas
        let all = bench.replicas.count() as f64;
        Ok((failing >= all).then_some(()))
    });
    let loud = loud.await?.is_some() && before < 0.5;
    let kept = shown(bench, &ca, &leaf).await?;
    bench.report.check("bad files: the certificate in use stays, and every replica says so", loud && kept, "");

    // our own CA again, which its leader publishes itself
    bench.restart(&[]).await?;
    let ours = eventually(SOON, async || {
        let object = bench.admin.get(MUTATING).await?.ok()?;
        Ok((object.text("/webhooks/0/clientConfig/caBundle") != ca).then_some(()))
    });
    bench.report.check("with its own CA again, Handoff publishes that", ours.await?.is_some(), "");
    Ok(())
}
