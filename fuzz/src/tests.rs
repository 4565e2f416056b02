//! The corpus, whole and damaged.

use crate::{caches, certs, extender, mounts, records, webhook};
use proptest::prelude::*;
use std::path::PathBuf;

type Target = fn(&[u8]);

const TARGETS: [(&str, Target); 6] = [
    ("webhook", webhook),
    ("extender", extender),
    ("caches", caches),
    ("certs", certs),
    ("records", records),
    ("mounts", mounts),
];

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|file| std::fs::read(file).unwrap()).collect()
}

#[test]
fn the_corpus_is_read_or_refused() {
    for (name, target) in TARGETS {
        let inputs = corpus(name);
        assert!(!inputs.is_empty(), "{name}: no corpus");
        inputs.iter().for_each(|input| target(input));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn damaged_inputs_are_read_or_refused(
        which in any::<prop::sample::Index>(), cut in any::<prop::sample::Index>(), from in any::<prop::sample::Index>(),
        bytes in proptest::collection::vec(any::<u8>(), 0..8), at in any::<prop::sample::Index>(),
    ) {
        for (name, target) in TARGETS {
            let inputs = corpus(name);
            let mut input = which.get(&inputs).clone();
            // bytes in the middle, a piece of another input, an end that is missing
            let place = at.index(input.len() + 1);
            input.splice(place..place, bytes.iter().copied());
            let other = from.get(&inputs);
            let place = cut.index(input.len() + 1);
            input.splice(place.., other[other.len() / 2..].iter().copied());
            target(&input);
            target(&input[..at.index(input.len() + 1)]);
        }
    }
}
