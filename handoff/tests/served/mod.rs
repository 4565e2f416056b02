//! A router behind the listener that serves it, with certificates of our own, and a client that speaks HTTP byte by byte.

use axum::Router;
use handoff::listen::{Limits, serve_tls};
use handoff_certs::{CertsConfig, Error, Identity, Material, Serving};
use jiff::Timestamp;
use rustls::{ClientConfig, ServerConfig, crypto::ring, pki_types::ServerName};
use std::{io, net::SocketAddr, sync::Arc};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

pub type Stream = TlsStream<TcpStream>;

pub struct Server {
    address: SocketAddr,
    pub config: CertsConfig,
    pub material: Material,
    _stop: watch::Sender<bool>,
}

impl Server {
    pub async fn start(
        tls: impl FnOnce(Serving) -> Result<Arc<ServerConfig>, Error>,
        router: Router,
        limits: Limits,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let config = CertsConfig::new("ns", "certs", vec!["localhost".to_owned()]);
        let material = Material::create(&config, Timestamp::now()).unwrap();
        let serving = Serving::default();
        serving.load(&material, Timestamp::now()).unwrap();
        let (stop, shutdown) = watch::channel(false);
        tokio::spawn(serve_tls(listener, tls(serving).unwrap(), router, limits, shutdown));
        Self { address, config, material, _stop: stop }
    }

    /// With the scheduler's certificate, which a server that asks for none does not get to see.
    pub async fn connect(&self) -> Stream {
        let client = self.material.client(&self.config, Timestamp::now()).unwrap();
        self.connect_as(Some(&client)).await.unwrap()
    }

    pub async fn connect_as(&self, client: Option<&Identity>) -> io::Result<Stream> {
        let roots = self.material.trusted(Timestamp::now()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
        let config = match client {
            Some(client) => {
                let key = rustls::pki_types::pem::PemObject::from_pem_slice(client.key_pem().as_bytes()).unwrap();
                builder.with_client_auth_cert(client.chain(), key).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        let stream = TcpStream::connect(self.address).await?;
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await
    }
}

/// Sends a request that says to be of this length, and as much of its body as is given.
pub async fn send(stream: &mut Stream, path: &str, length: usize, body: &[u8]) -> io::Result<()> {
    let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body).await?;
    stream.flush().await
}

/// Status and body of the answer.
pub async fn answer(stream: &mut Stream) -> io::Result<(u16, String)> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        head.push(stream.read_u8().await?.into());
    }
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let lower = head.to_lowercase();
    let length = lower.split("content-length: ").nth(1).map_or("0", |rest| rest.split("\r\n").next().unwrap());
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).await?;
    Ok((status, String::from_utf8(body).unwrap()))
}
