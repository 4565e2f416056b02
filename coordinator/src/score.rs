//! How well a node suits a pod's volumes, as one number from 0 to 10 and the reasons for it. The page
//! `docs/extender.md` explains it to users.

use std::fmt;

/// What is known of one node, for one pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Volumes of the pod that are there; volumes that several nodes may use are not counted.
    pub volumes: usize,
    /// Volumes that are pre-staged on the node.
    pub staged: usize,
    /// The most volumes that are pre-staged on any one node.
    pub most_staged: usize,
    /// Volumes with a good replica on the node.
    pub local: usize,
    /// Claims whose volume is not made yet.
    pub new: usize,
    /// Of these, how many have room for a replica on the node.
    pub with_room: usize,
    /// Volumes that are being attached to the node now.
    pub attaching: usize,
    /// The node is cordoned, not ready, or about to go.
    pub leaving: bool,
}

/// The best there is.
pub const BEST: i64 = 10;
/// Points for data that is on the node.
const LOCALITY: i64 = 4;
/// Points for a node that attaches nothing now; one less for every two volumes that are being attached.
const IDLE: i64 = 5;

/// A score and what it is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Score {
    /// 0–10, higher is better.
    pub points: i64,
    /// The reasons, for people.
    pub why: Vec<Why>,
}

/// One reason of a score.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The node is on its way out.
    Leaving,
    /// So many of the volumes are being brought up there.
    Staged(usize),
    /// So many of the volumes have a good replica there.
    Local {
        /// With a replica.
        local: usize,
        /// Of these.
        of: usize,
    },
    /// So many of the volumes to be made have room there.
    Room {
        /// With room.
        with_room: usize,
        /// Of these.
        of: usize,
    },
    /// So many volumes are being attached there.
    Attaching(usize),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leaving => f.write_str("the node is cordoned, not ready or about to go"),
            Self::Staged(volumes) => write!(f, "{volumes} pre-staged"),
            Self::Local { local, of } => write!(f, "good replica of {local} of {of}"),
            Self::Room { with_room, of } => write!(f, "room for {with_room} of {of} new"),
            Self::Attaching(volumes) => write!(f, "{volumes} being attached"),
        }
    }
}

/// Points of a node that fits.
/// - A node that is about to go has 0.
/// - The node where most of the volumes are pre-staged has 10; one with fewer of them has 9.
/// - Otherwise up to 4 points for data that is there (or room for data to come), and up to 5 for a node that is not
///   busy attaching: so a node with a replica comes before one without, until a drain has sent it so many volumes that
///   another one has them sooner.
pub fn points(facts: &Facts) -> i64 {
    if facts.leaving {
        return 0;
    }
    if facts.staged > 0 {
        return if facts.staged == facts.most_staged { BEST } else { BEST - 1 };
    }
    let small = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let (good, all) = (small(facts.local + facts.with_room), small(facts.volumes + facts.new).max(1));
    // any data is better than none
    let locality = if good == 0 { 0 } else { (LOCALITY.saturating_mul(good) / all).max(1) };
    let idle = (IDLE - small(facts.attaching.div_ceil(2))).max(0);
    locality + idle
}

/// The points of a node that fits, and what they are for.
pub fn score(facts: &Facts) -> Score {
    let mut why = Vec::new();
    if facts.leaving {
        why.push(Why::Leaving);
    } else if facts.staged > 0 {
        why.push(Why::Staged(facts.staged));
    } else {
        if facts.volumes > 0 {
            why.push(Why::Local { local: facts.local, of: facts.volumes });
        }
        if facts.new > 0 {
            why.push(Why::Room { with_room: facts.with_room, of: facts.new });
        }
        if facts.attaching > 0 {
            why.push(Why::Attaching(facts.attaching));
        }
    }
    Score { points: points(facts), why }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_prestaged_node_is_the_best_whatever_else_holds() {
        let one = Facts { volumes: 1, ..Facts::default() };
        let staged = Facts { staged: 1, most_staged: 1, ..one.clone() };
        assert_eq!(points(&staged), BEST);
        assert_eq!(points(&Facts { attaching: 50, ..staged.clone() }), BEST);
        assert!(points(&Facts { local: 1, ..one.clone() }) < BEST);
        assert_eq!(points(&Facts { leaving: true, ..staged }), 0);
        let three = Facts { volumes: 3, most_staged: 2, ..Facts::default() };
        assert_eq!([2, 1, 0].map(|staged| points(&Facts { staged, ..three.clone() })), [10, 9, 5]);
    }

    #[test]
    fn replicas_count_until_a_node_is_busy() {
        let at = |local, attaching| points(&Facts { volumes: 1, local, attaching, ..Facts::default() });
        assert_eq!([at(1, 0), at(1, 1), at(1, 2), at(1, 3), at(1, 9), at(1, 99)], [9, 8, 8, 7, 4, 4]);
        assert_eq!([at(0, 0), at(0, 1), at(0, 4), at(0, 99)], [5, 4, 3, 0]);
        assert!(at(1, 6) > at(0, 0) && at(1, 9) < at(0, 0));
    }

    #[test]
    fn several_volumes_and_volumes_to_be_made() {
        let at = |local, with_room| points(&Facts { volumes: 2, local, new: 2, with_room, ..Facts::default() });
        assert_eq!([at(2, 2), at(2, 0), at(1, 1), at(1, 0), at(0, 0)], [9, 7, 7, 6, 5]);
        let many = Facts { volumes: 9, local: 1, ..Facts::default() };
        assert_eq!(points(&many), 6, "one of many is better than none");
    }

    #[test]
    fn the_reasons_are_for_people() {
        let facts = Facts { volumes: 2, local: 1, new: 1, with_room: 0, attaching: 3, ..Facts::default() };
        let why = score(&facts).why.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(why, ["good replica of 1 of 2", "room for 0 of 1 new", "3 being attached"]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn scores_stay_on_the_scale_and_never_reward_load(
            volumes in 0_usize..5, staged in 0_usize..5, local in 0_usize..5, attaching in 0_usize..200,
            leaving: bool,
        ) {
            let facts = Facts {
                volumes, staged, most_staged: staged.max(2), local: local.min(volumes), attaching, leaving,
                ..Facts::default()
            };
            prop_assert!((0..=BEST).contains(&points(&facts)));
            let busier = Facts { attaching: attaching + 1, ..facts.clone() };
            prop_assert!(points(&busier) <= points(&facts));
        }
    }
}
