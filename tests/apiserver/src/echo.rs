//! An extender that answers at once and knows nothing: every node passes, none is better than another. What it costs a
//! scheduler is what asking any extender costs.

use crate::{
    bench::{Bench, SOON},
    http::eventually,
    process::{Process, free_port},
};
use anyhow::{Context, Result};
use axum::{Router, routing::post, serve::Listener};
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use std::{
    ffi::OsStr,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// The name by which the scheduler knows its extender.
const SERVER: &str = "handoff-extender.handoff-system.svc";

/// It runs, as a process of its own so that it can be kept on a core and its CPU counted.
pub struct Echo {
    /// The process.
    pub process: Process,
    port: u16,
    certificate: PathBuf,
}

impl Echo {
    /// Starts it with a certificate of its own; clients need one of the CA in `files`, the scheduler's.
    pub async fn start(bench: &Bench, files: &Path) -> Result<Self> {
        let key = KeyPair::generate()?;
        let own = CertificateParams::new([SERVER.to_owned()])?.self_signed(&key)?;
        let (certificate, key_file) = (bench.plane.path("echo.crt"), bench.plane.path("echo.key"));
        std::fs::write(&certificate, own.pem()).context("echo.crt")?;
        std::fs::write(&key_file, key.serialize_pem()).context("echo.key")?;
        let port = free_port()?;
        let mut arguments = ["echo".to_owned(), port.to_string()].to_vec();
        arguments.extend([&certificate, &key_file, &files.join("ca.crt")].map(|path| path.display().to_string()));
        let program = std::env::current_exe().context("which program is this?")?;
        // named, as every command wants them, and not used
        let paths = ["HANDOFF_KUBERNETES", "HANDOFF_LONGHORN_CRDS", "HANDOFF_BINARY"].map(|p| (p, OsStr::new("-")));
        let mut process = Process::start("echo", &bench.plane.logs(), &program, &arguments, &paths)?;
        let listens = eventually(SOON, async || {
            process.check()?;
            Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.ok())
        });
        listens.await?.context("the extender that does nothing does not listen")?;
        Ok(Self { process, port, certificate })
    }

    /// The scheduler's configuration with this one in place of the extender at port `of`.
    pub fn instead(&self, config: &str, of: u16, files: &Path) -> String {
        let ca = files.join("ca.crt").display().to_string();
        config
            .replace(&ca, &self.certificate.display().to_string())
            .replace(&format!(":{of}"), &format!(":{}", self.port))
    }
}

/// The process itself: HTTP/1.1 over TLS, with client certificates, as Handoff's extender.
pub async fn serve(port: u16, certificate: &Path, key: &Path, clients: &Path) -> Result<()> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(clients).context("ca.crt")? {
        roots.add(root.context("ca.crt")?).context("ca.crt")?;
    }
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().context("ca.crt")?;
    let chain = vec![CertificateDer::from_pem_file(certificate).context("echo.crt")?];
    let key = PrivateKeyDer::from_pem_file(key).context("echo.key")?;
    let mut config =
        ServerConfig::builder().with_client_cert_verifier(verifier).with_single_cert(chain, key).context("echo.crt")?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.context("no port")?;
    // a node that is in no list of scores has 0
    let router = Router::new().route("/filter", post(filter)).route("/prioritize", post(async || "[]"));
    axum::serve(Tls { listener, acceptor: TlsAcceptor::from(Arc::new(config)) }, router).await.context("serving")
}

/// `NodeNames` is the last of what the scheduler sends.
async fn filter(question: String) -> String {
    let names = question.rsplit_once(r#""NodeNames":"#).map_or("null}", |(_, names)| names);
    format!(r#"{{"NodeNames":{names}"#)
}

struct Tls {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            // one scheduler, one connection after the other: nobody waits for somebody else's handshake
            let Ok((stream, peer)) = self.listener.accept().await else { continue };
            let _ = stream.set_nodelay(true);
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, peer);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}
