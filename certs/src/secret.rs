//! The two Secrets. Only the replica that leads writes them. That there is one leader is not relied on: the first to create
//! wins, and an update carries the resourceVersion of what was read.

use crate::{
    CertsConfig, Error, Identity, Material,
    authority::{CA_CERT, CA_KEY, Entries, NEXT_CA_KEY, Permits, TLS_CERT, TLS_KEY},
    identity::External,
};
use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api, Client, ResourceExt,
    api::{ObjectMeta, PostParams},
};
use std::collections::BTreeMap;
use zeroize::Zeroize;

const ATTEMPTS: usize = 5;
const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "handoff");

/// The certificates all replicas share, made now if there are none, and brought to what they should be by `now`.
///
/// Fails with [`Error::Corrupt`] if the Secret holds something else; it is then left as it is.
pub(crate) async fn settle(
    client: &Client,
    config: &CertsConfig,
    now: Timestamp,
    mut permits: impl FnMut(&Material) -> Permits,
) -> Result<Material, Error> {
    config.validate()?;
    let store = Store::new(client, &config.namespace, &config.secret_name);
    for _ in 0..ATTEMPTS {
        let stored = store.read().await?;
        let held = stored.as_ref().map(|held| store.judge(material(&held.0))).transpose()?;
        let wanted = match held {
            None => Material::create(config, now)?,
            Some(held) => held.renewed(config, now, permits(&held))?.unwrap_or(held),
        };
        if store.write(stored, server_data(&wanted)).await? {
            return Ok(wanted);
        }
    }
    Err(store.contended())
}

/// The certificates as they stand in the Secret.
pub(crate) async fn read(client: &Client, config: &CertsConfig) -> Result<Material, Error> {
    let store = Store::new(client, &config.namespace, &config.secret_name);
    let secret = store.read().await?.ok_or_else(|| store.missing("the leading replica"))?;
    store.judge(material(&secret.0))
}

/// What cert-manager has written.
pub(crate) async fn read_external(client: &Client, config: &CertsConfig, name: &str) -> Result<External, Error> {
    let store = Store::new(client, &config.namespace, &config.secret_name);
    let secret =
        store.read().await?.ok_or_else(|| store.missing("cert-manager, from the Certificate of that name,"))?;
    store.judge(external(&secret.0, name))
}

/// What our own Secret holds. Fails with [`Error::Unusable`].
pub fn read_own_secret(secret: &Secret) -> Result<Material, Error> {
    material(secret)
}

