//! The webhook configurations, and the certificates that the API server verifies us by.

use super::{Check, State};
use crate::commands::connection::Cluster;
use handoff_certs::{inspect, verify};
use jiff::Timestamp;
use k8s_openapi::api::{
    admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration, WebhookClientConfig},
    core::v1::Secret,
};
use kube::Api;

/// Our webhooks, by kind of configuration; as in deploy/kustomize/webhooks.yaml.
const MUTATING: [&str; 1] = ["pods.volumehandoff.io"];
const VALIDATING: [&str; 5] = [
    "evictions.volumehandoff.io",
    "storage-evictions.volumehandoff.io",
    "pods-delete.volumehandoff.io",
    "bindings.volumehandoff.io",
    "snapshots.volumehandoff.io",
];
const APPLY: &str = "apply deploy/kustomize/webhooks.yaml";

/// A webhook as far as we care.
struct Webhook {
    name: String,
    ignores: bool,
    bundle: Option<String>,
    namespace: Option<String>,
}

fn webhook(name: &str, failure_policy: Option<&str>, client: &WebhookClientConfig) -> Webhook {
    Webhook {
        name: name.to_owned(),
        ignores: failure_policy == Some("Ignore"),
        bundle: client.ca_bundle.as_ref().map(|b| String::from_utf8_lossy(&b.0).into_owned()),
        namespace: client.service.as_ref().map(|s| s.namespace.clone()),
    }
}

/// All of them.
pub async fn look(cluster: &Cluster, name: &str, secret: &str, now: Timestamp) -> Vec<Check> {
    let client = &cluster.client;
    let mutating = Api::<MutatingWebhookConfiguration>::all(client.clone()).get_opt(name).await;
    let validating = Api::<ValidatingWebhookConfiguration>::all(client.clone()).get_opt(name).await;
    let certs = Api::<Secret>::namespaced(client.clone(), &cluster.handoff).get_opt(secret).await;
    let (chain, mut checks) = match certs {
        Ok(found) => server(secret, found.as_ref(), now),
        Err(error) => (None, vec![Check::unknown("server certificate", &error)]),
    };
    let mut add = |kind: &str, wanted: &[&str], found: Result<Option<Vec<Webhook>>, kube::Error>| match found {
        Ok(found) => checks.extend(configuration(kind, wanted, found, &cluster.handoff, chain.as_deref(), now)),
        Err(error) => checks.push(Check::unknown(format!("{kind} webhooks"), &error)),
    };
    let of_mutating = |c: MutatingWebhookConfiguration| {
        let webhooks = c.webhooks.unwrap_or_default();
        webhooks.iter().map(|w| webhook(&w.name, w.failure_policy.as_deref(), &w.client_config)).collect()
    };
    let of_validating = |c: ValidatingWebhookConfiguration| {
        let webhooks = c.webhooks.unwrap_or_default();
        webhooks.iter().map(|w| webhook(&w.name, w.failure_policy.as_deref(), &w.client_config)).collect()
    };
    add("mutating", &MUTATING, mutating.map(|found| found.map(of_mutating)));
    add("validating", &VALIDATING, validating.map(|found| found.map(of_validating)));
    checks
}

