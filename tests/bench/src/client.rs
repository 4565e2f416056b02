//! A client of one keep-alive connection that does no more than send bytes made before and read the answer, so that
//! what is measured is the server.

use anyhow::{Context, ensure};
use rustls::{ClientConfig, RootCertStore, ServerConfig, crypto::ring, pki_types::ServerName};
use std::{net::SocketAddr, sync::Arc};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

const NAME: &str = "handoff.test";

/// A certificate for this run, as the server presents it and as the client trusts it.
pub fn tls() -> anyhow::Result<(Arc<ServerConfig>, Arc<ClientConfig>)> {
    let provider = Arc::new(ring::default_provider());
    let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).context("cannot make a certificate")?;
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let mut server = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())?;
    // kube-apiserver and kube-scheduler speak HTTP/1.1 to webhooks and extenders
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone())?;
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok((Arc::new(server), Arc::new(client)))
}

/// An HTTP/1.1 request, ready to send.
pub fn request(path: &str, body: &[u8]) -> Vec<u8> {
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nhost: {NAME}\r\nuser-agent: bench\r\naccept: application/json, */*\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

/// One open connection.
pub struct Connection {
    stream: TlsStream<TcpStream>,
    received: Vec<u8>,
    filled: usize,
}

impl Connection {
    /// Connects and shakes hands.
    pub async fn open(address: SocketAddr, tls: &Arc<ClientConfig>) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await.context("cannot connect")?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(NAME)?;
        let stream = TlsConnector::from(tls.clone()).connect(name, stream).await.context("no TLS")?;
        Ok(Self { stream, received: vec![0; 64 << 10], filled: 0 })
    }

    /// Sends a request and waits for the whole answer. Fails unless the status is 200.
    pub async fn call(&mut self, request: &[u8]) -> anyhow::Result<&[u8]> {
        self.stream.write_all(request).await?;
        self.stream.flush().await?;
        self.filled = 0;
        let head = loop {
            if let Some(at) = find(&self.received[..self.filled], b"\r\n\r\n") {
                break at + 4;
            }
            self.receive().await?;
        };
        ensure!(self.received.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&self.received[..head]));
        let length = content_length(&self.received[..head]).context("no content-length")?;
        while self.filled < head + length {
            self.receive().await?;
        }
        Ok(&self.received[head..head + length])
    }

    async fn receive(&mut self) -> anyhow::Result<()> {
        if self.filled == self.received.len() {
            self.received.resize(2 * self.filled, 0);
        }
        let read = self.stream.read(&mut self.received[self.filled..]).await?;
        ensure!(read > 0, "the server closed the connection");
        self.filled += read;
        Ok(())
    }
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|part| part == wanted)
}

fn content_length(head: &[u8]) -> Option<usize> {
    let head = std::str::from_utf8(head).ok()?;
    head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok())
}
