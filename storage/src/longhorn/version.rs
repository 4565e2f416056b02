//! What is allowed on which Longhorn version. The version is the setting `current-longhorn-version`.

use super::store::Store;
use crate::model::{Gates, PreStageGate};

/// Versions in which `ControllerUnpublish` waits for a running backup (longhorn/longhorn#10171): added by
/// longhorn-manager commit 473b6d4b, reverted by 360f3515 (1.7.3), ec2fcf65 (1.8.1) and 4e93392f (1.9.0).
const WAITING: [(u32, u32, u32); 4] = [(1, 7, 0), (1, 7, 1), (1, 7, 2), (1, 8, 0)];

/// Minor versions of 1.x whose attach and backup rules were read or run.
const KNOWN_MINORS: std::ops::RangeInclusive<u32> = 7..=12;

pub fn gates(store: &Store) -> Gates {
    gates_of(store.settings.get("current-longhorn-version").map_or("", |s| s.value.as_str()))
}

/// What is allowed on this version, as in `v1.10.0`.
pub fn gates_of(version: &str) -> Gates {
    let prestage = match parse(version) {
        Some(v) if WAITING.contains(&v) => PreStageGate::Needed,
        Some((1, minor, _)) if KNOWN_MINORS.contains(&minor) => PreStageGate::Useful,
        _ => PreStageGate::Off,
    };
    Gates { version: version.to_owned(), prestage }
}

/// `v1.8.0`, `1.10.1-rc1`, … → numbers.
fn parse(version: &str) -> Option<(u32, u32, u32)> {
    let core = version.trim_start_matches('v').split(['-', '+']).next()?;
    let mut parts = core.split('.').map(str::parse);
    match (parts.next()?, parts.next()?, parts.next()?, parts.next()) {
        (Ok(major), Ok(minor), Ok(patch), None) => Some((major, minor, patch)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_by_version() {
        for (version, prestage) in [
            ("v1.7.0", PreStageGate::Needed),
            ("v1.7.2", PreStageGate::Needed),
            ("v1.7.3", PreStageGate::Useful),
            ("v1.8.0", PreStageGate::Needed),
            ("v1.8.1", PreStageGate::Useful),
            ("v1.10.0", PreStageGate::Useful),
            ("v1.12.1-rc2", PreStageGate::Useful),
            ("v1.6.4", PreStageGate::Off),
            ("v1.13.0", PreStageGate::Off),
            ("v2.0.0", PreStageGate::Off),
            ("master", PreStageGate::Off),
            ("", PreStageGate::Off),
        ] {
            assert_eq!(gates_of(version).prestage, prestage, "{version}");
        }
    }
}
