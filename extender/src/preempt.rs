//! Preempt: which pods may be evicted to make room. A move interrupts a backup, so nodes whose victims have none in
//! flight come first.

use std::{collections::HashSet, fmt, io::Write, marker::PhantomData};

use axum::body::Bytes;
use handoff_coordinator::verdicts::Placement;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};

use crate::{
    Answered, Deadline,
    observe::Outcome,
    wire::{Malformed, Members, Text, go_struct, text},
};

const NAME: &str = "ExtenderPreemptionArgs";

go_struct! {
    /// `ExtenderPreemptionArgs`: with `nodeCacheCapable` the second map is there, without it the first.
    PreemptionArgs {
        victims: Entries<'a, Victims<'a>> = "NodeNameToVictims",
        meta_victims: Entries<'a, Victims<'a>> = "NodeNameToMetaVictims",
    }
}

go_struct! {
    /// `Victims` or `MetaVictims`.
    Victims {
        pods: Vec<Option<Victim<'a>>> = "Pods",
        violations: i64 = "NumPDBViolations",
    }
}

go_struct! {
    /// A `v1.Pod` or a `MetaPod`: the one has its UID in its metadata, the other is nothing but a UID.
    Victim {
        uid: Text<'a> = "UID",
        metadata: Metadata<'a> = "metadata",
    }
}

#[derive(Deserialize)]
pub(crate) struct Metadata<'a> {
    #[serde(borrow)]
    uid: Option<Text<'a>>,
}

impl<'a> Victim<'a> {
    fn uid(&self) -> Option<&Text<'a>> {
        self.uid.as_ref().or(self.metadata.as_ref().and_then(|meta| meta.uid.as_ref()))
    }
}

/// The members of an object, in their order. A null value is an empty one.
pub(crate) struct Entries<'a, V>(Vec<(Text<'a>, V)>);

impl<'a, V: Deserialize<'a> + Default> Deserialize<'a> for Entries<'a, V> {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<V>(PhantomData<V>);

        impl<'a, V: Deserialize<'a> + Default> Visitor<'a> for Members<V> {
            type Value = Vec<(Text<'a>, V)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object by node name")
            }

            fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some((name, value)) = map.next_entry::<Text<'a>, Option<V>>()? {
                    entries.push((name, value.unwrap_or_default()));
                }
                Ok(entries)
            }
        }

        deserializer.deserialize_map(Members(PhantomData)).map(Entries)
    }
}

/// What counts of a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cost {
    /// Victims with a backup in flight.
    busy: usize,
    /// Disruption budgets that are violated.
    violations: i64,
}

impl Cost {
    /// Fewer backups are interrupted, and not at the price of disruption budgets: a backup is resumed, a budget is not.
    fn spares(self, other: Self) -> bool {
        self.busy < other.busy && self.violations <= other.violations
    }
}

/// Which candidates stay: those that no other one spares. So at least one of any number of candidates stays.
fn keep(costs: &[Cost]) -> Vec<bool> {
    // of all candidates with at most so many violations, the fewest victims with a backup in flight
    let mut order = costs.to_vec();
    order.sort_by_key(|cost| cost.violations);
    let mut fewest = usize::MAX;
    let best = order.iter().map(|cost| {
        fewest = fewest.min(cost.busy);
        (cost.violations, fewest)
    });
    let best = best.collect::<Vec<_>>();
    let stays = |cost: &Cost| {
        let upto = best.partition_point(|(violations, _)| *violations <= cost.violations);
        !best[..upto]
            .last()
            .is_some_and(|(violations, busy)| Cost { busy: *busy, violations: *violations }.spares(*cost))
    };
    costs.iter().map(stays).collect()
}

/// `ExtenderPreemptionResult` for `ExtenderPreemptionArgs`: always the meta form, the victims of each node as they came.
pub(crate) fn answer(placement: &dyn Placement, body: &Bytes, _: Deadline) -> Result<Answered, Malformed> {
    let args: PreemptionArgs<'_> = serde_json::from_slice(body).map_err(|error| Malformed::Json(NAME, error))?;
    let candidates = args.meta_victims.or(args.victims);
    let Entries(candidates) = candidates.ok_or(Malformed::Missing(NAME, "both maps of victims are"))?;
    let busy = placement.busy_pods();
    let costs = candidates.iter().map(|(_, victims)| cost(victims, &busy)).collect::<Vec<_>>();
    let kept = keep(&costs);

    let mut nodes = Members::open(r#"{"NodeNameToMetaVictims":{"#, body.len().min(1 << 16));
    for ((node, victims), _) in candidates.iter().zip(&kept).filter(|(_, kept)| **kept) {
        nodes.key(node)?;
        let mut pods = Members::open(r#"{"Pods":["#, 0);
        for victim in victims.pods.iter().flatten().flatten() {
            let uid = victim.uid().ok_or(Malformed::Missing(NAME, "the UID of a victim is"))?;
            let out = pods.next();
            out.extend_from_slice(br#"{"UID":"#);
            uid.write(out)?;
            out.push(b'}');
        }
        let mut entry = pods.close("],");
        write!(entry, r#""NumPDBViolations":{}}}"#, victims.violations.unwrap_or_default())
            .map_err(serde_json::Error::io)?;
        nodes.append(&mut entry);
    }
    let rejected = kept.iter().filter(|kept| !**kept).count();
    let outcome = if busy.is_empty() { Outcome::Passed } else { Outcome::Judged { rejected } };
    Ok(Answered { answer: nodes.close("}}").into(), outcome })
}

fn cost(victims: &Victims<'_>, busy: &HashSet<String>) -> Cost {
    let pods = victims.pods.iter().flatten().flatten();
    Cost {
        busy: pods.filter(|pod| busy.contains(text(pod.uid()))).count(),
        violations: victims.violations.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_goes_is_spared_by_what_stays(costs in vec((0_usize..4, 0_i64..4), 0..12)) {
            let costs: Vec<Cost> = costs.into_iter().map(|(busy, violations)| Cost { busy, violations }).collect();
            let kept = keep(&costs);
            for (cost, kept) in costs.iter().zip(&kept) {
                prop_assert_eq!(*kept, !costs.iter().any(|other| other.spares(*cost)));
            }
            prop_assert_eq!(kept.contains(&true), !costs.is_empty());
        }
    }
}
