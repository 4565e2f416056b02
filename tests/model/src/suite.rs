//! The small worlds that are searched: one for each kind of trouble, and larger ones where several meet.

use crate::{model::Config, step::Watch, world::Budget};
use jiff::SignedDuration;

/// One move, nothing else.
pub const MOVE: Budget = Budget {
    moves: 1,
    unseen: 0,
    scales: 0,
    deletions: 0,
    abandons: 0,
    failures: 0,
    refusals: 0,
    crashes: 0,
    rivals: 0,
    stalls: 0,
    slow: 0,
};

/// What every test run searches.
pub fn small() -> Vec<Config> {
    let plain = Config { budget: MOVE, ..Config::default() };
    let with = |name, budget| Config { name, budget, ..plain };
    let two = Config { volumes: 2, ..plain };
    let stall = |name, watches| Config { name, watches, running: 0, budget: Budget { stalls: 1, ..MOVE }, ..plain };
    vec![
        with("a move", MOVE),
        Config { name: "a move of a Deployment", deployment: true, ..plain },
        Config { name: "a move, Longhorn waits for the upload", waits: true, ..plain },
        Config { name: "a move of a Deployment, Longhorn waits", waits: true, deployment: true, ..plain },
        Config { name: "a move among three nodes", nodes: 3, ..plain },
        with("a move that no review announced", Budget { unseen: 1, ..MOVE }),
        with("a person deletes a backup or a snapshot", Budget { deletions: 1, ..MOVE }),
        with("a person abandons an owed backup", Budget { abandons: 1, failures: 1, ..MOVE }),
        with("runs that fail", Budget { failures: 2, ..MOVE }),
        Config {
            name: "runs that fail, Longhorn's clock 10 s behind",
            clock_behind: SignedDuration::from_secs(10),
            budget: Budget { failures: 2, ..MOVE },
            ..plain
        },
        with("the volume may not be pre-staged for a while", Budget { refusals: 1, ..MOVE }),
        with("the leader dies", Budget { crashes: 1, ..MOVE }),
        with("the leader dies between any two steps", Budget { crashes: 1, slow: 1, ..MOVE }),
        stall("Longhorn's objects are seen late", &[Watch::Storage]),
        stall("handoffs are seen late", &[Watch::Handoffs]),
        Config { name: "two backups of one job", backups: 2, running: 1, same_job: true, ..plain },
        Config { name: "two volumes of a pod, one without a backup", bare: 1, ..two },
        Config {
            name: "two volumes of a pod, one without a backup, the leader dies",
            bare: 1,
            budget: Budget { crashes: 1, ..MOVE },
            ..two
        },
        Config { name: "two volumes of a pod, one without a backup, three nodes", bare: 1, nodes: 3, ..two },
        Config { name: "two volumes of a pod, Longhorn waits for the uploads", waits: true, ..two },
    ]
}

/// What takes minutes and gigabytes.
pub fn large() -> Vec<Config> {
    let plain = Config { budget: MOVE, ..Config::default() };
    let with = |name, budget| Config { name, budget, ..plain };
    vec![
        with("two moves", Budget { moves: 2, ..MOVE }),
        with("scaled to zero and back", Budget { scales: 1, ..MOVE }),
        with("two leaders for a moment", Budget { rivals: 1, slow: 1, ..MOVE }),
        Config { name: "two backups in flight", backups: 2, running: 2, ..plain },
        Config {
            name: "pods and nodes are seen late",
            watches: &[Watch::Kube],
            budget: Budget { stalls: 1, ..MOVE },
            ..plain
        },
        Config { name: "two volumes of a pod", volumes: 2, ..plain },
        Config { name: "two volumes of the pod of a Deployment", volumes: 2, deployment: true, ..plain },
        Config { name: "two moves, Longhorn waits", waits: true, budget: Budget { moves: 2, ..MOVE }, ..plain },
        Config { name: "two moves of a Deployment", deployment: true, budget: Budget { moves: 2, ..MOVE }, ..plain },
    ]
}
