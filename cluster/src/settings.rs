//! What users ask for by annotation, on pods, claims, storage classes and namespaces.

use jiff::SignedDuration;
use std::{collections::BTreeMap, fmt, ops::Deref, str::FromStr};

/// Annotation: `enabled`, `observe` or `disabled`.
pub const MODE: &str = "volumehandoff.io/mode";
/// Annotation: `Checkpoint` or `FinishIfNear`.
pub const EVICTION_POLICY: &str = "volumehandoff.io/eviction-policy";
/// Annotation: how long an eviction may be held under `FinishIfNear`, e.g. `60s`.
pub const MAX_HOLD: &str = "volumehandoff.io/max-hold";
/// Annotation: `true` lets a snapshot be deleted that an owed backup needs.
pub const ALLOW_SNAPSHOT_DELETION: &str = "volumehandoff.io/allow-snapshot-deletion";
/// Annotation of the descheduler: the evictor understands that an eviction may take its time (the contract that
/// `KubeVirt` uses as well).
pub const EVICT_IN_BACKGROUND: &str = "descheduler.alpha.kubernetes.io/request-evict-only";

/// No hold of an eviction lasts longer than this, whatever is asked for.
pub const LONGEST_HOLD: SignedDuration = SignedDuration::from_secs(100);

/// How much Handoff does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Everything.
    #[default]
    Enabled,
    /// Says what it would do, and changes nothing.
    Observe,
    /// Nothing.
    Disabled,
}

/// What happens to an eviction while a backup is in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EvictionPolicy {
    /// The backup is written down, the pod leaves at once, the backup goes on after the move.
    #[default]
    Checkpoint,
    /// If the backup is going to be complete within the longest hold, the pod waits for it.
    FinishIfNear,
}

/// The value of an annotation is none that it may have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(&'static str);

impl FromStr for Mode {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "enabled" => Ok(Self::Enabled),
            "observe" => Ok(Self::Observe),
            "disabled" => Ok(Self::Disabled),
            _ => Err(Invalid("must be enabled, observe or disabled")),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Enabled => "enabled",
            Self::Observe => "observe",
            Self::Disabled => "disabled",
        })
    }
}

impl FromStr for EvictionPolicy {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "Checkpoint" => Ok(Self::Checkpoint),
            "FinishIfNear" => Ok(Self::FinishIfNear),
            _ => Err(Invalid("must be Checkpoint or FinishIfNear")),
        }
    }
}

/// How long an eviction may be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxHold(pub SignedDuration);

impl FromStr for MaxHold {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let hold = text.parse::<SignedDuration>().ok();
        let hold = hold.filter(|hold| *hold >= SignedDuration::ZERO && *hold <= LONGEST_HOLD);
        hold.map(Self).ok_or(Invalid("must be a duration of at most 100s, such as 60s"))
    }
}

/// Consent to the deletion of a snapshot that is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed(pub bool);

impl FromStr for Allowed {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        text.parse().map(Self).map_err(|_| Invalid("must be true or false"))
    }
}

/// What one annotation says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Setting<T> {
    /// It is not there.
    #[default]
    Unset,
    /// A value that it may have.
    Set(T),
    /// Any other value, and what is wrong with it.
    Invalid {
        /// The value, shortened.
        value: Box<str>,
        /// What it must be.
        why: Invalid,
    },
}

/// An invalid value is only kept to be shown.
const VALUE_CHARS: usize = 32;

impl<T: FromStr<Err = Invalid> + Copy> Setting<T> {
    /// Reads the value of an annotation.
    pub fn read(value: Option<&str>) -> Self {
        match value.map(|v| (v, v.trim().parse())) {
            None => Self::Unset,
            Some((_, Ok(value))) => Self::Set(value),
            Some((value, Err(why))) => Self::Invalid { value: value.chars().take(VALUE_CHARS).collect(), why },
        }
    }

    /// The value, if there is a valid one.
    pub fn value(&self) -> Option<T> {
        match self {
            Self::Set(value) => Some(*value),
            Self::Unset | Self::Invalid { .. } => None,
        }
    }
}

