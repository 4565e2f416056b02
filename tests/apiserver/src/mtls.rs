//! One call to the extender's port, as kube-scheduler or as somebody else.

use anyhow::{Context, Result};
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
use tokio_rustls::TlsConnector;

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
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(ca.join("ca.crt")).context("ca.crt")? {
        roots.add(root.context("ca.crt")?).context("ca.crt")?;
    }
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
    let stream = TcpStream::connect(("127.0.0.1", port)).await.context("no listener")?;
    let name = ServerName::try_from("handoff-extender.handoff-system.svc").context("bad name")?;
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.context("handshake")?;
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
