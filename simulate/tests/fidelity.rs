//! The same ways end alike here and on the real cluster, whose outcomes are in tests/e2e/outcomes.tsv.

use handoff_simulate::{
    longhorn::Release,
    ways::{Way, play},
};

const REAL: &str = include_str!("../../tests/e2e/outcomes.tsv");

/// What the simulation cannot play, and why.
const NOT_HERE: [(&str, &str); 11] = [
    ("preemption", "nodes have no capacity here, so nothing is preempted"),
    ("power-loss", "engines, replicas and mounts do not end with their machine here"),
    ("instance-manager-killed", "engines do not die with their instance manager here"),
    ("csi-snapshot", "the snapshot controller is not here; to Handoff it is a backup as any other"),
    ("recurring-job", "jobs and their retries are not here: unit tests and model"),
    ("gzip", "blocks have no content here"),
    ("last-replica-drained", "replicas are rebuilt on their own node only here"),
    ("target-away", "for longer: `a_target_that_is_away_is_waited_for`"),
    ("prestage-leader-killed", "at each write: tests of `crash`"),
    ("strict-local", "volumes are not bound to nodes here"),
    ("upgrade", "there is one version here"),
];

#[test]
fn ways_end_as_on_the_real_cluster() {
    let mut differ = Vec::new();
    let mut played = 0;
    for line in REAL.lines().filter(|line| !line.starts_with('#')) {
        let (name, rest) = line.split_once('\t').unwrap();
        let (version, real) = rest.split_once('\t').unwrap();
        let Some((_, way)) = Way::ALL.iter().find(|(known, _)| *known == name) else {
            assert!(NOT_HERE.iter().any(|(known, _)| *known == name), "{name} is neither played nor left out");
            continue;
        };
        played += 1;
        let here = play(*way, &Release::of(version)).unwrap();
        let told = here.ended.to_string();
        let alike = real.split('\t').zip(told.split('\t')).all(|(real, here)| real == "-" || real == here);
        if !alike || !here.broken.is_empty() {
            let broken = here.broken;
            differ.push(format!("{}\n{name} on {version}: here {told}, there {real}; broken: {broken:?}", here.story));
        }
    }
    assert!(differ.is_empty(), "{}", differ.join("\n\n"));
    assert!(played > Way::ALL.len(), "only {played} were played");
}

#[test]
fn every_way_here_has_its_real_outcome_and_is_either_played_or_left_out() {
    let played = Way::ALL.map(|(name, _)| name);
    for name in played.into_iter().chain(NOT_HERE.map(|(name, _)| name)) {
        assert!(REAL.lines().any(|line| line.split('\t').next() == Some(name)), "{name} was never run for real");
    }
    let both = NOT_HERE.iter().find(|(name, _)| played.contains(name));
    assert!(both.is_none(), "{both:?} is played");
}
