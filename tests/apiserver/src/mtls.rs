//! TLS as a client: one call to the extender's port, as kube-scheduler or as somebody else, and what a port shows.

use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use std::{path::Path, sync::Arc};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// With which certificate.
#[derive(Clone, Copy, Debug)]
pub enum Client<'a> {
    /// None.
    None,
    /// One that somebody made for himself.
    Stranger,
    /// `tls.crt` and `tls.key` of this directory.
    Of(&'a Path),
}

/// Asks to filter two nodes for a pod without claims. The HTTP status; an error if there is no answer.
pub async fn call(port: u16, ca: &Path, client: Client<'_>) -> Result<u16> {
    let roots = roots(&std::fs::read(ca.join("ca.crt")).context("ca.crt")?)?;
    let config = ClientConfig::builder().with_root_certificates(roots);
    let config = match client {
        Client::None => config.with_no_client_auth(),
        Client::Stranger => {
            let key = KeyPair::generate()?;
            let own = CertificateParams::new(Vec::new())?.self_signed(&key)?;
            let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
            config.with_client_auth_cert(vec![own.der().clone()], key)?
        }
        Client::Of(directory) => {
            let chain = CertificateDer::pem_file_iter(directory.join("tls.crt")).context("tls.crt")?;
            let key = PrivateKeyDer::from_pem_file(directory.join("tls.key")).context("tls.key")?;
            config.with_client_auth_cert(chain.collect::<Result<_, _>>().context("tls.crt")?, key)?
        }
    };
    let mut stream = connect(port, "handoff-extender.handoff-system.svc", config).await?;
    let body = r#"{"Pod":{"metadata":{"name":"p","namespace":"n"},"spec":{}},"Nodes":null,"NodeNames":["a","b"]}"#;
    let head = format!(
        "POST /filter HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    // with TLS 1.3 the refusal of a certificate arrives after the client's side of the handshake is done
    stream.write_all(format!("{head}{body}").as_bytes()).await.context("request")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.context("answer")?;
    let text = String::from_utf8_lossy(&answer);
    text.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no HTTP answer")
}

/// The certificate that a webhook's port shows, verified as the API server does. `ca` is an entry of a Secret.
pub async fn shown(port: u16, ca: &str) -> Result<CertificateDer<'static>> {
    let roots = roots(&STANDARD.decode(ca).context("ca.crt")?)?;
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let stream = connect(port, "handoff-webhook.handoff-system.svc", config).await?;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    chain.first().map(|first| first.clone().into_owned()).context("no certificate shown")
}

/// Whether it is the first certificate of this entry of a Secret.
pub fn is_first_of(shown: &CertificateDer<'_>, entry: &str) -> bool {
    let pem = STANDARD.decode(entry).unwrap_or_default();
    CertificateDer::pem_slice_iter(&pem).next().is_some_and(|first| first.is_ok_and(|first| first == *shown))
}

/// Whether a `caBundle` holds all certificates of this entry of a Secret, of which there is at least one.
pub fn bundle_holds(bundle: &str, entry: &str) -> bool {
    let of = |text: &str| {
        let pem = STANDARD.decode(text).unwrap_or_default();
        CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok).collect::<Vec<_>>()
    };
    let (bundle, wanted) = (of(bundle), of(entry));
    !wanted.is_empty() && wanted.iter().all(|ca| bundle.contains(ca))
}

fn roots(pem: &[u8]) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(pem) {
        roots.add(root.context("ca.crt")?).context("ca.crt")?;
    }
    Ok(roots)
}

async fn connect(port: u16, name: &'static str, config: ClientConfig) -> Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.context("no listener")?;
    let name = ServerName::try_from(name).context("bad name")?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.context("handshake")
}
