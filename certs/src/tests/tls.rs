use super::{Hands, config, days, material, now, rotated};
use crate::{
    Error, Identity, Material, Serving, authority::Permits, issue::provider, server_config, server_config_mtls,
};
use jiff::Timestamp;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use std::{io, net::SocketAddr, sync::Arc};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream};

type Stream = TlsStream<TcpStream>;

/// Sends back what it gets, a byte at a time.
async fn echo(config: Arc<ServerConfig>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = TlsAcceptor::from(config.clone());
            tokio::spawn(async move {
                let mut stream = acceptor.accept(stream).await?;
                loop {
                    let byte = stream.read_u8().await?;
                    stream.write_u8(byte).await?;
                    stream.flush().await?;
                }
                #[allow(unreachable_code)]
                io::Result::Ok(())
            });
        }
    });
    address
}

async fn connect(address: SocketAddr, roots: RootCertStore, identity: Option<&Identity>) -> io::Result<Stream> {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let key = PrivateKeyDer::from_pem_slice(identity.key_pem().as_bytes()).unwrap();
            builder.with_client_auth_cert(identity.chain(), key).unwrap()
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = ServerName::try_from("handoff.handoff-system.svc").unwrap();
    let stream = TcpStream::connect(address).await?;
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    // a TLS 1.3 client learns only now whether its certificate was accepted
    ping(&mut stream).await?;
    Ok(stream)
}

async fn ping(stream: &mut Stream) -> io::Result<()> {
    stream.write_u8(7).await?;
    stream.flush().await?;
    assert_eq!(stream.read_u8().await?, 7);
    Ok(())
}

fn presented(stream: &Stream) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone()
}

fn leaf(material: &Material) -> CertificateDer<'static> {
    material.server().chain().remove(0)
}

fn trust(material: &Material) -> RootCertStore {
    material.trusted(now()).unwrap()
}

/// A CA that is due for rotation today, its leaf still good, and what becomes of both.
fn rotation() -> (Material, Material) {
    let born: Timestamp = now() - days(2500);
    let old = material(born).renewed(&config(), born + days(2430), Permits::default()).unwrap().unwrap();
    let new = rotated(&old, now());
    (old, new)
}

#[tokio::test]
async fn no_certificate_no_handshake() {
    let serving = Serving::default();
    assert_eq!(serving.resolver.not_after(), None);
    let address = echo(server_config(serving.resolver.clone()).unwrap()).await;
    let material = material(now());
    connect(address, trust(&material), None).await.unwrap_err();
    assert!(serving.load(&material, now()).unwrap());
    assert_eq!(serving.resolver.not_after(), Some(material.not_after()));
    let stream = connect(address, trust(&material), None).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
}

#[tokio::test]
async fn a_swap_keeps_connections_and_reaches_new_ones() {
    let serving = Serving::default();
    let first = material(now() - days(70));
    serving.load(&first, now()).unwrap();
    let address = echo(server_config(serving.resolver.clone()).unwrap()).await;
    let mut open = connect(address, trust(&first), None).await.unwrap();
    assert_eq!(presented(&open), leaf(&first));

    let second = first.renewed(&config(), now(), Permits::default()).unwrap().unwrap();
    assert!(serving.load(&second, now()).unwrap());
    assert!(!serving.load(&second, now()).unwrap(), "nothing new");
    ping(&mut open).await.unwrap();
    let fresh = connect(address, trust(&first), None).await.unwrap();
    assert_eq!(presented(&fresh), leaf(&second));
    ping(&mut open).await.unwrap();
}

#[tokio::test]
async fn an_expired_certificate_is_not_taken_over() {
    let serving = Serving::default();
    let good = material(now());
    serving.load(&good, now()).unwrap();
    let expired = material(now() - days(91));
    let error = serving.load(&expired, now()).unwrap_err();
    assert!(matches!(error, Error::Expired { .. }), "{error}");
    assert_eq!(serving.resolver.not_after(), Some(good.not_after()));
}

