use super::{
    api::{Api, MUTATING, SECRETS, VALIDATING},
    config, days, material, now,
};
use crate::{
    BundleState, Error, Identity, Material, Serving, WebhookNames, ensure, ensure_scheduler, follow, maintain, publish,
    run,
};
use axum::http::Method;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::{sync::watch, time::timeout};

const NAME: &str = "handoff-certs";
const SCHEDULER: &str = "handoff-certs-scheduler";

fn entry(api: &Api, secret: &str, key: &str) -> String {
    String::from_utf8(api.secret(secret).data.unwrap()[key].0.clone()).unwrap()
}

fn stored(api: &Api) -> Material {
    let [ca, ca_key, tls, key] = ["ca.crt", "ca.key", "tls.crt", "tls.key"].map(|key| entry(api, NAME, key));
    Material::parse(&ca, &ca_key, &tls, &key).unwrap()
}

fn store(api: &Api, material: &Material) {
    api.put(&format!("{SECRETS}/{NAME}"), json!({"metadata": {"name": NAME}, "data": {"note": "a2VwdA=="}}));
    let server = material.server();
    let entries = [
        ("ca.crt", material.ca_pem()),
        ("ca.key", material.ca_key_pem().to_owned()),
        ("tls.crt", server.chain_pem()),
        ("tls.key", server.key_pem().to_owned()),
    ];
    for (key, value) in entries {
        api.set_entry(NAME, key, &value);
    }
}

/// Two webhooks and a field this program knows nothing of.
fn webhooks(name: &str, bundle: &str) -> Value {
    let webhook = |name: &str| {
        json!({
            "name": name, "admissionReviewVersions": ["v1"], "sideEffects": "None", "fromTheFuture": 1,
            "clientConfig": {"service": {"name": "handoff", "namespace": "handoff-system"}, "caBundle": bundle},
        })
    };
    json!({"metadata": {"name": name}, "webhooks": [webhook("a.handoff.io"), webhook("b.handoff.io")]})
}

fn names() -> WebhookNames {
    WebhookNames { mutating: vec!["handoff".to_owned()], validating: vec!["handoff".to_owned()] }
}

fn with_webhooks() -> Api {
    let api = Api::default();
    api.put(&format!("{MUTATING}/handoff"), webhooks("handoff", ""));
    api.put(&format!("{VALIDATING}/handoff"), webhooks("handoff", ""));
    api
}

fn bundles(api: &Api, path: &str) -> Vec<String> {
    let found = api.get(path);
    let webhooks = found["webhooks"].as_array().unwrap();
    webhooks.iter().map(|webhook| webhook["clientConfig"]["caBundle"].as_str().unwrap_or_default().to_owned()).collect()
}

fn base64(text: &str) -> String {
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
async fn at_start_only_what_has_expired_is_renewed() {
    let api = Api::default();
    let due = material(now() - days(80));
    store(&api, &due);
    assert_eq!(ensure(&api.client(), &config(), now()).await.unwrap(), due);
    assert!(api.writes().is_empty());
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
        let failures = maintain(&api.client(), &config(), &names(), &Serving::default(), now()).await;
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
    let good = material(now());
    store(&api, &good);
    let client = api.client();
    follow(&client, &config(), &serving, now()).await.unwrap();
    let held = serving.resolver.not_after();
    assert!(held.is_some());

    api.set_entry(NAME, "tls.crt", "hello");
    let error = follow(&client, &config(), &serving, now()).await.unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    store(&api, &material(now() - days(200)));
    let error = follow(&client, &config(), &serving, now()).await.unwrap_err();
    assert!(matches!(error, Error::Expired { .. }) && !error.is_transient(), "{error}");
    api.remove(&format!("{SECRETS}/{NAME}"));
    let error = follow(&client, &config(), &serving, now()).await.unwrap_err();
    assert!(matches!(error, Error::Missing { .. }) && error.is_transient(), "{error}");
    assert_eq!(serving.resolver.not_after(), held);
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

    let new = old.renewed(&config(), now()).unwrap().unwrap();
    ensure_scheduler(&client, &config(), &new, now()).await.unwrap();
    assert_eq!(entry(&api, SCHEDULER, "ca.crt"), new.ca_pem());
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
async fn the_leader_renews_publishes_and_serves() {
    let api = with_webhooks();
    let old = material(now() - days(2500)).renewed(&config(), now() - days(70)).unwrap().unwrap();
    store(&api, &old);
    let serving = Serving::default();
    let failures = maintain(&api.client(), &config(), &names(), &serving, now()).await;
    assert!(failures.is_empty(), "{failures:?}");
    let new = stored(&api);
    assert_ne!(new, old);
    assert_eq!(serving.resolver.not_after(), Some(new.not_after()));
    assert_eq!(bundles(&api, &format!("{MUTATING}/handoff")), [base64(&new.ca_pem()), base64(&new.ca_pem())]);
    assert_eq!(entry(&api, SCHEDULER, "ca.crt"), new.ca_pem());

    let writes = api.writes().len();
    let failures = maintain(&api.client(), &config(), &names(), &serving, now()).await;
    assert!(failures.is_empty() && api.writes().len() == writes, "nothing left to do");
}

#[tokio::test]
async fn one_failure_does_not_keep_the_rest_from_being_done() {
    let api = with_webhooks();
    api.put(&format!("{SECRETS}/{SCHEDULER}"), json!({"metadata": {"name": SCHEDULER}}));
    let failures = maintain(&api.client(), &config(), &names(), &Serving::default(), now()).await;
    assert!(matches!(failures[..], [Error::Corrupt { .. }]), "{failures:?}");
    assert_eq!(bundles(&api, &format!("{MUTATING}/handoff"))[0], base64(&stored(&api).ca_pem()));
}

#[tokio::test]
async fn only_who_leads_writes() {
    let api = with_webhooks();
    store(&api, &material(now() - days(70)));
    let (lead, leading) = watch::channel(false);
    let serving = Serving::default();
    let task = tokio::spawn(run(api.client(), config(), names(), serving.clone(), leading));
    let done = timeout(Duration::from_mins(1), async {
        until(|| serving.resolver.not_after().is_some()).await;
        assert!(api.writes().is_empty(), "a follower serves and writes nothing");
        lead.send(true).unwrap();
        until(|| !bundles(&api, &format!("{VALIDATING}/handoff"))[1].is_empty()).await;
    });
    done.await.unwrap();
    assert_eq!(serving.resolver.not_after(), Some(stored(&api).not_after()));
    task.abort();
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
