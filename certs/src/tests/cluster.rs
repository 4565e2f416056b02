use super::{
    ALL, Hands,
    api::{Api, MUTATING, SECRETS, VALIDATING},
    config, days, material, now,
};
use crate::{
    BundleState, CA_OVERLAP, CertsConfig, Error, Identity, Keeper, Material, PATIENCE, Serving, Source, WebhookNames,
    authority::{Entries, Permits},
    publish,
    secret::{ensure_scheduler, settle},
};
use axum::http::Method;
use jiff::{SignedDuration, Timestamp};
use kube::Client;
use serde_json::{Value, json};
use std::{collections::BTreeSet, time::Duration};
use tokio::{sync::watch, time::timeout};

const NAME: &str = "handoff-certs";
const SCHEDULER: &str = "handoff-certs-scheduler";

fn entry(api: &Api, secret: &str, key: &str) -> String {
    String::from_utf8(api.secret(secret).data.unwrap()[key].0.clone()).unwrap()
}

fn stored(api: &Api) -> Material {
    let [ca, ca_key, tls, key] = ["ca.crt", "ca.key", "tls.crt", "tls.key"].map(|key| entry(api, NAME, key));
    let next = api.secret(NAME).data.unwrap().contains_key("next-ca.key").then(|| entry(api, NAME, "next-ca.key"));
    let next_ca_key = next.as_deref();
    Material::parse(Entries { ca_cert: &ca, ca_key: &ca_key, next_ca_key, tls_cert: &tls, tls_key: &key }).unwrap()
}

pub fn store(api: &Api, material: &Material) {
    api.put(&format!("{SECRETS}/{NAME}"), json!({"metadata": {"name": NAME}, "data": {"note": "a2VwdA=="}}));
    let server = material.server();
    let entries = [
        ("ca.crt", material.ca_pem()),
        ("ca.key", material.ca_key_pem().to_owned()),
        ("tls.crt", server.chain_pem()),
        ("tls.key", server.key_pem().to_owned()),
    ];
    let next = material.next_ca_key_pem().map(|key| ("next-ca.key", key.to_owned()));
    for (key, value) in entries.into_iter().chain(next) {
        api.set_entry(NAME, key, &value);
    }
}

async fn ensure(client: &Client, config: &CertsConfig, now: Timestamp) -> Result<Material, Error> {
    settle(client, config, now, |_| Permits::default()).await
}

fn keeper(client: Client, serving: &Serving) -> Keeper {
    Keeper::new(client, Source::Own, config(), names(), serving.clone()).unwrap()
}

/// Two webhooks and a field this program knows nothing of.
pub fn webhooks(name: &str, bundle: &str) -> Value {
    let webhook = |name: &str| {
        json!({
            "name": name, "admissionReviewVersions": ["v1"], "sideEffects": "None", "fromTheFuture": 1,
            "clientConfig": {"service": {"name": "handoff", "namespace": "handoff-system"}, "caBundle": bundle},
        })
    };
    json!({"metadata": {"name": name}, "webhooks": [webhook("a.handoff.io"), webhook("b.handoff.io")]})
}

pub fn names() -> WebhookNames {
    WebhookNames { mutating: vec!["handoff".to_owned()], validating: vec!["handoff".to_owned()] }
}

pub fn with_webhooks() -> Api {
    let api = Api::default();
    api.put(&format!("{MUTATING}/handoff"), webhooks("handoff", ""));
    api.put(&format!("{VALIDATING}/handoff"), webhooks("handoff", ""));
    api
}

pub fn bundles(api: &Api, path: &str) -> Vec<String> {
    let found = api.get(path);
    let webhooks = found["webhooks"].as_array().unwrap();
    webhooks.iter().map(|webhook| webhook["clientConfig"]["caBundle"].as_str().unwrap_or_default().to_owned()).collect()
}

pub fn base64(text: &str) -> String {
    serde_json::to_value(k8s_openapi::ByteString(text.into())).unwrap().as_str().unwrap().to_owned()
}

