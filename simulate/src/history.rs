//! Histories: a cluster, some backups, some moves, and what goes wrong meanwhile, all drawn from one seed.

use crate::{
    api::resource::{BACKUPS, HANDOFFS, PODS},
    chance::{Chance, Faults},
    cluster::{Cluster, STORAGE, Timing, WORKLOADS, key},
    json::{elements, is_deleting, is_ready, text},
    kubernetes::{Controller, Drained, cordon, delete_pod, drain, uncordon},
    longhorn::{Release, Upload, start_backup},
    replica::{Replica, Start},
    world::{Plan, Planned, backup},
};
use handoff_coordinator::policy::Policy;
use jiff::SignedDuration;
use std::{fmt, future::Future, sync::Arc, time::Duration};

/// Time until all pods run and a replica leads.
const WARM_UP: Duration = Duration::from_secs(15);
/// A drain that takes longer than this does not end by itself.
const LONGEST_DRAIN: Duration = Duration::from_mins(20);
/// How long a drain may find no room elsewhere: longer than any hold.
const NO_ROOM: (Duration, Duration) = (Duration::from_secs(170), Duration::from_secs(250));
/// How long nothing is attached: longer than a pre-stage lives.
const NO_ATTACHER: (Duration, Duration) = (Duration::from_secs(260), Duration::from_secs(400));
/// A replica's clock is wrong by no more than this.
const WRONG: Duration = Duration::from_secs(20);
/// All is over by then, or something hangs.
const LONGEST: Duration = Duration::from_hours(1);

/// What a history is made with.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Longhorn's release.
    pub release: Release,
    /// Bounds of the replicas.
    pub policy: Policy,
    /// Whether anything goes wrong.
    pub faults: bool,
}

/// How a history went.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What it was drawn from.
    pub seed: u64,
    /// Moves that were made.
    pub moves: usize,
    /// Invariants that did not hold.
    pub broken: Vec<String>,
    /// What happened.
    pub story: String,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\nseed {} of {} moves:", self.story, self.seed, self.moves)?;
        self.broken.iter().try_for_each(|what| writeln!(f, "  {what}"))
    }
}

/// Runs the history of a seed. An error is one of this machine, not of the history.
pub fn history(seed: u64, setting: &Setting) -> std::io::Result<Outcome> {
    crate::run(async {
        let chance = Chance::new(seed);
        let (plan, uploads) = draw(chance, setting);
        let cluster = plan.build();
        let scene = Scene::new(&cluster, chance, setting);
        tokio::time::sleep(WARM_UP).await;
        for (n, upload) in uploads.iter().enumerate() {
            let (cluster, upload) = (cluster.clone(), upload.clone());
            let begins = chance.between(Duration::ZERO, Duration::from_secs(40), ("backup", n));
            tokio::spawn(async move {
                tokio::time::sleep(begins).await;
                start_backup(&cluster, upload);
            });
        }
        let moves = scene.go_wrong_during(make_moves(&cluster, &plan, chance)).await;
        wait_until_over(&cluster, &plan, &uploads).await;
        cluster.witness.at_the_end();
        Outcome { seed, moves, broken: cluster.witness.broken(), story: cluster.witness.story() }
    })
}

fn draw(chance: Chance, setting: &Setting) -> (Plan, Vec<Upload>) {
    let mut plan = Plan::new(setting.release.clone(), 3 + usize::from(chance.happens(300, "fourth node")), chance);
    plan.timing = Timing {
        varies: true,
        kubelet_tick: Duration::from_secs(if chance.happens(500, "slow kubelets") { 10 } else { 1 }),
        ..Timing::default()
    };
    plan.agents = chance.happens(700, "agents");
    let mut uploads = Vec::new();
    for n in 0..=chance.below(3, "volumes") {
        let name = format!("db{n}");
        let controller =
            if chance.happens(650, ("kind", n)) { Controller::StatefulSet } else { Controller::Deployment };
        let other = if chance.happens(500, ("replica", n)) { "n01" } else { "n02" };
        plan.workloads.push(Planned::new(&name, controller, "n00", other));
        for m in 0..=chance.below(2, ("backups", n)) {
            let blocks = 5 + chance.below(60, ("blocks", n, m));
            let each = chance.between(Duration::from_millis(50), Duration::from_millis(700), ("block", n, m));
            let mut upload = backup(&name, &format!("backup-{n}-{m}"), blocks, each);
            upload.end_is_missed = chance.happens(250, ("missed", n, m));
            upload.full = chance.happens(150, ("full", n, m));
            uploads.push(upload);
        }
    }
    (plan, uploads)
}

