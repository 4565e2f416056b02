//! Certificates that others make: cert-manager's Secret, and files as a kubelet mounts them.

use super::{
    Hands,
    api::{Api, MUTATING, SECRETS, VALIDATING},
    cluster::{base64, granted, names, used, webhooks, with_webhooks},
    config, days, material, now,
};
use crate::{CertsConfig, Error, Keeper, Material, Serving, Source, files};
use jiff::Timestamp;
use rustls::pki_types::{PrivateKeyDer, pem::PemObject};
use serde_json::json;
use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};
use tempfile::TempDir;

const NAME: &str = "handoff.handoff-system.svc";

/// What any CA would issue.
struct Issued {
    ca: String,
    chain: String,
    key: String,
    end: Timestamp,
}

fn issued(material: &Material) -> Issued {
    let server = material.server();
    Issued {
        ca: material.bundle_pem(),
        chain: server.chain_pem(),
        key: server.key_pem().to_owned(),
        end: material.not_after(),
    }
}

/// The key as cert-manager writes one for ECDSA unless told otherwise: SEC 1, which PKCS#8 holds at its end.
fn sec1(pkcs8: &str) -> String {
    let PrivateKeyDer::Pkcs8(der) = PrivateKeyDer::from_pem_slice(pkcs8.as_bytes()).unwrap() else { panic!("PKCS#8") };
    let text = serde_json::to_value(k8s_openapi::ByteString(der.secret_pkcs8_der()[29..].to_vec())).unwrap();
    format!("-----BEGIN EC PRIVATE KEY-----\n{}\n-----END EC PRIVATE KEY-----\n", text.as_str().unwrap())
}

fn cert_manager_writes(api: &Api, issued: &Issued) {
    let data = json!({
        "ca.crt": base64(&issued.ca), "tls.crt": base64(&issued.chain), "tls.key": base64(&sec1(&issued.key)),
    });
    let name = "handoff-certs";
    let secret = json!({"metadata": {"name": name}, "type": "kubernetes.io/tls", "data": data});
    api.put(&format!("{SECRETS}/{name}"), secret);
}

fn cainjector_writes(api: &Api, bundle: &str) {
    for path in [MUTATING, VALIDATING] {
        api.put(&format!("{path}/handoff"), webhooks("handoff", &base64(bundle)));
    }
}

fn keeper(api: &Api, source: Source, serving: &Serving) -> Keeper {
    Keeper::new(api.client(), source, config(), names(), serving.clone()).unwrap()
}

#[tokio::test]
async fn the_source_is_chosen_by_one_word() {
    let dir = tempfile::tempdir().unwrap();
    let files = format!("files:{}", dir.path().display());
    for text in ["own", "cert-manager", &files] {
        let source: Source = text.parse().unwrap();
        assert_eq!(source.to_string(), text);
        source.validate().unwrap();
    }
    for text in ["", "Own", "files", "vault"] {
        let error = text.parse::<Source>().unwrap_err().to_string();
        assert!(
            error.contains("own, cert-manager or files:DIRECTORY") && error.contains(&format!("{text:?}")),
            "{error}"
        );
    }
    for text in ["files:", "files:relative", "files:/not/there"] {
        let source: Source = text.parse().unwrap();
        let (api, serving) = (Api::default(), Serving::default());
        let error = Keeper::new(api.client(), source, config(), names(), serving).err().unwrap().to_string();
        assert!(error.contains(text) && error.contains("directory that is there"), "{error}");
    }
}

