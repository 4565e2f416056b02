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

/// Each in a line of its own, in this order: who or what, and what is to be said of it.
const STEPS: [(&str, &str); 9] = [
    (" handoff-", ": VolumeHandoff pv-db: made"),
    (" handoff-0: requests of db:", "+n01 (ours)"),
    (" longhorn: volume db:", "state=\"detaching\""),
    (" longhorn: Backup backup:", "state=\"Error\""),
    (" kubelet n01:", "db-0 has db"),
    (" handoff-0: Backup backup:", "syncRequestedAt="),
    (" handoff-0: Backup backup:", "state=\"\""),
    (" longhorn: Backup backup:", "state=\"InProgress\""),
    (" longhorn: Backup backup:", "state=\"Completed\""),
];

#[test]
fn the_volume_is_asked_for_the_backup_cut_and_made_complete_under_its_own_name() {
    for version in ["1.10.0", "1.8.0"] {
        let story = moved(version);
        let mut lines = story.lines();
        for (who, what) in STEPS {
            let said = lines.any(|line| line.contains(who) && line.contains(what));
            assert!(said, "{version}: no {who}{what} after the steps before it\n{story}");
        }
    }
}
