use super::{ALL, config, days, material, now, rotated};
use crate::{
    CA_OVERLAP, CertsConfig, Error, Material, SCHEDULER_NAME,
    authority::{Entries, Permits},
};
use jiff::SignedDuration;
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, UnixTime},
};
use std::time::Duration;
use x509_parser::parse_x509_certificate;

const NONE: Permits = Permits { published: false, replace_ca: false };

fn reread(material: &Material) -> Material {
    let server = material.server();
    let again = Material::parse(Entries {
        ca_cert: &material.ca_pem(),
        ca_key: material.ca_key_pem(),
        next_ca_key: material.next_ca_key_pem(),
        tls_cert: &server.chain_pem(),
        tls_key: server.key_pem(),
    });
    assert_eq!(again.as_ref().unwrap(), material);
    again.unwrap()
}

fn parse(ca_cert: &str, ca_key: &str, tls_cert: &str, tls_key: &str) -> Result<Material, Error> {
    Material::parse(Entries { ca_cert, ca_key, next_ca_key: None, tls_cert, tls_key })
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
    assert_eq!(
        material.renewed(&config, now, NONE).unwrap(),
        None,
        "an IPv6 address is found again in another spelling"
    );

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
    let (leaf, announced) = (1, 2);
    let cases = [
        (0, 0),
        (59, 0),
        (61, leaf),
        (89, leaf),
        (400, leaf),
        (2430, leaf),
        (2434, announced),
        (3649, announced),
        (3651, 0),
        (9000, 0),
    ];
    for (age, expected) in cases {
        let next = material.renewed(&config, born + days(age), NONE).unwrap();
        let found = match next.as_ref().map(reread) {
            None => 0,
            Some(next) if next.next_ca_key_pem().is_none() => leaf,
            Some(_) => announced,
        };
        assert_eq!(found, expected, "after {age} days");
        let ca_key = next.as_ref().unwrap_or(&material).ca_key_pem();
        assert_eq!(ca_key, material.ca_key_pem(), "after {age} days: no CA is replaced at the first sight");
    }
}

