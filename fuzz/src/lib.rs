//! Every decoder that reads what others send, each as one function of bytes that may panic only if something is wrong:
//! reviews on each route of the webhook, arguments on each verb of the extender, objects of Kubernetes and Longhorn
//! with their annotations and attach requests, certificates and Secrets, our own records, a node's mount table.
//!
//! libFuzzer calls them (`make fuzz`); the tests here replay the corpus, whole and damaged, with every `cargo test`.

mod caches;
mod certs;
mod mounts;
mod records;
mod served;

pub use caches::caches;
pub use certs::certs;
pub use mounts::mounts;
pub use records::records;
pub use served::{extender, serve, webhook};

#[cfg(test)]
mod tests;
