//! Keys are not shown: not by `Debug`, not in errors, not in the log.

use super::{
    api::{Api, SECRETS},
    cluster::{names, store, with_webhooks},
    config, days, material, now, rotated,
};
use crate::{
    Identity, Keeper, Material, Serving, Source,
    authority::{Entries, Permits},
    identity::External,
    key::KeyPem,
    server_config, server_config_mtls,
};
use rustls::pki_types::{PrivateKeyDer, pem::PemObject};
use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
};

const HEADS: [&str; 2] = ["-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----"];

/// What would give a key away: each line of its text, and its bytes as `Debug` and hex would write them.
fn traces(pem: &str) -> Vec<String> {
    let lines = pem.lines().filter(|line| !HEADS.contains(line)).map(str::to_owned);
    let PrivateKeyDer::Pkcs8(der) = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap() else { panic!("PKCS#8") };
    // the private number itself, in the fixed layout of a P-256 key
    let secret = &der.secret_pkcs8_der()[36..68];
    let list = format!("{:?}", &secret[..8]);
    let hex = secret[..8].iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    lines.chain([list.trim_matches(['[', ']']).to_owned(), hex]).collect()
}

fn keys(material: &Material, client: &Identity) -> Vec<String> {
    let keys = [material.ca_key_pem(), material.server().key_pem(), client.key_pem()];
    keys.into_iter().chain(material.next_ca_key_pem()).flat_map(traces).collect()
}

fn hides(shown: &str, keys: &[String]) {
    assert!(!shown.contains("PRIVATE KEY"), "{shown}");
    for key in keys {
        assert!(!shown.contains(key), "{key} in {shown}");
    }
}

#[test]
fn debug_output_holds_no_key() {
    let material = material(now()).renewed(&config(), now() + days(2500), Permits::default()).unwrap().unwrap();
    let client = material.client(&config(), now()).unwrap();
    let keys = keys(&material, &client);
    let serving = Serving::default();
    serving.load(&material, now() + days(2500)).unwrap();
    let server = material.server();
    let name = "handoff.handoff-system.svc";
    let external = External::parse(&material.ca_pem(), &server.chain_pem(), server.key_pem(), name).unwrap();
    let shown = [
        format!("{material:?} {material:#?}"),
        format!("{client:?} {:?}", server.certified_key().unwrap()),
        format!("{:?}", KeyPem::new(server.key_pem().to_owned())),
        format!("{external:?} {serving:?} {:?}", serving.status()),
        format!("{:?}", server_config(serving.resolver.clone()).unwrap()),
        format!("{:?}", server_config_mtls(serving.resolver.clone(), serving.roots.clone()).unwrap()),
    ];
    assert!(shown[0].contains(name) && !shown.iter().any(String::is_empty));
    shown.iter().for_each(|shown| hides(shown, &keys));
    // the traces are the right ones: they are found where a key is shown
    assert_eq!(server.key_pem().lines().filter(|line| keys.iter().any(|key| key == line)).count(), 3);
    let PrivateKeyDer::Pkcs8(der) = PrivateKeyDer::from_pem_slice(server.key_pem().as_bytes()).unwrap() else {
        panic!()
    };
    assert!(keys.iter().any(|key| format!("{:?}", der.secret_pkcs8_der()).contains(key)));
}

#[test]
fn errors_hold_no_key() {
    let (good, other) = (material(now()), material(now()));
    let (ca_cert, ca_key) = (good.ca_pem(), good.ca_key_pem());
    let (tls_cert, tls_key) = (good.server().chain_pem(), good.server().key_pem());
    let half = &tls_key[..tls_key.len() - 40];
    let keys: Vec<_> = [ca_key, tls_key, other.ca_key_pem()].into_iter().flat_map(traces).collect();
    for (ca_key, tls_key) in [(ca_key, half), (half, tls_key), (other.ca_key_pem(), tls_key), (ca_key, ca_key)] {
        let entries = Entries { ca_cert: &ca_cert, ca_key, next_ca_key: Some(half), tls_cert: &tls_cert, tls_key };
        let error = Material::parse(entries).unwrap_err();
        hides(&format!("{error} {error:?}"), &keys);
    }
    // a key where a certificate belongs
    let error = Material::parse(Entries { ca_cert: ca_key, ca_key, next_ca_key: None, tls_cert: tls_key, tls_key });
    let error = error.unwrap_err();
    hides(&format!("{error} {error:?}"), &keys);
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Everything this crate and its libraries say at their most talkative, while keys are made, stored, read, found corrupt
/// and renewed.
#[test]
fn the_log_holds_no_key() {
    let log = Log::default();
    let written = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || written.clone());
    let keys = tracing::subscriber::with_default(subscriber.finish(), || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(a_life())
    });
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    for said in ["certificates written", "serving with a new certificate", "this replica goes on with what it has"] {
        assert!(log.contains(said), "{said}: {log}");
    }
    hides(&log, &keys);
}