#[tokio::test]
async fn a_new_ca_leaves_nobody_out() {
    let (old, new) = rotation();
    let serving = Serving::default();
    serving.load(&old, now()).unwrap();
    let address = echo(server_config(serving.resolver.clone()).unwrap()).await;
    let mut open = connect(address, trust(&old), None).await.unwrap();
    serving.load(&new, now()).unwrap();
    ping(&mut open).await.unwrap();
    connect(address, trust(&old), None).await.expect("an apiserver that has not seen the new caBundle");
    connect(address, trust(&new), None).await.expect("one that has");
    connect(address, trust(&material(now())), None).await.unwrap_err();
}

#[tokio::test]
async fn only_our_client_certificate_opens_the_extender() {
    let serving = Serving::default();
    let config_mtls = server_config_mtls(serving.resolver.clone(), serving.roots.clone()).unwrap();
    let address = echo(config_mtls).await;
    let (ours, other) = (material(now()), material(now()));
    serving.load(&ours, now()).unwrap();
    let right = ours.client(&config(), now()).unwrap();
    let wrong = other.client(&config(), now()).unwrap();
    let expired = ours.client(&config(), now() - days(366)).unwrap();

    connect(address, trust(&ours), Some(&right)).await.unwrap();
    connect(address, trust(&ours), None).await.expect_err("no certificate");
    connect(address, trust(&ours), Some(&wrong)).await.expect_err("another CA");
    connect(address, trust(&ours), Some(&expired)).await.expect_err("expired");
    connect(address, trust(&ours), Some(ours.server())).await.expect_err("the server's own is not for clients");
    connect(address, trust(&ours), Some(&someone_else(&ours))).await.expect_err("the right CA, but not the scheduler");
}

/// A client certificate from the same CA, but for another name.
fn someone_else(material: &Material) -> Identity {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["handoff-scheduler.example".to_owned()]).unwrap();
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let ca = rcgen::KeyPair::from_pem(material.ca_key_pem()).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_pem(&material.ca_pem(), ca).unwrap();
    Identity::parse(&params.signed_by(&key, &issuer).unwrap().pem(), &key.serialize_pem()).unwrap()
}

#[tokio::test]
async fn clients_are_judged_by_the_clock_that_was_given() {
    let (clock, serving) = Hands::serving(now());
    let ours = material(now());
    serving.load(&ours, now()).unwrap();
    let client = ours.client(&config(), now()).unwrap();
    let address = echo(server_config_mtls(serving.resolver.clone(), serving.roots.clone()).unwrap()).await;
    connect(address, trust(&ours), Some(&client)).await.unwrap();
    clock.advance(days(366));
    connect(address, trust(&ours), Some(&client)).await.expect_err("expired by then");
}

#[tokio::test]
async fn the_cas_of_clients_follow_a_rotation() {
    let (old, new) = rotation();
    let old_client = old.client(&config(), now()).unwrap();
    let new_client = new.client(&config(), now()).unwrap();
    let serving = Serving::default();
    let address = echo(server_config_mtls(serving.resolver.clone(), serving.roots.clone()).unwrap()).await;

    serving.load(&old, now()).unwrap();
    connect(address, trust(&old), Some(&old_client)).await.unwrap();
    connect(address, trust(&old), Some(&new_client)).await.expect("a replica that has not read the new Secret yet");
    serving.load(&new, now()).unwrap();
    connect(address, trust(&old), Some(&old_client)).await.expect("a scheduler not restarted yet");
    connect(address, trust(&old), Some(&new_client)).await.expect("its certificate file renewed, its CA file not");
    connect(address, trust(&new), Some(&new_client)).await.expect("restarted");

    let replaced = material(now());
    serving.load(&replaced, now()).unwrap();
    connect(address, trust(&replaced), Some(&new_client)).await.expect_err("from a CA that is gone");
}
