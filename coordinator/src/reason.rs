//! The reasons of Events: a closed list, so that it can be documented and watched for.

/// Reason of an Event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// What is in flight was recorded.
    BackupCheckpointed,
    /// The eviction is answered "not yet".
    EvictionHeld,
    /// The volume is asked for on the next node.
    PreStaged,
    /// It is not, and why.
    PreStageRefused,
    /// It is not any more.
    PreStageWithdrawn,
    /// The volume and its pod run on the next node.
    VolumeMoved,
    /// An interrupted backup runs again.
    BackupResumed,
    /// Such a run failed.
    BackupRunFailed,
    /// An owed backup is complete.
    BackupCompleted,
    /// An owed backup is not resumed: newer data is safe.
    BackupSuperseded,
    /// An owed backup is given up.
    BackupUnrecoverable,
    /// An owed backup is no longer owed: a person said so.
    BackupAbandoned,
    /// Mode `observe`: what would be recorded or held.
    WouldCheckpoint,
    /// Mode `observe`: what would be resumed.
    WouldResume,
}

impl Reason {
    /// All of them, in the order of a move.
    pub const ALL: [Self; 14] = [
        Self::BackupCheckpointed,
        Self::EvictionHeld,
        Self::PreStaged,
        Self::PreStageRefused,
        Self::PreStageWithdrawn,
        Self::VolumeMoved,
        Self::BackupResumed,
        Self::BackupRunFailed,
        Self::BackupCompleted,
        Self::BackupSuperseded,
        Self::BackupUnrecoverable,
        Self::BackupAbandoned,
        Self::WouldCheckpoint,
        Self::WouldResume,
    ];

    /// As it is in the Event.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BackupCheckpointed => "BackupCheckpointed",
            Self::EvictionHeld => "EvictionHeld",
            Self::PreStaged => "PreStaged",
            Self::PreStageRefused => "PreStageRefused",
            Self::PreStageWithdrawn => "PreStageWithdrawn",
            Self::VolumeMoved => "VolumeMoved",
            Self::BackupResumed => "BackupResumed",
            Self::BackupRunFailed => "BackupRunFailed",
            Self::BackupCompleted => "BackupCompleted",
            Self::BackupSuperseded => "BackupSuperseded",
            Self::BackupUnrecoverable => "BackupUnrecoverable",
            Self::BackupAbandoned => "BackupAbandoned",
            Self::WouldCheckpoint => "WouldCheckpoint",
            Self::WouldResume => "WouldResume",
        }
    }

    /// Something is wrong: the Event is a Warning.
    pub fn is_warning(self) -> bool {
        matches!(self, Self::PreStageWithdrawn | Self::BackupRunFailed | Self::BackupUnrecoverable)
    }

    /// What it means, for the documentation.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::BackupCheckpointed => {
                "the pod leaves, or a backup was found lost; the note names what was in flight and how far it was"
            }
            Self::EvictionHeld => {
                "the eviction is answered 429 under `FinishIfNear`; the note says for what and until when at most"
            }
            Self::PreStaged => "the volume is asked for on the next node before Kubernetes does",
            Self::PreStageRefused => "it is not, and why; the move goes on as without",
            Self::PreStageWithdrawn => {
                "our request was taken back: the pod went elsewhere, or nobody adopted it in time"
            }
            Self::VolumeMoved => "the volume is on the next node and the pod is ready; the note says after how long",
            Self::BackupResumed => "an interrupted backup runs again under its own name",
            Self::BackupRunFailed => {
                "such a run ended without being complete; the note says why and when it is tried again"
            }
            Self::BackupCompleted => "an owed backup is complete",
            Self::BackupSuperseded => {
                "an owed backup is not resumed: newer data of the volume is complete in the same target"
            }
            Self::BackupUnrecoverable => "an owed backup cannot be made whole, and why: make a new one",
            Self::BackupAbandoned => "an owed backup is no longer owed: `handoff abandon` said so",
            Self::WouldCheckpoint => "mode `observe`: an eviction or deletion came; what would be recorded or held",
            Self::WouldResume => "mode `observe`: a backup was interrupted that would be resumed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::HashSet, fmt::Write, path::Path};

    const HEAD: &str = "| reason | type | when |\n|---|---|---|\n";

    /// `HANDOFF_WRITE_DOCS=1 cargo test -p handoff-coordinator the_table` writes the table anew.
    #[test]
    fn the_table_of_reasons_is_this_list() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/events.md");
        let text = std::fs::read_to_string(&file).unwrap();
        let (before, rest) = text.split_once(HEAD).unwrap();
        let after = rest.split_once("\n\n").map(|(_, after)| format!("\n{after}")).unwrap_or_default();
        let mut table = HEAD.to_owned();
        for reason in Reason::ALL {
            let kind = if reason.is_warning() { "Warning" } else { "Normal" };
            writeln!(table, "| `{}` | {kind} | {} |", reason.as_str(), reason.meaning()).unwrap();
        }
        let wanted = format!("{before}{table}{after}");
        if std::env::var_os("HANDOFF_WRITE_DOCS").is_some() {
            std::fs::write(&file, &wanted).unwrap();
            return;
        }
        assert!(text == wanted, "docs/events.md is out of date: HANDOFF_WRITE_DOCS=1 cargo test the_table");
    }

    #[test]
    fn no_reason_is_there_twice() {
        assert_eq!(Reason::ALL.iter().collect::<HashSet<_>>().len(), Reason::ALL.len());
        assert!(Reason::ALL.iter().all(|r| r.as_str() == format!("{r:?}")));
    }
}