fn configuration(
    kind: &str,
    wanted: &[&str],
    found: Option<Vec<Webhook>>,
    namespace: &str,
    chain: Option<&str>,
    now: Timestamp,
) -> Vec<Check> {
    let name = format!("{kind} webhooks");
    let Some(found) = found else {
        return vec![Check::required(name, false, "the configuration is missing: nothing reaches Handoff", APPLY)];
    };
    let missing = wanted.iter().filter(|w| !found.iter().any(|f| f.name == **w)).copied().collect::<Vec<_>>();
    let says = if missing.is_empty() {
        format!("all {} are there", wanted.len())
    } else {
        format!("missing: {}", missing.join(", "))
    };
    let mut checks = vec![Check::required(&name, missing.is_empty(), says, APPLY)];

    let strict = found.iter().filter(|w| !w.ignores).map(|w| w.name.as_str()).collect::<Vec<_>>();
    let says = if strict.is_empty() {
        "Ignore everywhere: without Handoff the cluster behaves as before".to_owned()
    } else {
        format!("not Ignore: {}; requests fail while no replica answers", strict.join(", "))
    };
    checks.push(Check::required(format!("failurePolicy of {name}"), strict.is_empty(), says, APPLY));

    let elsewhere = found.iter().filter(|w| w.namespace.as_deref() != Some(namespace)).map(|w| w.name.as_str());
    let elsewhere = elsewhere.collect::<Vec<_>>();
    if !elsewhere.is_empty() {
        let says = format!("not sent to a Service in {namespace}: {}", elsewhere.join(", "));
        checks.push(Check::required(format!("Service of {name}"), false, says, APPLY));
    }
    checks.push(bundles(&name, &found, chain, now));
    checks
}

fn bundles(name: &str, found: &[Webhook], chain: Option<&str>, now: Timestamp) -> Check {
    let name = format!("caBundle of {name}");
    let fix = "the replica that leads writes it: look at its log. With cert-manager, its cainjector does";
    let mut problems = Vec::new();
    for webhook in found {
        let problem = match webhook.bundle.as_deref().filter(|b| !b.trim().is_empty()) {
            None => Some("it has none".to_owned()),
            Some(bundle) => match (inspect(bundle), chain) {
                (Err(error), _) => Some(error.to_string()),
                (Ok(roots), _) if roots.iter().all(|r| now < r.not_before || r.not_after <= now) => {
                    Some("every CA in it has expired".to_owned())
                }
                (Ok(_), Some(chain)) => {
                    verify(chain, bundle, now).err().map(|e| format!("it does not verify our certificate: {e}"))
                }
                (Ok(_), None) => None,
            },
        };
        problems.extend(problem.map(|problem| format!("{}: {problem}", webhook.name)));
    }
    if let Some(first) = problems.first() {
        let says = format!("{} of {} are wrong; {first}", problems.len(), found.len());
        return Check::required(name, false, says, fix);
    }
    match chain {
        Some(_) => Check::required(name, true, "verifies the certificate that is served", fix),
        None => Check::new(name, State::Ok, "valid; not compared with the certificate that is served", ""),
    }
}

/// The chain that is served, if it can be seen, and how long it lasts.
fn server(name: &str, secret: Option<&Secret>, now: Timestamp) -> (Option<String>, Vec<Check>) {
    const NAME: &str = "server certificate";
    let fix = "the replica that leads makes it, unless --certificates says otherwise: look at its log";
    let Some(secret) = secret else {
        let says = format!("there is no Secret {name}; with certificates from files that is as it should be");
        return (None, vec![Check::advised(NAME, false, says, fix)]);
    };
    let entry = |key: &str| secret.data.as_ref()?.get(key).map(|v| String::from_utf8_lossy(&v.0).into_owned());
    let Some(chain) = entry("tls.crt") else {
        return (None, vec![Check::required(NAME, false, format!("Secret {name} has no tls.crt"), fix)]);
    };
    let mut checks = vec![lasts(NAME, &chain, fix, now)];
    if let Some(ca) = entry("ca.crt") {
        checks.push(lasts("CA", &ca, "docs/certificates.md, Rotation", now));
    }
    (Some(chain), checks)
}

