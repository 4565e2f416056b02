//! Three replicas behind their real listeners under constant load, through several renewals of the server certificate and
//! a change of the CA. Time is wound on by hand; calls are counted, and none may fail.

#[allow(dead_code)] // what the tests of the certificates need besides
#[path = "../../../certs/src/tests/api.rs"]
mod api;
#[path = "../../tests/served/holds.rs"]
mod holds;

use super::{Limits, serve_tls};
use api::{Api, MUTATING, SECRETS};
use handoff_certs::{
    CertsConfig, Clock, Identity, Keeper, Serving, Source, WebhookNames, server_config, server_config_mtls,
};
use handoff_webhook::{WebhookConfig, router};
use holds::Holds;
use jiff::{SignedDuration, Timestamp};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    time_provider::TimeProvider,
};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

const NAMES: [&str; 3] = ["handoff-0", "handoff-1", "handoff-2"];
const SERVER_NAME: &str = "handoff-webhook.handoff-system.svc";
/// Lives in days.
const CA_LIFE: u32 = 30;
const LEAF_LIFE: u32 = 9;
/// Long enough for the second CA to be announced, to take over, and to outlive the first.
const HOURS: i64 = 24 * 36;
const STEP_HOURS: i64 = 4;
const API_SERVERS: u64 = 5;
/// Calls that are made, by all clients together, before time moves on.
const CALLS_PER_STEP: usize = 15;

/// A clock that is wound on by hand, for all: replicas, API servers, the scheduler.
#[derive(Debug)]
struct Wound(Mutex<Timestamp>);

impl Clock for Wound {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }

    fn monotonic(&self) -> Duration {
        self.now().duration_since(Timestamp::UNIX_EPOCH).unsigned_abs()
    }
}

impl TimeProvider for Wound {
    fn current_time(&self) -> Option<UnixTime> {
        let second = u64::try_from(self.now().as_second()).unwrap();
        Some(UnixTime::since_unix_epoch(Duration::from_secs(second)))
    }
}

/// Numbers that differ from client to client and are the same in each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.roll(of.len() as u64)).unwrap()]
    }
}

struct World {
    api: Api,
    clock: Arc<Wound>,
    webhooks: Vec<SocketAddr>,
    extenders: Vec<SocketAddr>,
    calls: AtomicUsize,
    failures: Mutex<Vec<String>>,
    /// Server certificates that clients were shown.
    seen: Mutex<BTreeSet<Vec<u8>>>,
    /// The server certificate in use.
    current: Mutex<CertificateDer<'static>>,
    /// Calls on a connection that was opened under a certificate that is no longer the one in use.
    carried: AtomicUsize,
}

/// What a client trusts and shows.
struct Wallet {
    bundle: String,
    identity: Option<Identity>,
}

impl World {
    /// What an API server has from its informer.
    fn api_servers(&self) -> Wallet {
        let configuration = self.api.get(&format!("{MUTATING}/handoff"));
        let bundle = configuration["webhooks"][0]["clientConfig"]["caBundle"].clone();
        let bundle: k8s_openapi::ByteString = serde_json::from_value(bundle).unwrap();
        Wallet { bundle: String::from_utf8(bundle.0).unwrap(), identity: None }
    }

    /// What kube-scheduler has from the files it was given.
    fn schedulers(&self) -> Wallet {
        let data = self.api.secret("handoff-certs-scheduler").data.unwrap();
        let text = |key: &str| String::from_utf8(data[key].0.clone()).unwrap();
        Wallet { bundle: text("ca.crt"), identity: Some(Identity::parse(&text("tls.crt"), &text("tls.key")).unwrap()) }
    }