#[tokio::test]
async fn the_first_replica_makes_what_the_next_one_finds() {
    let api = Api::default();
    let made = ensure(&api.client(), &config(), now()).await.unwrap();
    let found = ensure(&api.client(), &config(), now()).await.unwrap();
    assert_eq!(made, found);
    assert_eq!(api.writes(), [format!("POST {SECRETS} 201")]);
    assert_eq!(api.secret(NAME).type_.as_deref(), Some("Opaque"));
}

#[tokio::test]
async fn replicas_that_race_agree_on_one_ca() {
    let api = Api::default();
    let (client, config) = (api.client(), config());
    api.meet(Method::POST, 2);
    let (one, two) =
        tokio::join!(ensure(&client, &config, now()), async { ensure(&api.client(), &config, now()).await });
    assert_eq!(one.unwrap(), two.unwrap());
    let mut writes = api.writes();
    writes.sort();
    assert_eq!(writes, [format!("POST {SECRETS} 201"), format!("POST {SECRETS} 409")]);
}

#[tokio::test]
async fn replicas_that_race_to_renew_agree_too() {
    let api = Api::default();
    store(&api, &material(now() - days(100)));
    let (client, config) = (api.client(), config());
    api.meet(Method::PUT, 2);
    let (one, two) =
        tokio::join!(ensure(&client, &config, now()), async { ensure(&api.client(), &config, now()).await });
    let one = one.unwrap();
    assert_eq!(one, two.unwrap());
    assert_eq!(stored(&api), one);
    assert_eq!(entry(&api, NAME, "note"), "kept");
}

#[tokio::test]
async fn what_someone_put_there_is_named_and_left_alone() {
    let cases = [("ca.crt", "ca.crt"), ("ca.key", "ca.key"), ("tls.crt", "tls.crt"), ("tls.key", "tls.key")];
    for (key, named) in cases {
        let api = with_webhooks();
        store(&api, &material(now()));
        api.set_entry(NAME, key, "-----BEGIN CERTIFICATE-----\nhello");
        let error = ensure(&api.client(), &config(), now()).await.unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }) && !error.is_transient(), "{error}");
        let text = error.to_string();
        for part in [named, "handoff-system/handoff-certs", "kubectl -n handoff-system delete secret handoff-certs"] {
            assert!(text.contains(part), "{text}");
        }
        let failures = keeper(api.client(), &Serving::default()).look(true).await;
        assert!(matches!(failures[..], [Error::Corrupt { .. }]), "{failures:?}");
        assert!(api.writes().is_empty());
    }
}

#[tokio::test]
async fn a_secret_without_an_entry_is_named() {
    let api = Api::default();
    api.put(&format!("{SECRETS}/{NAME}"), json!({"metadata": {"name": NAME}}));
    let error = ensure(&api.client(), &config(), now()).await.unwrap_err().to_string();
    assert!(error.contains("ca.crt: is missing"), "{error}");
}

#[tokio::test]
async fn a_bad_setting_never_reaches_the_cluster() {
    let api = Api::default();
    let mut bad = config();
    bad.dns_names.clear();
    assert!(matches!(ensure(&api.client(), &bad, now()).await, Err(Error::Config { .. })));
    assert!(api.writes().is_empty());
}

#[tokio::test]
async fn a_replica_keeps_its_certificate_when_the_secret_turns_bad() {
    let api = Api::default();
    let serving = Serving::default();
    assert!(!serving.is_usable());
    store(&api, &material(now()));
    let mut keeper = keeper(api.client(), &serving);
    assert!(keeper.look(false).await.is_empty());
    let held = serving.resolver.not_after();
    assert!(held.is_some() && serving.status().failing.is_none());

    api.set_entry(NAME, "tls.crt", "hello");
    let failures = keeper.look(false).await;
    assert!(matches!(failures[..], [Error::Corrupt { .. }]) && !failures[0].is_transient(), "{failures:?}");
    store(&api, &material(now() - days(200)));
    let failures = keeper.look(false).await;
    assert!(matches!(failures[..], [Error::Expired { .. }]) && !failures[0].is_transient(), "{failures:?}");
    store(&api, &material(now() + days(200)));
    let failures = keeper.look(false).await;
    assert!(matches!(failures[..], [Error::NotYetValid { .. }]) && !failures[0].is_transient(), "{failures:?}");
    api.remove(&format!("{SECRETS}/{NAME}"));
    let failures = keeper.look(false).await;
    assert!(matches!(failures[..], [Error::Missing { .. }]) && failures[0].is_transient(), "{failures:?}");

    let status = serving.status();
    assert_eq!((serving.resolver.not_after(), status.not_after), (held, held));
    assert_eq!((status.errors, status.changes), (4, 1));
    assert!(status.failing.unwrap().contains("does not exist yet"));
    assert!(serving.is_usable(), "what is in use is good");

    store(&api, &material(now()));
    assert!(keeper.look(false).await.is_empty());
    assert_eq!((serving.status().failing, serving.status().changes), (None, 2));
}

