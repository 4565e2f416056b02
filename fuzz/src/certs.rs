//! Certificates and keys as PEM.

use handoff_certs::Identity;

/// A chain and a key, apart at the first line that says `---`: refused, or written out as it was read.
///
/// # Panics
/// If that is not so.
pub fn certs(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (chain, key) = text.split_once("\n---\n").unwrap_or((&text, &text));
    if let Ok(identity) = Identity::parse(chain, key) {
        let again = Identity::parse(&identity.chain_pem(), key);
        assert!(again.is_ok(), "a chain that was read is not read again");
    }
}