#[test]
fn a_new_name_is_taken_in_and_a_missing_one_kept() {
    let now = now();
    let mut config = config();
    let material = material(now);
    config.dns_names.push("extender.example".to_owned());
    let next = material.renewed(&config, now, NONE).unwrap().unwrap();
    assert_eq!(next.ca_pem(), material.ca_pem());
    config.dns_names.remove(0);
    assert_eq!(next.renewed(&config, now, NONE).unwrap(), None);
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
fn a_ca_is_announced_then_switched_to_then_the_old_one_dropped() {
    let (born, config) = (now(), config());
    let first = material(born);
    let due = born + days(2500);
    let announced = reread(&first.renewed(&config, due, ALL).unwrap().unwrap());
    assert_eq!(announced.ca_key_pem(), first.ca_key_pem(), "the old CA still issues");
    assert!(announced.ca_pem().starts_with(&first.ca_pem()) && announced.bundle_pem().ends_with(&first.ca_pem()));
    assert_eq!((count(&announced.ca_pem()), announced.trusted(due).unwrap().len()), (2, 2));
    assert_eq!(count(&announced.server().chain_pem()), 1);

    let (early, late) = (due + CA_OVERLAP - SignedDuration::from_secs(1), due + CA_OVERLAP);
    assert_eq!(announced.renewed(&config, early, ALL).unwrap(), None, "API servers may not know of it yet");
    assert_eq!(announced.renewed(&config, late, NONE).unwrap(), None, "API servers do not know of it");
    let second = reread(&announced.renewed(&config, late, ALL).unwrap().unwrap());
    assert_eq!(Some(second.ca_key_pem()), announced.next_ca_key_pem());
    assert_eq!(second.next_ca_key_pem(), None);
    assert_eq!(second.bundle_pem(), announced.bundle_pem(), "the switch changes nothing of what is trusted");
    assert_eq!(count(&second.server().chain_pem()), 2, "leaf, and the new CA signed by the old");

    let leaf_renewed = reread(&second.renewed(&config, due + days(70), NONE).unwrap().unwrap());
    assert_eq!(leaf_renewed.ca_pem(), second.ca_pem());
    assert_eq!(count(&leaf_renewed.server().chain_pem()), 2, "who only knows the old CA must go on");

    assert_eq!(second.trusted(born + days(3651)).unwrap().len(), 1, "an expired CA is not trusted while it is listed");
    let settled = reread(&leaf_renewed.renewed(&config, born + days(3651), NONE).unwrap().unwrap());
    assert_eq!((count(&settled.ca_pem()), count(&settled.server().chain_pem())), (1, 1));
}

#[test]
fn a_leaf_that_is_due_does_not_wait_for_the_ca() {
    let (born, config) = (now(), config());
    let announced = material(born).renewed(&config, born + days(2500), NONE).unwrap().unwrap();
    let next = announced.renewed(&config, born + days(2580), NONE).unwrap().unwrap();
    assert_ne!(next.server(), announced.server());
    assert_eq!(next.bundle_pem(), announced.bundle_pem());
}

#[test]
fn a_ca_near_its_end_is_left_even_if_the_next_one_could_not_be_published() {
    let (born, config) = (now(), config());
    let announced = material(born).renewed(&config, born + days(2500), NONE).unwrap().unwrap();
    let next = announced.renewed(&config, born + days(3100), NONE).unwrap().unwrap();
    assert_eq!(Some(next.ca_key_pem()), announced.next_ca_key_pem());
}

#[test]
fn everything_is_renewed_after_a_long_pause() {
    let (born, config) = (now(), config());
    let later = born + days(4000);
    let first = material(born);
    assert!(!first.ca_is_valid(later));
    assert_eq!(first.renewed(&config, later, NONE).unwrap(), None);
    let next = reread(&first.renewed(&config, later, ALL).unwrap().unwrap());
    assert!(next.ca_is_valid(later) && next.not_after() > later);
    assert_eq!(count(&next.ca_pem()), 1);
    assert_eq!(count(&next.server().chain_pem()), 1);
}

#[test]
fn what_was_made_while_the_clock_was_ahead_is_made_again() {
    let (now, config) = (now(), config());
    let old = material(now);
    let leaf_of_the_future = old.renewed(&config, now + days(400), NONE).unwrap().unwrap();
    let healed = leaf_of_the_future.renewed(&config, now, NONE).unwrap().unwrap();
    assert!(healed.not_after() <= now + days(90));
    assert_eq!(healed.ca_pem(), old.ca_pem(), "nobody has to be told anything");

    let ca_of_the_future = old.renewed(&config, now + days(2500), NONE).unwrap().unwrap();
    let healed = ca_of_the_future.renewed(&config, now, NONE).unwrap().unwrap();
    assert_eq!(healed.bundle_pem(), old.bundle_pem(), "it had not issued anything yet");
}

#[test]
fn a_clock_that_fell_behind_changes_nothing_but_the_leaf() {
    let (now, config) = (now(), config());
    let material = material(now);
    let hour = SignedDuration::from_hours(1);
    assert_eq!(material.renewed(&config, now - hour, NONE).unwrap(), None, "within the margin");
    let fallen = material.renewed(&config, now - days(9000), NONE).unwrap();
    assert_eq!(fallen, None, "the CA of that time is not valid either: nothing it issues would be accepted");
}

#[test]
fn the_client_certificate_follows_the_ca() {
    let (born, config) = (now(), config());
    let first = material(born);
    let client = first.client(&config, born).unwrap();
    assert!(!first.client_is_due(&client, born + days(200)));
    assert!(first.client_is_due(&client, born + days(250)));
    assert!(first.client_is_due(&client, born - days(1)), "made while a clock was ahead");
    let later = born + days(2500);
    let second = rotated(&first, later);
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
    let second = rotated(&first, later);
    let chain = second.server().chain();
    let at = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(later.as_second()).unwrap()));
    let algorithms = crate::issue::provider().signature_verification_algorithms.all;
    let verifies = |roots: &RootCertStore| {
        let leaf = rustls::server::ParsedCertificate::try_from(&chain[0]).unwrap();
        rustls::client::verify_server_cert_signed_by_trust_anchor(&leaf, roots, &chain[1..], at, algorithms)
    };
    verifies(&first.trusted(later).unwrap()).unwrap();
    verifies(&second.trusted(later).unwrap()).unwrap();
    verifies(&material(later).trusted(later).unwrap()).unwrap_err();
    assert!(first.renewed(&config, later, NONE).unwrap().unwrap().bundle_pem().contains(&first.bundle_pem()));
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
        ("ca.crt", parse("", ca_key, &tls, key)),
        ("ca.crt", parse(garbage, ca_key, &tls, key)),
        ("ca.crt", parse(&tls, key, &tls, key)),
        ("ca.key", parse(&ca, "", &tls, key)),
        ("ca.key", parse(&ca, key, &tls, key)),
        ("ca.key", parse(&ca, other.ca_key_pem(), &tls, key)),
        ("tls.crt", parse(&ca, ca_key, cut, key)),
        ("tls.crt", parse(&ca, ca_key, &other.server().chain_pem(), other.server().key_pem())),
        ("tls.crt", parse(&ca, ca_key, &client.chain_pem(), client.key_pem())),
        ("tls.key", parse(&ca, ca_key, &tls, "")),
        ("tls.key", parse(&ca, ca_key, &tls, other.server().key_pem())),
    ];
    for (place, (entry, result)) in cases.into_iter().enumerate() {
        let error = result.unwrap_err().to_string();
        assert!(error.starts_with(&format!("{entry}: ")), "case {place}: {error}");
    }
}

#[test]
fn a_key_of_the_next_ca_that_fits_nothing_is_named() {
    let now = now();
    let announced = material(now).renewed(&config(), now + days(2500), NONE).unwrap().unwrap();
    let server = announced.server();
    let (ca_cert, chain) = (announced.ca_pem(), server.chain_pem());
    for key in ["hello", server.key_pem(), announced.ca_key_pem()] {
        let entries = Entries {
            ca_cert: &ca_cert,
            ca_key: announced.ca_key_pem(),
            next_ca_key: Some(key),
            tls_cert: &chain,
            tls_key: server.key_pem(),
        };
        let error = Material::parse(entries).unwrap_err().to_string();
        assert!(error.starts_with("next-ca.key: "), "{error}");
    }
}
