//! One move with one backup in flight, without anything going wrong.

use handoff_simulate::{
    crash::{Death, Heir},
    longhorn::Release,
};
use std::time::Duration;

/// The story of a move during which the backup target is away for so long.
fn moved(version: &str, complete_after_all: bool, target_away: Duration) -> String {
    let release = Release::of(version);
    let death = Death { release, complete_after_all, target_away, crash: None, heir: Heir::Standby };
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
        let story = moved(version, false, Duration::ZERO);
        let mut lines = story.lines();
        for (who, what) in STEPS {
            let said = lines.any(|line| line.contains(who) && line.contains(what));
            assert!(said, "{version}: no {who}{what} after the steps before it\n{story}");
        }
    }
}

/// Longhorn looks at its target every five minutes. From then on nothing is tried, and what is complete stays so.
#[test]
fn a_target_that_is_away_is_waited_for() {
    for version in ["1.10.0", "1.8.0"] {
        for complete_after_all in [false, true] {
            let resets = |away| {
                let story = moved(version, complete_after_all, Duration::from_mins(away));
                let reset = |line: &&str| line.contains(" handoff-0: Backup backup:") && line.contains("state=\"\"");
                (story.lines().filter(reset).count(), story)
            };
            let (short, _) = resets(12);
            let (long, story) = resets(240);
            assert!(short <= long && long <= short + 1, "{version}: {short} tries in 12 min, {long} in 4 h\n{story}");
        }
    }
}