#[tokio::test]
async fn a_certificate_that_nobody_renews_is_reported_and_then_makes_the_replica_unready() {
    let api = Api::default();
    let (clock, serving) = Hands::serving(now());
    store(&api, &material(now()));
    let mut keeper = keeper(api.client(), &serving);
    assert!(keeper.look(false).await.is_empty());
    clock.advance(days(80));
    let failures = keeper.look(false).await;
    assert!(matches!(failures[..], [Error::Overdue { .. }]), "{failures:?}");
    assert!(serving.is_usable());
    clock.advance(days(11));
    assert_eq!(keeper.look(false).await.len(), 2, "expired, and overdue still");
    assert!(!serving.is_usable());
}

#[tokio::test]
async fn the_scheduler_gets_a_certificate_that_is_renewed_with_the_ca() {
    let api = Api::default();
    let client = api.client();
    let old = material(now() - days(2500));
    ensure_scheduler(&client, &config(), &old, now()).await.unwrap();
    ensure_scheduler(&client, &config(), &old, now()).await.unwrap();
    assert_eq!(api.writes().len(), 1, "once is enough");
    let first = entry(&api, SCHEDULER, "tls.crt");

    let new = super::rotated(&old, now());
    ensure_scheduler(&client, &config(), &new, now()).await.unwrap();
    assert_eq!(entry(&api, SCHEDULER, "ca.crt"), new.bundle_pem());
    assert_ne!(entry(&api, SCHEDULER, "tls.crt"), first);
    Identity::parse(&entry(&api, SCHEDULER, "tls.crt"), &entry(&api, SCHEDULER, "tls.key")).unwrap();
    assert!(!api.secret(SCHEDULER).data.unwrap().contains_key("ca.key"));

    api.set_entry(SCHEDULER, "tls.key", "hello");
    let error = ensure_scheduler(&client, &config(), &new, now()).await.unwrap_err().to_string();
    assert!(error.contains("delete secret handoff-certs-scheduler"), "{error}");
}

#[tokio::test]
async fn the_bundle_is_written_once_and_again_when_someone_empties_it() {
    let api = with_webhooks();
    let client = api.client();
    let states = async |pem: &str| -> Vec<_> {
        publish(&client, &names(), pem).await.into_iter().map(|(_, state)| state.unwrap()).collect()
    };
    assert_eq!(states("one").await, [BundleState::Written; 2]);
    assert_eq!(states("one").await, [BundleState::Current; 2]);
    assert_eq!(api.writes().len(), 2);
    for path in [MUTATING, VALIDATING] {
        assert_eq!(bundles(&api, &format!("{path}/handoff")), [base64("one"), base64("one")]);
        assert_eq!(api.get(&format!("{path}/handoff"))["webhooks"][1]["fromTheFuture"], 1);
    }

    let mut drifted = webhooks("handoff", &base64("one"));
    drifted["webhooks"][1]["clientConfig"].as_object_mut().unwrap().remove("caBundle");
    api.put(&format!("{VALIDATING}/handoff"), drifted);
    assert_eq!(states("one").await, [BundleState::Current, BundleState::Written]);
    assert_eq!(bundles(&api, &format!("{VALIDATING}/handoff")), [base64("one"), base64("one")]);

    api.remove(&format!("{MUTATING}/handoff"));
    assert_eq!(states("two").await, [BundleState::Absent, BundleState::Written]);
}

