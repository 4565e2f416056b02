//! The `caBundle` of the webhook configurations: what an API server verifies our server certificate with.

use crate::{Error, Identity, authority::verify_server, certificate::parse_all};
use jiff::Timestamp;
use k8s_openapi::{
    ByteString,
    api::admissionregistration::v1::{
        MutatingWebhookConfiguration, ValidatingWebhookConfiguration, WebhookClientConfig,
    },
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams},
};
use serde::de::DeserializeOwned;
use serde_json::json;
use std::fmt::Debug;

const ATTEMPTS: usize = 3;

/// Names of the webhook configurations whose `caBundle` is ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebhookNames {
    /// Names of `MutatingWebhookConfiguration`s.
    pub mutating: Vec<String>,
    /// Names of `ValidatingWebhookConfiguration`s.
    pub validating: Vec<String>,
}

/// How a webhook configuration was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BundleState {
    /// Every webhook in it had the bundle; nothing was written.
    Current,
    /// The bundle was written.
    Written,
    /// There is no such object.
    Absent,
}

/// Makes `ca_pem` the `caBundle` of every webhook in the named configurations. Writes only where it differs, and only
/// that field. One result per name, mutating first; a failure does not keep the others from being done.
pub async fn publish(client: &Client, names: &WebhookNames, ca_pem: &str) -> Vec<(String, Result<BundleState, Error>)> {
    let mut results = Vec::new();
    for name in &names.mutating {
        let state = ensure_bundle::<MutatingWebhookConfiguration>(client, name, ca_pem).await;
        results.push((name.clone(), state));
    }
    for name in &names.validating {
        let state = ensure_bundle::<ValidatingWebhookConfiguration>(client, name, ca_pem).await;
        results.push((name.clone(), state));
    }
    results
}

/// Whether API servers can verify `server` by the `caBundle`s that others look after: one error for each webhook for
/// which they cannot. Without a `caBundle` an API server goes by the CAs of its machine, which we do not know: that is an
/// error only if there `must` be one. Names are not looked at.
pub(crate) async fn check(
    client: &Client,
    names: &WebhookNames,
    server: &Identity,
    must: bool,
    now: Timestamp,
) -> Vec<Error> {
    let mut failures = Vec::new();
    for name in &names.mutating {
        failures.extend(check_one::<MutatingWebhookConfiguration>(client, name, server, must, now).await);
    }
    for name in &names.validating {
        failures.extend(check_one::<ValidatingWebhookConfiguration>(client, name, server, must, now).await);
    }
    failures
}

async fn check_one<K: Webhooks>(
    client: &Client,
    name: &str,
    server: &Identity,
    must: bool,
    now: Timestamp,
) -> Vec<Error> {
    let kind = K::kind(&());
    let found = match Api::<K>::all(client.clone()).get_opt(name).await {
        Ok(Some(found)) => found,
        Ok(None) => {
            tracing::warn!(%kind, name, "webhook configuration not found; no review reaches us");
            return Vec::new();
        }
        Err(error) => return vec![Error::api(format!("read {kind} {name}"))(error)],
    };
    let bad = found.clients().into_iter().zip(found.webhooks()).filter_map(|(client, webhook)| {
        let problem = verify(client, server, must, now).err()?;
        Some(Error::Bundle { kind: kind.to_string(), name: name.to_owned(), webhook: webhook.to_owned(), problem })
    });
    bad.collect()
}

fn verify(client: &WebhookClientConfig, server: &Identity, must: bool, now: Timestamp) -> Result<(), String> {
    let bundle = client.ca_bundle.as_ref().filter(|bundle| !bundle.0.is_empty());
    let Some(bundle) = bundle else {
        return if must { Err("it has no caBundle".to_owned()) } else { Ok(()) };
    };
    let roots = parse_all("caBundle", &String::from_utf8_lossy(&bundle.0)).map_err(|error| error.to_string())?;
    // an API server does look at the dates of a CA
    verify_server(server, roots.iter().filter(|root| root.is_valid(now)), now).map_err(|error| error.to_string())
}

/// The two kinds of webhook configuration.
trait Webhooks: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned {
    fn clients(&self) -> Vec<&WebhookClientConfig>;

    /// Names of the webhooks, in the same order.
    fn webhooks(&self) -> Vec<&str>;
}

impl Webhooks for MutatingWebhookConfiguration {
    fn clients(&self) -> Vec<&WebhookClientConfig> {
        self.webhooks.iter().flatten().map(|webhook| &webhook.client_config).collect()
    }

    fn webhooks(&self) -> Vec<&str> {
        self.webhooks.iter().flatten().map(|webhook| webhook.name.as_str()).collect()
    }
}

impl Webhooks for ValidatingWebhookConfiguration {
    fn clients(&self) -> Vec<&WebhookClientConfig> {
        self.webhooks.iter().flatten().map(|webhook| &webhook.client_config).collect()
    }

    fn webhooks(&self) -> Vec<&str> {
        self.webhooks.iter().flatten().map(|webhook| webhook.name.as_str()).collect()
    }
}

async fn ensure_bundle<K: Webhooks>(client: &Client, name: &str, ca_pem: &str) -> Result<BundleState, Error> {
    let api = Api::<K>::all(client.clone());
    let action = |verb: &str| format!("{verb} {} {name}", K::kind(&()));
    for _ in 0..ATTEMPTS {
        let Some(found) = api.get_opt(name).await.map_err(Error::api(action("read")))? else {
            return Ok(BundleState::Absent);
        };
        let Some(patch) = patch(&found, ca_pem)? else {
            return Ok(BundleState::Current);
        };
        match api.patch(name, &PatchParams::default(), &patch).await {
            Ok(_) => {
                tracing::info!(kind = %K::kind(&()), name, "caBundle written");
                return Ok(BundleState::Written);
            }
            // changed or deleted since it was read; a failed `test` is answered 422
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409 | 422) => {}
            Err(error) => return Err(Error::api(action("patch"))(error)),
        }
    }
    Err(Error::Contended { action: action("patch") })
}

/// Only the webhooks that differ, and only if the object is still the one that was read: places in a list mean nothing
/// once someone has changed the list. `None` if nothing differs.
fn patch<K: Webhooks>(found: &K, ca_pem: &str) -> Result<Option<Patch<()>>, Error> {
    let wanted = ByteString(ca_pem.as_bytes().to_vec());
    let clients = found.clients().into_iter().enumerate();
    let stale: Vec<_> = clients.filter(|(_, client)| client.ca_bundle.as_ref() != Some(&wanted)).collect();
    if stale.is_empty() {
        return Ok(None);
    }
    let mut operations =
        vec![json!({"op": "test", "path": "/metadata/resourceVersion", "value": found.resource_version()})];
    operations.extend(stale.into_iter().map(|(index, _)| {
        let path = format!("/webhooks/{index}/clientConfig/caBundle");
        json!({"op": "add", "path": path, "value": wanted})
    }));
    Ok(Some(Patch::Json(serde_json::from_value(operations.into())?)))
}