/// The first certificate of a PEM text: the leaf, or the CA in use.
fn lasts(name: &str, pem: &str, fix: &str, now: Timestamp) -> Check {
    let certificate = match inspect(pem) {
        Ok(mut found) => found.swap_remove(0),
        Err(error) => return Check::required(name, false, error.to_string(), fix),
    };
    let until = format!("until {:.0}", certificate.not_after);
    match () {
        () if certificate.not_after <= now => {
            Check::required(name, false, format!("expired: it was valid {until}"), fix)
        }
        () if now < certificate.not_before => {
            Check::required(name, false, format!("not valid before {:.0}", certificate.not_before), fix)
        }
        () if certificate.overdue_at <= now => {
            Check::advised(name, false, format!("valid {until}, and should have been renewed by now"), fix)
        }
        () => Check::required(name, true, format!("valid {until}"), fix),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use handoff_certs::{CertsConfig, Material};
    use jiff::SignedDuration;
    use k8s_openapi::ByteString;
    use std::collections::BTreeSet;

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn material() -> Material {
        let config = CertsConfig::new("handoff-system", "certs", vec!["handoff-webhook.handoff-system.svc".into()]);
        Material::create(&config, now()).unwrap()
    }

    fn webhooks(bundle: Option<&str>) -> Vec<Webhook> {
        let one = |name: &&str| Webhook {
            name: (*name).to_owned(),
            ignores: true,
            bundle: bundle.map(ToOwned::to_owned),
            namespace: Some("handoff-system".into()),
        };
        VALIDATING.iter().map(one).collect()
    }

    /// Names of the checks that do not hold.
    fn wrong(found: Option<Vec<Webhook>>, chain: Option<&str>) -> Vec<String> {
        let checks = configuration("validating", &VALIDATING, found, "handoff-system", chain, now());
        checks.into_iter().filter(|c| c.state == State::Failed).map(|c| c.name).collect()
    }

    #[test]
    fn every_webhook_is_there_fails_open_and_verifies_us() {
        let ours = material();
        let (bundle, chain) = (ours.bundle_pem(), ours.server().chain_pem());
        assert_eq!(wrong(Some(webhooks(Some(&bundle))), Some(&chain)), [""; 0]);
        assert_eq!(wrong(None, Some(&chain)), ["validating webhooks"]);
        let bundle_check = "caBundle of validating webhooks";
        assert_eq!(wrong(Some(webhooks(None)), Some(&chain)), [bundle_check]);
        assert_eq!(wrong(Some(webhooks(Some("garbage"))), None), [bundle_check]);
        assert_eq!(wrong(Some(webhooks(Some(&material().bundle_pem()))), Some(&chain)), [bundle_check], "another CA");
        let mut less = webhooks(Some(&bundle));
        less.pop();
        less[0].ignores = false;
        less[1].namespace = Some("elsewhere".into());
        assert_eq!(
            wrong(Some(less), Some(&chain)),
            ["validating webhooks", "failurePolicy of validating webhooks", "Service of validating webhooks"]
        );
    }

    #[test]
    fn how_long_the_certificates_last() {
        let ours = material();
        let data = [("tls.crt", ours.server().chain_pem()), ("ca.crt", ours.bundle_pem())];
        let data = data.map(|(key, text)| (key.to_owned(), ByteString(text.into_bytes())));
        let secret = Secret { data: Some(data.into()), ..Secret::default() };
        let states = |days: i64| {
            let (chain, checks) = server("certs", Some(&secret), now() + SignedDuration::from_hours(24 * days));
            assert!(chain.is_some());
            checks.into_iter().map(|c| c.state).collect::<Vec<_>>()
        };
        // 90 days; a CA of ten years
        assert_eq!(states(1), [State::Ok, State::Ok]);
        assert_eq!(states(80), [State::Warning, State::Ok]);
        assert_eq!(states(91), [State::Failed, State::Ok]);
        assert_eq!(states(-10), [State::Failed, State::Failed], "made with a clock that was wrong");
        assert_eq!(server("certs", None, now()).1[0].state, State::Warning);
        assert_eq!(server("certs", Some(&Secret::default()), now()).1[0].state, State::Failed);
    }

    #[test]
    fn the_webhooks_are_those_that_are_deployed() {
        let deployed = include_str!("../../../../deploy/kustomize/webhooks.yaml");
        let names = deployed.lines().filter_map(|line| line.strip_prefix("- name: "));
        let names = names.filter(|name| name.ends_with(".volumehandoff.io")).collect::<BTreeSet<_>>();
        assert_eq!(names, MUTATING.iter().chain(&VALIDATING).copied().collect());
    }
}
