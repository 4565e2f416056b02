//! Certificates and keys as PEM, alone and as the Secrets hold them.

use handoff_certs::{Identity, read_external_secret, read_own_secret};
use k8s_openapi::{ByteString, api::core::v1::Secret};

/// The entries of a Secret, in the order of the parts.
const ENTRIES: [&str; 5] = ["tls.crt", "tls.key", "ca.crt", "ca.key", "next-ca.key"];
/// Whom the server certificate is to be for.
const NAME: &str = "handoff.test";

/// A chain and a key, then a CA, its key and the next one's, apart at lines that say `---`: refused, or written out as
/// they were read.
///
/// # Panics
/// If that is not so.
pub fn certs(data: &[u8]) {
    let parts = parts(data);
    let [chain, key] = [0, 1].map(|at| parts.get(at).or(parts.first()).map_or("", String::as_str));
    if let Ok(identity) = Identity::parse(chain, key) {
        again(&identity);
    }
    let secret = secret(&parts);
    if let Ok(material) = read_own_secret(&secret) {
        again(material.server());
        assert!(material.bundle_pem().contains("BEGIN CERTIFICATE"), "nobody to trust");
    }
    if let Ok(server) = read_external_secret(&secret, NAME) {
        again(&server);
    }
}

fn again(identity: &Identity) {
    let again = Identity::parse(&identity.chain_pem(), identity.key_pem());
    assert!(again.is_ok(), "a chain that was read is not read again");
}

fn parts(data: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(data).split("\n---\n").map(ToOwned::to_owned).collect()
}

fn secret(parts: &[String]) -> Secret {
    let entries = ENTRIES.into_iter().zip(parts);
    let data = entries.map(|(name, part)| (name.to_owned(), ByteString(part.as_bytes().to_vec()))).collect();
    Secret { data: Some(data), ..Secret::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_corpus_has_secrets_that_are_read_and_one_that_is_not() {
        for (seed, own, external) in [
            (include_bytes!("../corpus/certs/secret").as_slice(), true, true),
            (include_bytes!("../corpus/certs/secret-with-next-ca"), true, true),
            (include_bytes!("../corpus/certs/from-cert-manager"), false, true),
            (include_bytes!("../corpus/certs/secret-of-another-ca"), false, true),
        ] {
            let secret = secret(&parts(seed));
            let read = (read_own_secret(&secret).map(drop), read_external_secret(&secret, NAME).map(drop));
            assert_eq!((read.0.is_ok(), read.1.is_ok()), (own, external), "{read:?}");
        }
    }
}