/// The server certificate for `name` that a Secret of cert-manager's holds. Fails with [`Error::Unusable`].
pub fn read_external_secret(secret: &Secret, name: &str) -> Result<Identity, Error> {
    external(secret, name).map(|found| found.server)
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
        let held = stored.as_ref().map(|held| store.judge(identity(&held.0))).transpose()?;
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

/// One Secret by name.
struct Store {
    api: Api<Secret>,
    namespace: String,
    name: String,
}

/// Values by key. A key without a value is to be absent.
type Data = BTreeMap<&'static str, Option<ByteString>>;

/// A Secret whose values are wiped from memory when dropped.
struct Held(Secret);

impl Drop for Held {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

/// Overwrites every value and leaves none; that the bytes are written over is the promise of `zeroize`.
fn wipe(secret: &mut Secret) {
    secret.data.iter_mut().flatten().for_each(|(_, value)| value.0.zeroize());
}

impl Store {
    fn new(client: &Client, namespace: &str, name: &str) -> Self {
        let api = Api::namespaced(client.clone(), namespace);
        Self { api, namespace: namespace.to_owned(), name: name.to_owned() }
    }

    async fn read(&self) -> Result<Option<Held>, Error> {
        Ok(self.api.get_opt(&self.name).await.map_err(Error::api(self.action("read")))?.map(Held))
    }

    /// Brings the Secret from what was read to holding `data`. False if another was quicker: read again.
    async fn write(&self, stored: Option<Held>, data: Data) -> Result<bool, Error> {
        let gone_is_a_race = stored.is_some();
        if stored.as_ref().is_some_and(|held| holds(&held.0, &data)) {
            return Ok(true);
        }
        let mut wanted = stored.unwrap_or_else(|| self.fresh());
        let entries = wanted.0.data.get_or_insert_default();
        for (key, value) in data {
            match value {
                Some(value) => entries.insert(key.to_owned(), value),
                None => entries.remove(key),
            }
            .iter_mut()
            .for_each(|old| old.0.zeroize());
        }
        let written = if gone_is_a_race {
            self.api.replace(&self.name, &PostParams::default(), &wanted.0).await
        } else {
            self.api.create(&PostParams::default(), &wanted.0).await
        };
        match written.map(Held) {
            Ok(held) => {
                let version = held.0.resource_version();
                tracing::info!(namespace = self.namespace, secret = self.name, version, "certificates written");
                Ok(true)
            }
            // another replica created or changed it in between, or someone deleted it
            Err(kube::Error::Api(status)) if status.code == 409 || status.code == 404 && gone_is_a_race => Ok(false),
            Err(error) => Err(Error::api(self.action("write"))(error)),
        }
    }

    fn fresh(&self) -> Held {
        let (label, value) = MANAGED_BY;
        let metadata = ObjectMeta {
            name: Some(self.name.clone()),
            namespace: Some(self.namespace.clone()),
            labels: Some(BTreeMap::from([(label.to_owned(), value.to_owned())])),
            ..ObjectMeta::default()
        };
        Held(Secret { metadata, type_: Some("Opaque".to_owned()), ..Secret::default() })
    }

    fn judge<T>(&self, held: Result<T, Error>) -> Result<T, Error> {
        let (namespace, name) = (self.namespace.clone(), self.name.clone());
        held.map_err(|error| Error::Corrupt { namespace, name, source: Box::new(error) })
    }

    fn missing(&self, maker: &'static str) -> Error {
        Error::Missing { namespace: self.namespace.clone(), name: self.name.clone(), maker }
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
    data.iter().all(|(key, value)| held.and_then(|held| held.get(*key)) == value.as_ref())
}

fn material(secret: &Secret) -> Result<Material, Error> {
    let next = secret.data.as_ref().is_some_and(|data| data.contains_key(NEXT_CA_KEY));
    Material::parse(Entries {
        ca_cert: entry(secret, CA_CERT)?,
        ca_key: entry(secret, CA_KEY)?,
        next_ca_key: next.then(|| entry(secret, NEXT_CA_KEY)).transpose()?,
        tls_cert: entry(secret, TLS_CERT)?,
        tls_key: entry(secret, TLS_KEY)?,
    })
}

fn external(secret: &Secret, name: &str) -> Result<External, Error> {
    External::parse(entry(secret, CA_CERT)?, entry(secret, TLS_CERT)?, entry(secret, TLS_KEY)?, name)
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
    Data::from([
        (CA_CERT, Some(bytes(&material.ca_pem()))),
        (CA_KEY, Some(bytes(material.ca_key_pem()))),
        (NEXT_CA_KEY, material.next_ca_key_pem().map(bytes)),
        (TLS_CERT, Some(bytes(&server.chain_pem()))),
        (TLS_KEY, Some(bytes(server.key_pem()))),
    ])
}

fn client_data(material: &Material, client: &Identity) -> Data {
    let entries = [
        (CA_CERT, bytes(&material.bundle_pem())),
        (TLS_CERT, bytes(&client.chain_pem())),
        (TLS_KEY, bytes(client.key_pem())),
    ];
    entries.into_iter().map(|(key, value)| (key, Some(value))).collect()
}

fn bytes(text: &str) -> ByteString {
    ByteString(text.as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_outlives_its_secret() {
        let entries = [CA_CERT, CA_KEY, TLS_KEY].map(|key| (key.to_owned(), bytes("secret")));
        let mut secret = Secret { data: Some(entries.into()), ..Secret::default() };
        wipe(&mut secret);
        let left = secret.data.unwrap();
        assert_eq!(left.len(), 3);
        assert!(left.values().all(|value| value.0.is_empty()), "{:?}", left.keys());
    }
}
