use super::{config, days, material, now};
use crate::{CertsConfig, Material, SCHEDULER_NAME};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, UnixTime},
};
use std::time::Duration;
use x509_parser::parse_x509_certificate;

fn reread(material: &Material) -> Material {
    let server = material.server();
    Material::parse(&material.ca_pem(), material.ca_key_pem(), &server.chain_pem(), server.key_pem()).unwrap()
}

fn usage(der: &CertificateDer<'_>) -> (bool, bool) {
    let (_, read) = parse_x509_certificate(der).unwrap();
    let usage = read.extended_key_usage().unwrap().unwrap().value;
    (usage.server_auth, usage.client_auth)
}

fn count(pem: &str) -> usize {
    pem.matches("-----BEGIN CERTIFICATE-----").count()
}

#[test]
fn a_bad_setting_is_named() {
    type Change = fn(&mut CertsConfig);
    let cases: [(&str, Change); 10] = [
        ("namespace = \"\"", |c| c.namespace.clear()),
        ("namespace = \"A\"", |c| c.namespace = "A".into()),
        ("secret_name = \"-x\"", |c| c.secret_name = "-x".into()),
        ("at most 243", |c| c.secret_name = "x".repeat(244)),
        ("dns_names = \"\"", |c| c.dns_names.clear()),
        ("dns_names = \"a b\"", |c| c.dns_names.push("a b".into())),
        ("ca_life_days = \"0\"", |c| c.ca_life_days = 0),
        ("ca_life_days = \"36501\"", |c| c.ca_life_days = 36501),
        ("leaf_life_days = \"0\"", |c| c.leaf_life_days = 0),
        ("client_life_days = \"1217\"", |c| c.client_life_days = 1217),
    ];
    for (expected, change) in cases {
        let mut config = config();
        change(&mut config);
        let error = config.validate().unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
    config().validate().unwrap();
}

#[test]
fn leaves_are_for_their_names_and_for_one_use_each() {
    let now = now();
    let mut config = config();
    config.dns_names.extend(["127.0.0.1".to_owned(), "fd00:0::1".to_owned()]);
    let material = Material::create(&config, now).unwrap();

    let server = &material.server().chain()[0];
    assert_eq!(usage(server), (true, false));
    let read = crate::certificate::parse_all("tls.crt", &material.server().chain_pem()).unwrap();
    assert_eq!(read[0].names, ["handoff.handoff-system.svc", "127.0.0.1", "fd00::1"]);
    assert!(!read[0].is_ca);
    assert_eq!(read[0].not_after, now + days(90));
    assert!(read[0].not_before < now);
    assert_eq!(material.renewed(&config, now).unwrap(), None, "an IPv6 address is found again in another spelling");

    let client = material.client(&config, now).unwrap();
    assert_eq!(usage(&client.chain()[0]), (false, true));
    let der = &client.chain()[0];
    let (_, read) = parse_x509_certificate(der).unwrap();
    assert_eq!(read.subject().iter_common_name().next().unwrap().as_str().unwrap(), SCHEDULER_NAME);
    client.certified_key().unwrap();
}

#[test]
fn renewal_is_due_at_two_thirds() {
    let (born, config) = (now(), config());
    let material = material(born);
    let (leaf, ca) = (1, 2);
    let cases =
        [(0, 0), (59, 0), (61, leaf), (89, leaf), (400, leaf), (2430, leaf), (2434, ca), (3649, ca), (9000, ca)];
    for (age, expected) in cases {
        let next = reread(&material).renewed(&config, born + days(age)).unwrap();
        let found = match &next {
            None => 0,
            Some(next) if next.ca_key_pem() == material.ca_key_pem() => leaf,
            Some(_) => ca,
        };
        assert_eq!(found, expected, "after {age} days");
    }
}

#[test]
fn a_new_name_is_taken_in_and_a_missing_one_kept() {
    let now = now();
    let mut config = config();
    let material = material(now);
    config.dns_names.push("extender.example".to_owned());
    let next = material.renewed(&config, now).unwrap().unwrap();
    assert_eq!(next.ca_pem(), material.ca_pem());
    config.dns_names.remove(0);
    assert_eq!(next.renewed(&config, now).unwrap(), None);
}

#[test]
fn a_leaf_never_outlives_its_ca() {
    let (born, config) = (now(), config());
    let mut short = config.clone();
    short.ca_life_days = 60;
    let material = Material::create(&short, born).unwrap();
    assert_eq!(material.not_after(), born + days(60));
}

#[test]
fn a_new_ca_is_trusted_beside_the_old_until_that_runs_out() {
    let (born, config) = (now(), config());
    let first = material(born);
    let second_born = born + days(2500);
    let second = reread(&first.renewed(&config, second_born).unwrap().unwrap());
    assert!(second.ca_pem().ends_with(&first.ca_pem()), "current first");
    assert_ne!(second.ca_key_pem(), first.ca_key_pem());
    assert_eq!(count(&second.server().chain_pem()), 2, "leaf, and the new CA signed by the old");

    let leaf_renewed = reread(&second.renewed(&config, second_born + days(70)).unwrap().unwrap());
    assert_eq!(leaf_renewed.ca_pem(), second.ca_pem());
    assert_eq!(count(&leaf_renewed.server().chain_pem()), 2, "who only knows the old CA must go on");

    let settled = reread(&leaf_renewed.renewed(&config, born + days(3651)).unwrap().unwrap());
    assert_eq!(count(&settled.ca_pem()), 1);
    assert_eq!(count(&settled.server().chain_pem()), 1);
    assert_eq!(settled.trusted(born + days(3651)).unwrap().len(), 1);
    assert_eq!(second.trusted(born + days(3651)).unwrap().len(), 1, "an expired CA is not trusted while it is listed");
}

#[test]
fn everything_is_renewed_after_a_long_pause() {
    let (born, config) = (now(), config());
    let later = born + days(4000);
    let first = material(born);
    assert!(first.is_expired(later) && first.is_expired(born + days(90)) && !first.is_expired(born + days(89)));
    let next = reread(&first.renewed(&config, later).unwrap().unwrap());
    assert!(!next.is_expired(later));
    assert_eq!(count(&next.ca_pem()), 1);
    assert_eq!(count(&next.server().chain_pem()), 1);
}

#[test]
fn the_client_certificate_follows_the_ca() {
    let (born, config) = (now(), config());
    let first = material(born);
    let client = first.client(&config, born).unwrap();
    assert!(!first.client_is_due(&client, born + days(200)));
    assert!(first.client_is_due(&client, born + days(250)));
    let later = born + days(2500);
    let second = first.renewed(&config, later).unwrap().unwrap();
    let young = first.client(&config, later).unwrap();
    assert!(second.client_is_due(&young, later));
    let next = second.client(&config, later).unwrap();
    assert!(!second.client_is_due(&next, later));
    assert_eq!(count(&next.chain_pem()), 2);
    assert!(material(later).client_is_due(&next, later), "from a CA nobody knows");
}

#[test]
fn the_new_leaf_verifies_under_either_ca() {
    let (born, config) = (now(), config());
    let first = material(born);
    let later = born + days(2500);
    let second = first.renewed(&config, later).unwrap().unwrap();
    let chain = second.server().chain();
    let at = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(later.as_second()).unwrap()));
    let algorithms = crate::authority::provider().signature_verification_algorithms.all;
    let verifies = |roots: &RootCertStore| {
        let leaf = rustls::server::ParsedCertificate::try_from(&chain[0]).unwrap();
        rustls::client::verify_server_cert_signed_by_trust_anchor(&leaf, roots, &chain[1..], at, algorithms)
    };
    verifies(&first.trusted(later).unwrap()).unwrap();
    verifies(&second.trusted(later).unwrap()).unwrap();
    verifies(&material(later).trusted(later).unwrap()).unwrap_err();
}