/// What the annotations of one object say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// [`MODE`].
    pub mode: Setting<Mode>,
    /// [`EVICTION_POLICY`].
    pub eviction_policy: Setting<EvictionPolicy>,
    /// [`MAX_HOLD`].
    pub max_hold: Setting<MaxHold>,
    /// [`ALLOW_SNAPSHOT_DELETION`].
    pub allow_snapshot_deletion: Setting<Allowed>,
    /// [`EVICT_IN_BACKGROUND`], with any value.
    pub evict_in_background: bool,
}

const NONE: Given = Given {
    mode: Setting::Unset,
    eviction_policy: Setting::Unset,
    max_hold: Setting::Unset,
    allow_snapshot_deletion: Setting::Unset,
    evict_in_background: false,
};

/// [`Given`], in one pointer: null for the very many objects that have no annotation of ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings(Option<Box<Given>>);

impl Settings {
    /// Reads annotations through `get`.
    pub fn read<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Self {
        let given = Given {
            mode: Setting::read(get(MODE)),
            eviction_policy: Setting::read(get(EVICTION_POLICY)),
            max_hold: Setting::read(get(MAX_HOLD)),
            allow_snapshot_deletion: Setting::read(get(ALLOW_SNAPSHOT_DELETION)),
            evict_in_background: get(EVICT_IN_BACKGROUND).is_some(),
        };
        Self((given != NONE).then(|| Box::new(given)))
    }

    /// Reads the annotations of an object.
    pub fn of(annotations: Option<&BTreeMap<String, String>>) -> Self {
        annotations.map(|all| Self::read(|key| all.get(key).map(String::as_str))).unwrap_or_default()
    }

    /// Nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

impl Deref for Settings {
    type Target = Given;

    fn deref(&self) -> &Given {
        self.0.as_deref().unwrap_or(&NONE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_or_kept_to_be_shown() {
        let read = |value| Setting::<Mode>::read(Some(value));
        assert_eq!(read("observe"), Setting::Set(Mode::Observe));
        assert_eq!(read(" disabled "), Setting::Set(Mode::Disabled));
        for wrong in ["", "Enabled", "off", "true"] {
            assert!(matches!(read(wrong), Setting::Invalid { value, .. } if *value == *wrong), "{wrong}");
        }
        assert!(matches!(read(&"x".repeat(500)), Setting::Invalid { value, .. } if value.len() == VALUE_CHARS));
        for mode in [Mode::Enabled, Mode::Observe, Mode::Disabled] {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
    }

    #[test]
    fn no_hold_is_longer_than_the_longest() {
        let seconds = |value| Setting::<MaxHold>::read(Some(value)).value().map(|hold| hold.0.as_secs());
        for (value, wanted) in [
            ("60s", Some(60)),
            ("1m 40s", Some(100)),
            ("0s", Some(0)),
            ("101s", None),
            ("-5s", None),
            ("60", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(seconds(value), wanted, "{value}");
        }
    }

    #[test]
    fn other_annotations_take_no_room() {
        let of = |pairs: &[(&str, &str)]| {
            Settings::of(Some(&pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()))
        };
        assert!(of(&[("a", "b"), ("kubectl.kubernetes.io/last-applied-configuration", "{}")]).is_empty());
        assert!(Settings::of(None).is_empty());
        let all = of(&[
            (MODE, "enabled"),
            (EVICTION_POLICY, "FinishIfNear"),
            (MAX_HOLD, "60s"),
            (ALLOW_SNAPSHOT_DELETION, "true"),
            (EVICT_IN_BACKGROUND, ""),
        ]);
        assert_eq!(all.mode.value(), Some(Mode::Enabled));
        assert_eq!(all.eviction_policy.value(), Some(EvictionPolicy::FinishIfNear));
        assert_eq!(all.max_hold.value(), Some(MaxHold(SignedDuration::from_mins(1))));
        assert_eq!(all.allow_snapshot_deletion.value(), Some(Allowed(true)));
        assert!(all.evict_in_background);
        assert_eq!(size_of::<Settings>(), size_of::<usize>());
    }
}