#[tokio::test]
async fn a_list_that_changed_since_it_was_read_is_read_again() {
    let api = with_webhooks();
    let path = format!("{MUTATING}/handoff");
    let mut shorter = webhooks("handoff", "");
    shorter["webhooks"].as_array_mut().unwrap().remove(0);
    api.meddle(&path, shorter);
    let mutating = WebhookNames { mutating: vec!["handoff".to_owned()], ..WebhookNames::default() };
    let results = publish(&api.client(), &mutating, "one").await;
    assert!(matches!(results[..], [(_, Ok(BundleState::Written))]), "{results:?}");
    assert_eq!(api.writes(), [format!("PATCH {path} 422"), format!("PATCH {path} 200")]);
    assert_eq!(bundles(&api, &path), [base64("one")]);
}

#[tokio::test]
async fn the_leader_renews_publishes_and_only_then_switches() {
    let api = with_webhooks();
    let (clock, serving) = Hands::serving(now());
    let old = material(now() - days(2400));
    store(&api, &old);
    let mut keeper = keeper(api.client(), &serving);
    assert!(keeper.look(true).await.is_empty());
    assert_eq!(stored(&api).ca_pem(), old.ca_pem());
    assert_ne!(stored(&api).server(), old.server(), "the leaf was due");

    clock.advance(days(50));
    assert!(keeper.look(true).await.is_empty());
    let announced = stored(&api);
    assert_eq!((announced.ca_key_pem(), announced.next_ca_key_pem().is_some()), (old.ca_key_pem(), true));
    for path in [MUTATING, VALIDATING] {
        assert_eq!(
            bundles(&api, &format!("{path}/handoff")),
            [base64(&announced.bundle_pem()), base64(&announced.bundle_pem())]
        );
    }
    assert_eq!(entry(&api, SCHEDULER, "ca.crt"), announced.bundle_pem());

    // the time has come, but one configuration cannot be written
    clock.advance(CA_OVERLAP);
    api.put(&format!("{VALIDATING}/handoff"), webhooks("handoff", ""));
    api.forbid(&format!("{VALIDATING}/handoff"), true);
    let failures = keeper.look(true).await;
    assert!(matches!(failures[..], [Error::Api { .. }]) && !failures[0].is_transient(), "{failures:?}");
    assert_eq!(stored(&api), announced);

    api.forbid(&format!("{VALIDATING}/handoff"), false);
    assert!(keeper.look(true).await.is_empty());
    let switched = stored(&api);
    assert_eq!(Some(switched.ca_key_pem()), announced.next_ca_key_pem());
    assert!(!api.secret(NAME).data.unwrap().contains_key("next-ca.key"));
    assert_eq!(serving.resolver.not_after(), Some(switched.not_after()));
    assert_eq!(bundles(&api, &format!("{VALIDATING}/handoff"))[1], base64(&switched.bundle_pem()));
    assert_eq!(entry(&api, NAME, "note"), "kept");

    let writes = api.writes().len();
    assert!(keeper.look(true).await.is_empty());
    assert_eq!(api.writes().len(), writes, "nothing left to do");
}

#[tokio::test]
async fn a_ca_outside_its_dates_is_replaced_once_that_lasts() {
    let api = with_webhooks();
    let (clock, serving) = Hands::serving(now());
    let mut keeper = keeper(api.client(), &serving);
    assert!(keeper.look(true).await.is_empty());
    let good = stored(&api);

    // someone sets the clock ten years ahead and, before long, back again
    clock.set(now() + days(4000));
    for _ in 0..9 {
        let failures = keeper.look(true).await;
        assert!(failures.iter().any(|error| matches!(error, Error::CaNotValid { .. })), "{failures:?}");
        clock.advance(SignedDuration::from_secs(30));
    }
    clock.set(now());
    assert!(keeper.look(true).await.is_empty());
    assert_eq!(stored(&api), good);

    // this time it stays so
    clock.set(now() + days(4000));
    assert!(!keeper.look(true).await.is_empty());
    clock.advance(SignedDuration::try_from(PATIENCE).unwrap());
    assert!(keeper.look(true).await.is_empty());
    assert_ne!(stored(&api).ca_key_pem(), good.ca_key_pem());
    assert!(serving.is_usable());
}