async fn a_life() -> Vec<String> {
    let api: Api = with_webhooks();
    let serving = Serving::default();
    let mut keeper = Keeper::new(api.client(), Source::Own, config(), names(), serving).unwrap();
    let old = material(now() - days(2500));
    store(&api, &old);
    let mut keys = traces(old.ca_key_pem());
    keeper.look(true).await;
    keeper.look(false).await;
    store(&api, &rotated(&old, now()));
    keeper.look(true).await;
    for path in api.secrets() {
        for entry in ["ca.key", "next-ca.key", "tls.key"] {
            let secret = api.secret(&path);
            let held = secret.data.unwrap_or_default().get(entry).cloned();
            keys.extend(held.map(|held| traces(&String::from_utf8(held.0).unwrap())).into_iter().flatten());
        }
    }
    api.set_entry("handoff-certs", "tls.crt", "hello");
    keeper.look(true).await;
    api.remove(&format!("{SECRETS}/handoff-certs"));
    keeper.look(false).await;
    keys
}

/// Whatever feature any dependency switches on, for whatever platform: the lock file has it all.
#[test]
fn there_is_one_crypto_provider() {
    let lock = include_str!("../../../Cargo.lock");
    let names: Vec<_> = lock.lines().filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"')).collect();
    assert!(names.contains(&"ring") && names.contains(&"rustls"));
    for other in ["aws-lc-rs", "aws-lc-sys", "aws-lc-fips-sys", "openssl", "openssl-sys", "native-tls", "boring"] {
        assert!(!names.contains(&other), "{other}");
    }
}

/// `deploy/scheduler/write-files`, with a `kubectl` that answers with what a Secret would hold.
#[test]
fn the_schedulers_key_is_written_for_its_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (bin, out) = (dir.path().join("bin"), dir.path().join("out"));
    fs::create_dir(&bin).unwrap();
    let kubectl = bin.join("kubectl");
    let answers = "#!/bin/sh\ncase \"$*\" in\n*tls.key*) printf %s \"$KEY\" | base64 ;;\n*clusterIP*) printf 10.9.8.7 ;;\n\
                   *) echo Y2VydA== ;;\nesac\n";
    fs::write(&kubectl, answers).unwrap();
    fs::set_permissions(&kubectl, Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/scheduler/write-files");
    // a umask that would let everyone read, and a file from before that everyone can read
    let run = |key: &str| {
        let mut command = Command::new("bash");
        command.args(["-c", "umask 022; exec \"$0\" \"$1\"", script]).arg(&out).env("PATH", &path).env("KEY", key);
        command.output().unwrap().status.success()
    };
    fs::create_dir(&out).unwrap();
    fs::write(out.join("tls.key"), "old").unwrap();
    fs::set_permissions(out.join("tls.key"), Permissions::from_mode(0o644)).unwrap();
    assert!(run("secret"));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&out), mode(&out.join("tls.key"))), (0o700, 0o600));
    assert_eq!(fs::read_to_string(out.join("tls.key")).unwrap(), "secret");
    assert!(fs::read_to_string(out.join("scheduler-config.yaml")).unwrap().contains("urlPrefix: https://10.9.8.7\n"));

    assert!(!run(""), "a Secret without a key");
    assert_eq!(fs::read_to_string(out.join("tls.key")).unwrap(), "secret", "what was there stays");
    assert_eq!(fs::read_dir(&out).unwrap().count(), 4, "and nothing is left over");
}