    async fn connect(&self, to: SocketAddr, wallet: &Wallet) -> io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(wallet.bundle.as_bytes()).map(Result::unwrap) {
            // as Go does, and rustls does not, a CA is held to its dates
            let valid = {
                let (_, read) = x509_parser::parse_x509_certificate(&root).unwrap();
                let (start, end) = (read.validity().not_before.timestamp(), read.validity().not_after.timestamp());
                (start..end).contains(&self.clock.now().as_second())
            };
            if valid {
                roots.add(root).unwrap();
            }
        }
        let builder = ClientConfig::builder_with_details(Arc::new(ring::default_provider()), self.clock.clone());
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
        let config = match &wallet.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let key = PrivateKeyDer::from_pem_slice(identity.key_pem().as_bytes()).unwrap();
                builder.with_client_auth_cert(identity.chain(), key).unwrap()
            }
        };
        let stream = TcpStream::connect(to).await?;
        let name = ServerName::try_from(SERVER_NAME).unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// Calls until told to stop. Opens connections as API servers do: kept alive, now and then another one.
    async fn load(&self, mut dice: Dice, mtls: bool, stop: watch::Receiver<bool>) {
        let wallet = || if mtls { self.schedulers() } else { self.api_servers() };
        let (mut held, mut held_since) = (wallet(), self.clock.now());
        let mut open: Option<(TlsStream<TcpStream>, CertificateDer<'static>)> = None;
        while !*stop.borrow() {
            // an API server hears of a new caBundle a moment late, which may be half a day here; a scheduler has what
            // it read at its start, and is started anew before its certificate ends
            let age = self.clock.now().duration_since(held_since);
            let hears = if mtls { age >= SignedDuration::from_hours(24 * 2) } else { dice.roll(4) == 0 };
            if hears {
                (held, held_since) = (wallet(), self.clock.now());
            }
            if dice.roll(8) == 0 || mtls && hears {
                open = None;
            }
            let stream = if let Some(open) = &mut open {
                open
            } else {
                let to = dice.pick(if mtls { &self.extenders } else { &self.webhooks });
                match self.connect(to, &held).await {
                    Ok(stream) => {
                        let leaf = stream.get_ref().1.peer_certificates().unwrap()[0].clone();
                        self.seen.lock().unwrap().insert(leaf.to_vec());
                        open.insert((stream, leaf))
                    }
                    Err(error) => {
                        self.fail(mtls, "connect", &error);
                        continue;
                    }
                }
            };
            let uid = dice.roll(u64::MAX).to_string();
            if let Err(error) = call(&mut stream.0, &uid).await {
                self.fail(mtls, "call", &error);
                open = None;
                continue;
            }
            self.calls.fetch_add(1, Ordering::SeqCst);
            if *self.current.lock().unwrap() != stream.1 {
                self.carried.fetch_add(1, Ordering::SeqCst);
            }
        }
    }

    fn fail(&self, mtls: bool, what: &str, error: &io::Error) {
        let who = if mtls { "scheduler" } else { "API server" };
        self.failures.lock().unwrap().push(format!("{who}, {what}, {}: {error}", self.clock.now()));
        self.calls.fetch_add(1, Ordering::SeqCst);
    }
}

/// One review of an eviction: it must be held, under its own uid.
async fn call(stream: &mut TlsStream<TcpStream>, uid: &str) -> io::Result<()> {
    let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": uid, "operation": "CREATE", "subResource": "eviction", "name": "db-0", "namespace": "shop",
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "object": {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "db-0"}}}});
    let review = review.to_string();
    let head = format!("POST /validate/evictions HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", review.len());
    stream.write_all(format!("{head}{review}").as_bytes()).await?;
    stream.flush().await?;
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        head.push(stream.read_u8().await?.into());
    }
    let lower = head.to_lowercase();
    let length = lower.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next()?.parse().ok());
    let mut body = vec![0; length.ok_or_else(|| io::Error::other(head.clone()))?];
    stream.read_exact(&mut body).await?;
    let answer: Value = serde_json::from_slice(&body)?;
    let response = &answer["response"];
    let refused = response["allowed"] == false && response["status"]["code"] == 429 && response["uid"] == uid;
    if head.starts_with("HTTP/1.1 200 ") && refused { Ok(()) } else { Err(io::Error::other(format!("{head}{answer}"))) }
}

fn config() -> CertsConfig {
    let mut config = CertsConfig::new("handoff-system", "handoff-certs", vec![SERVER_NAME.to_owned()]);
    (config.ca_life_days, config.leaf_life_days, config.client_life_days) = (CA_LIFE, LEAF_LIFE, LEAF_LIFE);
    config
}

fn api() -> Api {
    let api = Api::default();
    let client = json!({"service": {"name": "handoff-webhook", "namespace": "handoff-system"}});
    let hook = json!({"name": "a", "admissionReviewVersions": ["v1"], "sideEffects": "None", "clientConfig": client});
    for path in [MUTATING, api::VALIDATING] {
        api.put(&format!("{path}/handoff"), json!({"metadata": {"name": "handoff"}, "webhooks": [hook]}));
    }
    api
}

/// The first certificate of an entry: of `tls.crt` the server's, of `ca.crt` that of the CA that issues now.
fn first(api: &Api, entry: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(&api.secret("handoff-certs").data.unwrap()[entry].0).unwrap()
}