#[tokio::test]
async fn one_failure_does_not_keep_the_rest_from_being_done() {
    let api = with_webhooks();
    api.put(&format!("{SECRETS}/{SCHEDULER}"), json!({"metadata": {"name": SCHEDULER}}));
    let failures = keeper(api.client(), &Serving::default()).look(true).await;
    assert!(matches!(failures[..], [Error::Corrupt { .. }]), "{failures:?}");
    assert_eq!(bundles(&api, &format!("{MUTATING}/handoff"))[0], base64(&stored(&api).bundle_pem()));
}

#[tokio::test]
async fn only_who_leads_writes() {
    let api = with_webhooks();
    let names = ["a", "b", "c"];
    let replicas = names.map(|name| {
        let (lead, leading) = watch::channel(false);
        let serving = Serving::default();
        let task = tokio::spawn(keeper(api.client_of(name), &serving).run(leading));
        (lead, serving, task)
    });
    let done = timeout(Duration::from_mins(1), async {
        until(|| replicas.iter().all(|(_, serving, _)| serving.status().errors > 0)).await;
        assert!(api.writes().is_empty(), "nobody leads: nobody makes the Secret");
        replicas[1].0.send(true).unwrap();
        until(|| replicas.iter().all(|(_, serving, _)| serving.is_usable())).await;
        until(|| !bundles(&api, &format!("{VALIDATING}/handoff"))[1].is_empty()).await;
        assert!(api.writers().iter().all(|name| *name == "b"), "{:?}", api.writers());

        let before = api.writes().len();
        replicas[1].0.send(false).unwrap();
        replicas[2].0.send(true).unwrap();
        store(&api, &material(now() - days(80)));
        until(|| replicas[2].1.resolver.not_after() == Some(stored(&api).not_after()) && api.writes().len() > before)
            .await;
        assert!(api.writers()[before..].iter().all(|name| *name == "c"), "{:?}", api.writers());
    });
    done.await.unwrap();
    replicas.iter().for_each(|(.., task)| task.abort());
}

#[tokio::test]
async fn what_is_asked_of_the_api_is_what_rbac_allows() {
    let api = with_webhooks();
    let serving = Serving::default();
    store(&api, &material(now() - days(2500)).renewed(&config(), now() - days(70), ALL).unwrap().unwrap());
    assert!(keeper(api.client(), &serving).look(true).await.is_empty());
    api.remove(&format!("{SECRETS}/{NAME}"));
    assert!(keeper(api.client(), &serving).look(true).await.is_empty());

    let rbac = include_str!("../../../deploy/kustomize/rbac.yaml");
    assert_eq!(used(&api), granted(rbac), "no less, and no more");
}

/// What was asked of the API, as rules of RBAC would put it.
pub fn used(api: &Api) -> BTreeSet<String> {
    let used = api.asked().into_iter().map(|(method, path)| {
        let verb = match &*method {
            "GET" => "get",
            "POST" => "create",
            "PUT" => "update",
            _ => "patch",
        };
        let mut parts = path.rsplit('/');
        let last = parts.next().unwrap();
        if verb == "create" { format!("{verb} {last}") } else { format!("{verb} {} {last}", parts.next().unwrap()) }
    });
    used.collect()
}

/// What manifests grant of Secrets and webhook configurations.
pub fn granted(manifests: &str) -> BTreeSet<String> {
    let mut granted = BTreeSet::new();
    for document in serde_saphyr::from_multiple::<Value>(manifests).unwrap() {
        for rule in document["rules"].as_array().into_iter().flatten() {
            let texts = |key: &str| {
                let list = rule[key].as_array().into_iter().flatten();
                list.map(|text| text.as_str().unwrap().to_owned()).collect::<Vec<_>>()
            };
            let ours = |resource: &&String| *resource == "secrets" || resource.ends_with("webhookconfigurations");
            for resource in texts("resources").iter().filter(ours) {
                for verb in texts("verbs") {
                    let names = texts("resourceNames");
                    granted.extend(names.iter().map(|name| format!("{verb} {resource} {name}")));
                    if names.is_empty() {
                        granted.insert(format!("{verb} {resource}"));
                    }
                }
            }
        }
    }
    granted
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
