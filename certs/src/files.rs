//! Certificates from a directory. A mounted Secret is a directory of links into `..data`, itself a link that the kubelet
//! turns over to a new directory when the Secret changes: all files are read from the directory it names at one moment.

use crate::{
    Error,
    authority::{CA_CERT, TLS_CERT, TLS_KEY},
    identity::External,
};
use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

/// Largest file that is read, in bytes.
const LONGEST: u64 = 1 << 20;
/// Where a kubelet keeps the files of the moment.
const DATA: &str = "..data";

/// Reads `tls.crt`, `tls.key` and `ca.crt` in `dir`. Fails with [`Error::Directory`], also if the files are just being
/// replaced one by one.
pub(crate) fn load(dir: &Path, name: &str) -> Result<External, Error> {
    let failed = |error| Error::Directory { path: dir.to_owned(), source: Box::new(error) };
    let mut at = now(dir).map_err(failed)?;
    loop {
        let [ca, tls, key] = [CA_CERT, TLS_CERT, TLS_KEY].map(|entry| read(&at, entry));
        let read = ca.and_then(|ca| External::parse(&ca, &tls?, &key?, name));
        let after = now(dir).map_err(failed)?;
        if read.is_ok() || at == after {
            return read.map_err(failed);
        }
        // the Secret changed while we read
        at = after;
    }
}

fn now(dir: &Path) -> Result<PathBuf, Error> {
    match dir.join(DATA).canonicalize() {
        Ok(data) => Ok(data),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(dir.to_owned()),
        Err(error) => Err(Error::unusable(DATA, error.to_string())),
    }
}

fn read(dir: &Path, entry: &'static str) -> Result<Zeroizing<String>, Error> {
    let failed = |error: io::Error| Error::unusable(entry, error.to_string());
    // room for a file of ordinary size, so that no copy of a key is left behind by growing
    let mut text = Zeroizing::new(String::with_capacity(16 << 10));
    let file = File::open(dir.join(entry)).map_err(failed)?;
    file.take(LONGEST + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > LONGEST {
        return Err(Error::unusable(entry, format!("is larger than {LONGEST} bytes")));
    }
    Ok(text)
}
