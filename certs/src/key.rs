//! Private keys: wiped from memory when dropped, and never shown.

use crate::Error;
use rcgen::{KeyPair, PublicKeyData, SignatureAlgorithm, SigningKey};
use std::fmt;
use zeroize::Zeroizing;

/// As PEM text.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct KeyPem(Zeroizing<String>);

impl KeyPem {
    pub fn new(pem: String) -> Self {
        Self(Zeroizing::new(pem))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Ready to sign. Fails with [`Error::Issue`].
    pub fn key(&self) -> Result<Key, Error> {
        Ok(Key(Zeroizing::new(KeyPair::from_pem(self.as_str())?)))
    }
}

impl fmt::Debug for KeyPem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyPem(..)")
    }
}

/// Ready to sign.
pub(crate) struct Key(Zeroizing<KeyPair>);

impl Key {
    /// A new one, ECDSA on P-256.
    pub fn generate() -> Result<Self, Error> {
        Ok(Self(Zeroizing::new(KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?)))
    }

    pub fn pem(&self) -> KeyPem {
        KeyPem::new(self.0.serialize_pem())
    }
}

impl PublicKeyData for Key {
    fn der_bytes(&self) -> &[u8] {
        self.0.der_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.0.algorithm()
    }
}

impl SigningKey for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.0.sign(message)
    }
}