#[tokio::test]
async fn cert_managers_secret_is_followed_and_never_written() {
    let api = with_webhooks();
    let (clock, serving) = Hands::serving(now());
    let mut keeper = keeper(&api, Source::CertManager, &serving);
    let failures = keeper.look(true).await;
    assert!(matches!(failures[..], [Error::Missing { .. }]) && failures[0].is_transient(), "{failures:?}");
    assert!(failures[0].to_string().contains("cert-manager"), "{failures:?}");

    let first = issued(&material(now()));
    cert_manager_writes(&api, &first);
    let failures = keeper.look(true).await;
    assert_eq!(failures.len(), 4, "{failures:?}");
    assert!(
        failures[3].to_string().contains("b.handoff.io of ValidatingWebhookConfiguration handoff: it has no caBundle")
    );
    assert!(serving.is_usable(), "it serves all the same");
    cainjector_writes(&api, &first.ca);
    assert!(keeper.look(true).await.is_empty());
    assert_eq!(serving.status().not_after, Some(first.end));

    clock.advance(days(61));
    let second = issued(&material(serving.clock().now()));
    cert_manager_writes(&api, &second);
    let failures = keeper.look(true).await;
    assert_eq!(failures.len(), 4, "another CA, not injected yet: {failures:?}");
    assert!(failures.iter().all(|error| matches!(error, Error::Bundle { .. })));
    assert!(keeper.look(false).await.is_empty(), "one replica says it, the one that leads");
    cainjector_writes(&api, &second.ca);
    assert!(keeper.look(true).await.is_empty());
    assert_eq!((serving.status().not_after, serving.status().changes), (Some(second.end), 2));

    api.set_entry("handoff-certs", "tls.key", &first.key);
    let failures = keeper.look(true).await;
    assert!(matches!(failures[..], [Error::Corrupt { .. }]), "{failures:?}");
    assert_eq!(serving.status().not_after, Some(second.end));
    assert!(api.writes().is_empty());
    let rbac = include_str!("../../../deploy/components/cert-manager/rbac.yaml");
    assert_eq!(used(&api), granted(rbac), "no less, and no more");
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let api = with_webhooks();
    let serving = Serving::default();
    let other = CertsConfig::new("ns", "certs", vec!["handoff.elsewhere.svc".to_owned()]);
    cert_manager_writes(&api, &issued(&Material::create(&other, now()).unwrap()));
    let failures = keeper(&api, Source::CertManager, &serving).look(true).await;
    let [error] = &failures[..] else { panic!("{failures:?}") };
    assert!(error.to_string().contains("is not for handoff.handoff-system.svc"), "{error}");
    assert!(error.to_string().contains("handoff.elsewhere.svc"), "{error}");

    let wide = CertsConfig::new("ns", "certs", vec!["*.handoff-system.svc".to_owned()]);
    cert_manager_writes(&api, &issued(&Material::create(&wide, now()).unwrap()));
    assert_eq!(keeper(&api, Source::CertManager, &serving).look(false).await.len(), 0, "a wildcard will do");
}

/// A directory as a kubelet makes one of a Secret.
struct Mount {
    dir: TempDir,
    version: u32,
}

impl Mount {
    fn new(issued: &Issued) -> Self {
        let mut mount = Self { dir: tempfile::tempdir().unwrap(), version: 0 };
        mount.swap(issued);
        for entry in ["ca.crt", "tls.crt", "tls.key"] {
            symlink(Path::new("..data").join(entry), mount.path().join(entry)).unwrap();
        }
        mount
    }