/// Moves, one after the other. Returns how many pods were moved.
async fn make_moves(cluster: &Arc<Cluster>, plan: &Plan, chance: Chance) -> usize {
    let mut moves = 0;
    for n in 0..=chance.below(3, "moves") {
        tokio::time::sleep(chance.between(Duration::from_secs(1), Duration::from_secs(45), ("pause", n))).await;
        let busiest = busiest(cluster, plan);
        let here = |pod: &str| text_of_pod(cluster, pod, "/spec/nodeName") == busiest;
        moves += pods(cluster).iter().filter(|pod| here(pod)).count();
        if chance.happens(700, ("drain", n)) {
            if chance.happens(150, ("no room", n)) {
                leave_no_room(cluster, plan, &busiest, chance.between(NO_ROOM.0, NO_ROOM.1, ("no room for", n)));
            }
            drain_node(cluster, &busiest).await;
            tokio::time::sleep(chance.between(Duration::ZERO, Duration::from_mins(1), ("open", n))).await;
            uncordon(cluster, &busiest);
        } else {
            for pod in pods(cluster).into_iter().filter(|pod| here(pod)) {
                delete_pod(cluster, &key(WORKLOADS, &pod)).await;
            }
        }
    }
    moves
}

/// For so long no other node takes pods.
fn leave_no_room(cluster: &Arc<Cluster>, plan: &Plan, drained: &str, time: Duration) {
    cluster.witness.note(&format!("no other node takes pods for {time:?}"));
    for node in plan.nodes.iter().filter(|node| *node != drained) {
        cordon(cluster, node);
        let (cluster, node) = (cluster.clone(), node.clone());
        tokio::spawn(async move {
            tokio::time::sleep(time).await;
            uncordon(&cluster, &node);
        });
    }
}

/// Drains a node; that it ends by itself is one of the things that must hold.
pub async fn drain_node(cluster: &Arc<Cluster>, node: &str) -> Option<Drained> {
    cluster.witness.note(&format!("drain of {node} begins"));
    let drained = tokio::time::timeout(LONGEST_DRAIN, drain(cluster, node)).await.ok();
    match &drained {
        Some(drained) => cluster.witness.note(&format!("drain of {node} ended after {:?}", drained.took)),
        None => cluster.witness.breaks(&format!("the drain of {node} does not end by itself")),
    }
    drained
}

fn pods(cluster: &Cluster) -> Vec<String> {
    let (pods, _) = cluster.store.list(PODS, WORKLOADS);
    pods.iter().filter(|pod| !is_deleting(&pod.value)).map(|pod| pod.key().name).collect()
}

fn text_of_pod(cluster: &Cluster, pod: &str, pointer: &str) -> String {
    let pod = cluster.store.get(PODS, &key(WORKLOADS, pod));
    pod.map(|pod| text(&pod.value, pointer).to_owned()).unwrap_or_default()
}

fn busiest(cluster: &Cluster, plan: &Plan) -> String {
    let pods = pods(cluster);
    let load = |node: &String| pods.iter().filter(|pod| text_of_pod(cluster, pod, "/spec/nodeName") == *node).count();
    plan.nodes.iter().rev().max_by_key(|node| load(node)).cloned().unwrap_or_default()
}

