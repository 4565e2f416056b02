//! One move with one backup in flight, without anything going wrong.

use handoff_simulate::{
    crash::{Death, Heir},
    longhorn::Release,
};

fn moved(version: &str) -> String {
    let death = Death { release: Release::of(version), complete_after_all: false, crash: None, heir: Heir::Standby };
    let died = death.run().unwrap();
    assert!(died.outcome.broken.is_empty(), "{}", died.outcome);
    died.outcome.story
}

#[test]
fn the_volume_is_asked_for_the_backup_cut_and_made_complete_under_its_own_name() {
    for version in ["1.10.0", "1.8.0"] {
        let story = moved(version);
        let at = |what: &str| story.find(what).unwrap_or_else(|| panic!("{version}: no {what:?} in\n{story}"));
        let steps = [
            at(": VolumeHandoff pv-db: made"),
            at("handoff-0: requests of db: +n01 (ours)"),
            at("Backup backup: state=\"Error\""),
            at("handoff-0: Backup backup: syncRequestedAt="),
            at("handoff-0: Backup backup: "),
            at("state=\"Completed\""),
        ];
        assert!(steps[0] < steps[1] && steps[1] < steps[2] && steps[2] < steps[3], "{version}:\n{story}");
        assert!(steps[4] < steps[5], "{version}:\n{story}");
    }
}