#[test]
fn what_does_not_fit_is_refused_and_named() {
    let now = now();
    let (good, other) = (material(now), material(now));
    let (ca, ca_key) = (good.ca_pem(), good.ca_key_pem());
    let (tls, key) = (good.server().chain_pem(), good.server().key_pem());
    let client = good.client(&config(), now).unwrap();
    let cut = &tls[..tls.len() / 2];
    let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let cases = [
        ("ca.crt", Material::parse("", ca_key, &tls, key)),
        ("ca.crt", Material::parse(garbage, ca_key, &tls, key)),
        ("ca.crt", Material::parse(&tls, key, &tls, key)),
        ("ca.key", Material::parse(&ca, "", &tls, key)),
        ("ca.key", Material::parse(&ca, key, &tls, key)),
        ("ca.key", Material::parse(&ca, other.ca_key_pem(), &tls, key)),
        ("tls.crt", Material::parse(&ca, ca_key, cut, key)),
        ("tls.crt", Material::parse(&ca, ca_key, &other.server().chain_pem(), other.server().key_pem())),
        ("tls.crt", Material::parse(&ca, ca_key, &client.chain_pem(), client.key_pem())),
        ("tls.key", Material::parse(&ca, ca_key, &tls, "")),
        ("tls.key", Material::parse(&ca, ca_key, &tls, other.server().key_pem())),
    ];
    for (place, (entry, result)) in cases.into_iter().enumerate() {
        let error = result.unwrap_err().to_string();
        assert!(error.starts_with(&format!("{entry}: ")), "case {place}: {error}");
    }
}

#[test]
fn debug_output_holds_no_key() {
    let material = material(now());
    let shown = format!("{material:?} {:?}", material.client(&config(), now()).unwrap());
    assert!(!shown.contains("PRIVATE") && shown.contains("handoff.handoff-system.svc"), "{shown}");
}