/// Until every backup is complete, every pod is ready and nothing is owed.
pub async fn wait_until_over(cluster: &Cluster, plan: &Plan, uploads: &[Upload]) {
    let over = async {
        while !unfinished(cluster, plan, uploads).is_empty() {
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
    };
    if tokio::time::timeout(LONGEST, over).await.is_err() {
        unfinished(cluster, plan, uploads).iter().for_each(|what| cluster.witness.breaks(what));
    }
    for upload in uploads {
        let record = cluster.longhorn.target.record(&upload.name);
        if record.spoilt > 0 {
            cluster.witness.breaks(&format!("backup {} was run again when it was complete (invariant 2)", upload.name));
        }
    }
}

/// What is not as it has to be in the end.
fn unfinished(cluster: &Cluster, plan: &Plan, uploads: &[Upload]) -> Vec<String> {
    let mut unfinished = Vec::new();
    let (pods, _) = cluster.store.list(PODS, WORKLOADS);
    for planned in &plan.workloads {
        let of = |pod: &serde_json::Value| text(pod, "/metadata/labels/app") == planned.name;
        if !pods.iter().any(|pod| of(&pod.value) && is_ready(&pod.value) && !is_deleting(&pod.value)) {
            unfinished.push(format!("the pod of {} does not run", planned.name));
        }
    }
    let (handoffs, _) = cluster.store.list(HANDOFFS, "");
    for upload in uploads {
        let Upload { name, .. } = upload;
        let backup = cluster.store.get(BACKUPS, &key(STORAGE, name));
        let completed = backup.is_some_and(|b| text(&b.value, "/status/state") == "Completed");
        let superseded = handoffs.iter().flat_map(|h| elements(&h.value, "/status/resumes"));
        let superseded = superseded
            .filter(|r| text(r, "/backup") == name && text(r, "/state") == "Superseded")
            .any(|r| !text(r, "/reason").is_empty());
        if !(superseded || completed && cluster.longhorn.target.record(name).complete) {
            unfinished.push(format!("backup {name} is lost (invariant 1)"));
        }
    }
    for handoff in &handoffs {
        if text(&handoff.value, "/status/finishedAt").is_empty() {
            unfinished.push(format!("the handoff of {} is not finished", handoff.key().name));
        }
    }
    unfinished
}

/// Handoff's replicas, and what happens to them.
struct Scene {
    cluster: Arc<Cluster>,
    chance: Chance,
    setting: Setting,
    faults: Option<Faults>,
}

impl Scene {
    fn new(cluster: &Arc<Cluster>, chance: Chance, setting: &Setting) -> Self {
        if setting.faults {
            // what one replica writes down, another may judge by a clock that is wrong the other way
            cluster.witness.tolerate(2 * WRONG);
        }
        let faults = (setting.faults && chance.happens(800, "faults")).then(|| Faults::some(chance));
        Self { cluster: cluster.clone(), chance, setting: setting.clone(), faults }
    }

    fn replica(&self, number: usize) -> Replica {
        let start = Start { policy: self.setting.policy.clone(), faults: self.faults, crash: None };
        Replica::start(&self.cluster, &format!("handoff-{number}"), "n02", start)
    }

    /// Kills, wrong clocks and forgotten versions, as long as `moves` goes on. Afterwards all is well again.
    async fn go_wrong_during<T>(&self, moves: impl Future<Output = T>) -> T {
        let mut replicas = vec![self.replica(0), self.replica(1)];
        let mut number = 2;
        let mut moves = std::pin::pin!(moves);
        loop {
            let wait = self.chance.between(Duration::from_secs(2), Duration::from_secs(30), ("wrong", number));
            tokio::select! {
                biased;
                ended = &mut moves => {
                    // the rest is done by whoever is there, on a line without faults
                    let start = Start { policy: self.setting.policy.clone(), ..Start::default() };
                    Replica::start(&self.cluster, &format!("handoff-{number}"), "n02", start);
                    replicas.iter().for_each(Replica::kill);
                    return ended;
                }
                () = tokio::time::sleep(wait), if self.setting.faults => self.goes_wrong(&mut replicas, number),
            }
            number += 1;
        }
    }

    fn goes_wrong(&self, replicas: &mut [Replica], number: usize) {
        let which = usize::try_from(self.chance.below(2, ("which", number))).unwrap_or(0);
        let Some(replica) = replicas.get_mut(which) else { return };
        match self.chance.below(5, ("what", number)) {
            // once, in some histories
            _ if self.chance.happens(300, "attachers") && number == 3 => {
                let time = self.chance.between(NO_ATTACHER.0, NO_ATTACHER.1, ("no attacher for", number));
                self.cluster.witness.note(&format!("nothing is attached or detached for {time:?}"));
                self.cluster.longhorn.attachers_go();
                let cluster = self.cluster.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(time).await;
                    cluster.longhorn.attachers_come_back();
                });
            }
            0 => {
                replica.kill();
                *replica = self.replica(number);
            }
            1 => {
                let wrong = self.chance.between(Duration::ZERO, 2 * WRONG, ("clock", number));
                let ahead = SignedDuration::try_from(wrong).unwrap_or_default() - SignedDuration::from_secs(20);
                self.cluster.witness.note(&format!("the clock of {} is set {ahead:#} ahead", replica.name));
                replica.time.set_ahead(ahead);
            }
            2 => {
                self.cluster.witness.note("the API server forgets all versions");
                self.cluster.store.compact();
            }
            3 => {
                let seconds = 5 + self.chance.below(55, ("away", number));
                self.cluster.witness.note(&format!("the API server is away for {} for {seconds} s", replica.name));
                replica.line.away(Duration::from_secs(seconds));
            }
            _ => {}
        }
    }
}