fn cas(api: &Api) -> usize {
    let secret: Value = api.get(&format!("{SECRETS}/handoff-certs"));
    let pem: k8s_openapi::ByteString = serde_json::from_value(secret["data"]["ca.crt"].clone()).unwrap();
    CertificateDer::pem_slice_iter(&pem.0).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_fails_through_rotations_of_leaf_and_ca() {
    let api = api();
    let clock = Arc::new(Wound(Mutex::new(Timestamp::from_second(Timestamp::now().as_second()).unwrap())));
    let (_stop_serving, serve_until) = watch::channel(false);
    let (mut keepers, mut webhooks, mut extenders) = (Vec::new(), Vec::new(), Vec::new());
    for name in NAMES {
        let serving = Serving::new(clock.clone());
        let names = vec!["handoff".to_owned()];
        let names = WebhookNames { mutating: names.clone(), validating: names };
        keepers.push(Keeper::new(api.client_of(name), Source::Own, config(), names, serving.clone()).unwrap());
        let plain = server_config(serving.resolver.clone()).unwrap();
        let mutual = server_config_mtls(serving.resolver, serving.roots).unwrap();
        for (config, addresses) in [(plain, &mut webhooks), (mutual, &mut extenders)] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            addresses.push(listener.local_addr().unwrap());
            // what is behind it is the same on both: here it is how they are reached that counts
            let router = router(Arc::new(Holds), WebhookConfig::default(), Arc::new(()));
            tokio::spawn(serve_tls(listener, config, router, Limits::default(), serve_until.clone()));
        }
    }
    // the first replica leads and makes everything, the others find it
    for (place, keeper) in keepers.iter_mut().enumerate() {
        let failures = keeper.look(place == 0).await;
        assert!(failures.is_empty(), "{failures:?}");
    }
    assert!(api.writers().iter().all(|writer| *writer == NAMES[0]));
    let first_ca = first(&api, "ca.crt");

    let world = Arc::new(World {
        api: api.clone(),
        clock: clock.clone(),
        webhooks,
        extenders,
        calls: AtomicUsize::new(0),
        failures: Mutex::default(),
        seen: Mutex::default(),
        current: Mutex::new(first(&api, "tls.crt")),
        carried: AtomicUsize::new(0),
    });
    let (stop, until) = watch::channel(false);
    let clients = (0..=API_SERVERS).map(|seed| {
        let (world, until) = (world.clone(), until.clone());
        tokio::spawn(async move { world.load(Dice(seed + 1), seed == API_SERVERS, until).await })
    });
    let clients: Vec<_> = clients.collect();

    let mut dice = Dice(99);
    let (mut most_cas, mut current) = (0, BTreeSet::new());
    for _ in 0..HOURS / STEP_HOURS {
        *clock.0.lock().unwrap() += SignedDuration::from_hours(STEP_HOURS);
        let leader = dice.pick(&[0, 1, 2]);
        let writes = api.writes().len();
        let begin = dice.pick(&[0, 1, 2]);
        for place in [begin, (begin + 1) % 3, (begin + 2) % 3] {
            let failures = keepers[place].look(place == leader).await;
            assert!(failures.is_empty(), "{failures:?}");
            *world.current.lock().unwrap() = first(&api, "tls.crt");
            // calls come in while some replicas have the new certificate and some have not
            let enough = world.calls.load(Ordering::SeqCst) + CALLS_PER_STEP / 3;
            while world.calls.load(Ordering::SeqCst) < enough {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        assert!(api.writers()[writes..].iter().all(|writer| *writer == NAMES[leader]), "only who leads writes");
        most_cas = most_cas.max(cas(&api));
        current.insert(first(&api, "ca.crt").to_vec());
    }
    stop.send(true).unwrap();
    for client in clients {
        client.await.unwrap();
    }

    let (calls, carried) = (world.calls.load(Ordering::SeqCst), world.carried.load(Ordering::SeqCst));
    let seen = world.seen.lock().unwrap().len();
    println!("{calls} calls, {carried} of them on a connection older than the certificate; {seen} server certificates");
    assert_eq!(*world.failures.lock().unwrap(), Vec::<String>::new());
    assert!(calls >= CALLS_PER_STEP * usize::try_from(HOURS / STEP_HOURS).unwrap());
    assert!(seen >= 6, "{seen} server certificates in {HOURS} h");
    assert!(carried > 0, "a connection outlives the certificate it began with");
    assert_eq!(current.len(), 2, "the first CA and the second have issued");
    assert!(first(&api, "ca.crt") != first_ca && most_cas == 2 && cas(&api) == 1, "old, old and new, new");
}
