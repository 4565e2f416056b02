//! The two Secrets. Any number of replicas may come here at once: the first to create wins, the others read; an update
//! carries the resourceVersion of what was read.

use crate::{
    CertsConfig, Error, Identity, Material,
    authority::{CA_CERT, CA_KEY, TLS_CERT, TLS_KEY},
};
use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api, Client, ResourceExt,
    api::{ObjectMeta, PostParams},
};
use std::collections::BTreeMap;

const ATTEMPTS: usize = 5;
const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "handoff");

/// The certificates all replicas share, made now if there are none. Also renews what has expired, so that a cluster
/// that was off for months comes up again. Safe for every replica at any time.
///
/// Fails with [`Error::Corrupt`] if the Secret holds something else; it is then left as it is.
pub async fn ensure(client: &Client, config: &CertsConfig, now: Timestamp) -> Result<Material, Error> {
    settle(client, config, now, |material| material.is_expired(now)).await
}

/// As [`ensure`], and renews what has become due.
pub(crate) async fn renew(client: &Client, config: &CertsConfig, now: Timestamp) -> Result<Material, Error> {
    settle(client, config, now, |_| true).await
}

/// The certificates as they stand in the Secret.
pub(crate) async fn read(client: &Client, config: &CertsConfig) -> Result<Material, Error> {
    let store = Store::new(client, &config.namespace, &config.secret_name);
    let secret = store.read().await?.ok_or_else(|| store.missing())?;
    store.judge(material(&secret))
}

/// kube-scheduler's Secret: its client certificate for the extender, and the CAs to verify the extender with. Renewed
/// when two thirds of its life are over, when it is not from the current CA and when the CAs change.
pub async fn ensure_scheduler(
    client: &Client,
    config: &CertsConfig,
    material: &Material,
    now: Timestamp,
) -> Result<(), Error> {
    config.validate()?;
    let store = Store::new(client, &config.namespace, &config.scheduler_secret_name());
    for _ in 0..ATTEMPTS {
        let stored = store.read().await?;
        let held = stored.as_ref().map(|secret| store.judge(identity(secret))).transpose()?;
        let identity = match held {
            Some(held) if !material.client_is_due(&held, now) => held,
            _ => material.client(config, now)?,
        };
        if store.write(stored, client_data(material, &identity)).await? {
            return Ok(());
        }
    }
    Err(store.contended())
}

async fn settle(
    client: &Client,
    config: &CertsConfig,
    now: Timestamp,
    may_renew: impl Fn(&Material) -> bool,
) -> Result<Material, Error> {
    config.validate()?;
    let store = Store::new(client, &config.namespace, &config.secret_name);
    for _ in 0..ATTEMPTS {
        let stored = store.read().await?;
        let held = stored.as_ref().map(|secret| store.judge(material(secret))).transpose()?;
        let wanted = match held {
            None => Material::create(config, now)?,
            Some(held) if may_renew(&held) => held.renewed(config, now)?.unwrap_or(held),
            Some(held) => held,
        };
        if store.write(stored, server_data(&wanted)).await? {
            return Ok(wanted);
        }
    }
    Err(store.contended())
}

/// One Secret by name.
struct Store {
    api: Api<Secret>,
    namespace: String,
    name: String,
}

type Data = BTreeMap<String, ByteString>;

impl Store {
    fn new(client: &Client, namespace: &str, name: &str) -> Self {
        let api = Api::namespaced(client.clone(), namespace);
        Self { api, namespace: namespace.to_owned(), name: name.to_owned() }
    }

    async fn read(&self) -> Result<Option<Secret>, Error> {
        self.api.get_opt(&self.name).await.map_err(Error::api(self.action("read")))
    }

    /// Brings the Secret from what was read to holding `data`. False if another was quicker: read again.
    async fn write(&self, stored: Option<Secret>, data: Data) -> Result<bool, Error> {
        let gone_is_a_race = stored.is_some();
        let written = match stored {
            None => self.api.create(&PostParams::default(), &self.fresh(data)).await,
            Some(secret) if holds(&secret, &data) => return Ok(true),
            Some(mut secret) => {
                secret.data.get_or_insert_default().extend(data);
                self.api.replace(&self.name, &PostParams::default(), &secret).await
            }
        };
        match written {
            Ok(secret) => {
                let version = secret.resource_version();
                tracing::info!(namespace = self.namespace, secret = self.name, version, "certificates written");
                Ok(true)
            }
            // another replica created or changed it in between, or someone deleted it
            Err(kube::Error::Api(status)) if status.code == 409 || status.code == 404 && gone_is_a_race => Ok(false),
            Err(error) => Err(Error::api(self.action("write"))(error)),
        }
    }

    fn fresh(&self, data: Data) -> Secret {
        let (label, value) = MANAGED_BY;
        let metadata = ObjectMeta {
            name: Some(self.name.clone()),
            namespace: Some(self.namespace.clone()),
            labels: Some(BTreeMap::from([(label.to_owned(), value.to_owned())])),
            ..ObjectMeta::default()
        };
        Secret { metadata, type_: Some("Opaque".to_owned()), data: Some(data), ..Secret::default() }
    }

    fn judge<T>(&self, held: Result<T, Error>) -> Result<T, Error> {
        let (namespace, name) = (self.namespace.clone(), self.name.clone());
        held.map_err(|error| Error::Corrupt { namespace, name, source: Box::new(error) })
    }

    fn missing(&self) -> Error {
        Error::Missing { namespace: self.namespace.clone(), name: self.name.clone() }
    }

    fn contended(&self) -> Error {
        Error::Contended { action: self.action("write") }
    }

    fn action(&self, verb: &str) -> String {
        format!("{verb} Secret {}/{}", self.namespace, self.name)
    }
}

fn holds(secret: &Secret, data: &Data) -> bool {
    let held = secret.data.as_ref();
    data.iter().all(|(key, value)| held.and_then(|held| held.get(key)) == Some(value))
}

fn material(secret: &Secret) -> Result<Material, Error> {
    let [ca, ca_key, tls, tls_key] = [CA_CERT, CA_KEY, TLS_CERT, TLS_KEY].map(|key| entry(secret, key));
    Material::parse(ca?, ca_key?, tls?, tls_key?)
}

fn identity(secret: &Secret) -> Result<Identity, Error> {
    Identity::parse(entry(secret, TLS_CERT)?, entry(secret, TLS_KEY)?)
}

fn entry<'a>(secret: &'a Secret, key: &'static str) -> Result<&'a str, Error> {
    let value = secret.data.as_ref().and_then(|data| data.get(key));
    let value = value.ok_or_else(|| Error::unusable(key, "is missing"))?;
    std::str::from_utf8(&value.0).map_err(|_| Error::unusable(key, "is not text"))
}

fn server_data(material: &Material) -> Data {
    let server = material.server();
    data([
        (CA_CERT, material.ca_pem()),
        (CA_KEY, material.ca_key_pem().to_owned()),
        (TLS_CERT, server.chain_pem()),
        (TLS_KEY, server.key_pem().to_owned()),
    ])
}

fn client_data(material: &Material, client: &Identity) -> Data {
    data([(CA_CERT, material.ca_pem()), (TLS_CERT, client.chain_pem()), (TLS_KEY, client.key_pem().to_owned())])
}

fn data<const N: usize>(entries: [(&str, String); N]) -> Data {
    entries.into_iter().map(|(key, value)| (key.to_owned(), ByteString(value.into_bytes()))).collect()
}
