//! What can go wrong with certificates.

use jiff::Timestamp;
use std::path::PathBuf;

/// Everything this crate fails with. No message holds key material.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting that cannot work.
    #[error("certificates: {field} = {value:?}: {problem}")]
    Config {
        /// Name of the field of [`crate::CertsConfig`].
        field: &'static str,
        /// What it is set to.
        value: String,
        /// What is wrong with it.
        problem: String,
    },
    /// One entry of a Secret cannot be used.
    #[error("{entry}: {problem}")]
    Unusable {
        /// Key in the Secret's data, e.g. `tls.crt`.
        entry: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The Secret is there, but what it holds cannot be used. It is never overwritten: someone may have put it there.
    #[error(
        "Secret {namespace}/{name} cannot be used: {source}. It is left as it is. Correct it, or remove it with \
         `kubectl -n {namespace} delete secret {name}`: a new one is then made"
    )]
    Corrupt {
        /// The Secret's namespace.
        namespace: String,
        /// The Secret's name.
        name: String,
        /// Which entry, and why.
        source: Box<Error>,
    },
    /// The certificate has run out.
    #[error("the certificate expired at {at} and was not renewed; the one in use before stays in use")]
    Expired {
        /// End of its validity.
        at: Timestamp,
    },
    /// The certificate's validity has not begun: a clock is wrong, here or where it was made.
    #[error(
        "the certificate is valid from {at} and it is {now}: a clock is wrong; the certificate in use before stays"
    )]
    NotYetValid {
        /// Start of its validity.
        at: Timestamp,
        /// What is taken for now.
        now: Timestamp,
    },
    /// The certificate in use should have been renewed long ago.
    #[error("the certificate runs out at {at} and nothing has renewed it")]
    Overdue {
        /// End of its validity.
        at: Timestamp,
    },
    /// The CA is not within its dates.
    #[error(
        "the CA in the Secret is not valid now, at {now}; if that is not a clock being corrected, it is replaced soon"
    )]
    CaNotValid {
        /// What is taken for now.
        now: Timestamp,
    },
    /// What is in a directory cannot be used.
    #[error("directory {} cannot be used: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Which entry, and why.
        source: Box<Error>,
    },
    /// A webhook configuration whose `caBundle` does not lead to our certificate: API servers will not call us.
    #[error("API servers cannot verify us for {webhook} of {kind} {name}: {problem}")]
    Bundle {
        /// Kind of the configuration.
        kind: String,
        /// Its name.
        name: String,
        /// The webhook in it.
        webhook: String,
        /// What is wrong.
        problem: String,
    },
    /// There is no Secret.
    #[error("Secret {namespace}/{name} does not exist yet; {maker} makes it")]
    Missing {
        /// The Secret's namespace.
        namespace: String,
        /// The Secret's name.
        name: String,
        /// Who is to make it.
        maker: &'static str,
    },
    /// A time beyond what a certificate can hold.
    #[error("the time {days} days after {from} cannot be expressed")]
    Time {
        /// Start.
        from: Timestamp,
        /// Days to add.
        days: u32,
    },
    /// Making a key or a certificate failed.
    #[error("cannot issue a certificate: {0}")]
    Issue(#[from] rcgen::Error),
    /// rustls refused a certificate, a key or a configuration.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The Kubernetes API answered with an error.
    #[error("cannot {action}: {source}")]
    Api {
        /// What was tried, e.g. `read Secret a/b`.
        action: String,
        /// The answer.
        source: Box<kube::Error>,
    },
    /// A request to the Kubernetes API could not be put together.
    #[error("cannot build a patch: {0}")]
    Patch(#[from] serde_json::Error),
    /// Others kept writing the same object in between.
    #[error("cannot {action}: others changed it each time")]
    Contended {
        /// What was tried.
        action: String,
    },
    /// The API server did not answer in time.
    #[error("the API server took longer than {seconds} s")]
    Slow {
        /// The time given, in seconds.
        seconds: u64,
    },
}

impl Error {
    /// Whether trying again may help without anyone doing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Api { source, .. } => !matches!(&**source, kube::Error::Api(status) if status.is_forbidden()),
            Self::Contended { .. } | Self::Missing { .. } | Self::Slow { .. } => true,
            _ => false,
        }
    }

    pub(crate) fn unusable(entry: &'static str, problem: impl Into<String>) -> Self {
        Self::Unusable { entry, problem: problem.into() }
    }

    pub(crate) fn api(action: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let action = action.into();
        move |source| Self::Api { action, source: Box::new(source) }
    }
}
