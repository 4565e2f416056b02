//! Who makes the server certificate.

use crate::Error;
use std::{fmt, path::PathBuf, str::FromStr};

/// Who makes the server certificate, and so who looks after the `caBundle` of the webhook configurations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// We do: a CA of our own in the Secret, which the leading replica makes, renews and publishes.
    #[default]
    Own,
    /// cert-manager: it writes the Secret, its cainjector the `caBundle`. We only read.
    CertManager,
    /// Files `tls.crt`, `tls.key` and `ca.crt` in this directory, a mounted Secret for instance. We only read.
    Files(PathBuf),
}

const OWN: &str = "own";
const CERT_MANAGER: &str = "cert-manager";
const FILES: &str = "files:";

impl Source {
    /// Checks what can be checked before anything starts. Fails with [`Error::Config`].
    pub fn validate(&self) -> Result<(), Error> {
        match self {
            Self::Own | Self::CertManager => Ok(()),
            Self::Files(dir) if dir.is_absolute() && dir.is_dir() => Ok(()),
            Self::Files(_) => Err(self.invalid("not the absolute path of a directory that is there")),
        }
    }

    fn invalid(&self, problem: &str) -> Error {
        Error::Config { field: "source", value: self.to_string(), problem: problem.to_owned() }
    }
}

impl FromStr for Source {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            OWN => Ok(Self::Own),
            CERT_MANAGER => Ok(Self::CertManager),
            _ => text.strip_prefix(FILES).map(|dir| Self::Files(dir.into())).ok_or_else(|| Error::Config {
                field: "source",
                value: text.to_owned(),
                problem: format!("must be {OWN}, {CERT_MANAGER} or {FILES}DIRECTORY"),
            }),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own => f.write_str(OWN),
            Self::CertManager => f.write_str(CERT_MANAGER),
            Self::Files(dir) => write!(f, "{FILES}{}", dir.display()),
        }
    }
}