    fn path(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    /// The order in which a kubelet does it: the new directory, the link turned over in one step, the old one removed.
    fn swap(&mut self, issued: &Issued) {
        let old = self.path().join(format!("..{}", self.version));
        self.version += 1;
        let name = format!("..{}", self.version);
        let new = self.path().join(&name);
        fs::create_dir(&new).unwrap();
        for (entry, text) in [("ca.crt", &issued.ca), ("tls.crt", &issued.chain), ("tls.key", &issued.key)] {
            fs::write(new.join(entry), text).unwrap();
        }
        symlink(&name, self.path().join("..data_tmp")).unwrap();
        fs::rename(self.path().join("..data_tmp"), self.path().join("..data")).unwrap();
        if self.version > 1 {
            fs::remove_dir_all(old).unwrap();
        }
    }
}

#[tokio::test]
async fn mounted_files_are_followed() {
    let api = with_webhooks();
    let serving = Serving::default();
    let (first, second) = (issued(&material(now() - days(10))), issued(&material(now())));
    let mut mount = Mount::new(&first);
    let mut keeper = keeper(&api, Source::Files(mount.path()), &serving);
    assert!(keeper.look(true).await.is_empty(), "without caBundle an API server goes by the CAs of its machine");
    assert_eq!(serving.status().not_after, Some(first.end));

    mount.swap(&second);
    assert!(keeper.look(false).await.is_empty());
    assert_eq!(serving.status().not_after, Some(second.end));

    mount.swap(&Issued { key: "hello".to_owned(), ..issued(&material(now())) });
    let failures = keeper.look(false).await;
    let [error] = &failures[..] else { panic!("{failures:?}") };
    assert!(matches!(error, Error::Directory { .. }) && !error.is_transient(), "{error}");
    assert!(error.to_string().contains("tls.key: not a PEM private key"), "{error}");
    mount.swap(&issued(&material(now() - days(200))));
    assert!(matches!(keeper.look(false).await[..], [Error::Expired { .. }]));
    fs::remove_dir_all(mount.path()).unwrap();
    let failures = keeper.look(false).await;
    assert!(failures[0].to_string().contains("ca.crt: No such file"), "{failures:?}");
    assert_eq!(serving.status().not_after, Some(second.end), "all this time");
    assert!(api.writes().is_empty());
}

#[tokio::test]
async fn a_ca_bundle_that_does_not_lead_to_the_files_is_reported() {
    let api = with_webhooks();
    let mount = Mount::new(&issued(&material(now())));
    cainjector_writes(&api, &material(now()).bundle_pem());
    let failures = keeper(&api, Source::Files(mount.path()), &Serving::default()).look(true).await;
    assert_eq!(failures.len(), 4, "{failures:?}");
    assert!(
        failures[0].to_string().contains("API servers cannot verify us for a.handoff.io of Mutating"),
        "{failures:?}"
    );
    cainjector_writes(&api, "no PEM at all");
    let failures = keeper(&api, Source::Files(mount.path()), &Serving::default()).look(true).await;
    assert!(failures[0].to_string().contains("caBundle: holds no PEM certificate"), "{failures:?}");
}

#[tokio::test]
async fn plain_files_will_do() {
    let dir = tempfile::tempdir().unwrap();
    let issued = issued(&material(now()));
    for (entry, text) in [("ca.crt", &issued.ca), ("tls.crt", &issued.chain), ("tls.key", &issued.key)] {
        fs::write(dir.path().join(entry), text).unwrap();
    }
    assert_eq!(files::load(dir.path(), NAME).unwrap().server.chain_pem(), issued.chain);
    fs::write(dir.path().join("ca.crt"), "x".repeat((1 << 20) + 1)).unwrap();
    let error = files::load(dir.path(), NAME).unwrap_err().to_string();
    assert!(error.contains("ca.crt: is larger than 1048576 bytes"), "{error}");
}

/// However often the Secret changes while it is read, certificate and key fit, and nothing fails.
#[test]
fn a_mount_that_changes_all_the_time_is_never_read_half() {
    let versions = [0, 1].map(|age| issued(&material(now() - days(age))));
    let mut mount = Mount::new(&versions[0]);
    let (path, done) = (mount.path(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..300 {
                mount.swap(&versions[round % 2]);
            }
            done.store(true, Ordering::SeqCst);
        });
        let mut seen = [0, 0];
        while !done.load(Ordering::SeqCst) {
            let read = files::load(&path, NAME).unwrap();
            let version = versions.iter().position(|version| version.chain == read.server.chain_pem()).unwrap();
            seen[version] += 1;
        }
        assert!(seen[0] + seen[1] > 0);
    });
}
