//! Memory of a request is bounded by the size of its body, and given back. A program of its own, with one test, because
//! it is the process that is measured.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::{Value, json};

/// Resident memory may grow by so many bodies while a request is worked on: the body, what is read from it, the answer
/// as it is put together, the answer.
const BODIES: f64 = 4.0;
/// And by this, in MB, for what has nothing to do with the body: the allocator's own, pages of code that were not
/// touched before.
const BESIDES_MB: f64 = 6.0;

fn memory_mb(line: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let value = status.lines().find_map(|l| l.strip_prefix(line)).unwrap();
    value.trim().trim_end_matches(" kB").parse::<f64>().unwrap() * 1024.0 / 1e6
}

/// The most memory that `work` takes beyond what was taken before, in MB.
fn peak_mb(work: impl FnOnce()) -> f64 {
    // sets the high-water mark of resident memory to what it is now (proc(5), clear_refs)
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = memory_mb("VmRSS:");
    work();
    memory_mb("VmHWM:") - before
}

fn review(bytes: usize) -> String {
    let text = include_str!("../corpus/webhook/create-statefulset-pod");
    let mut review: Value = serde_json::from_str(text).unwrap();
    review["request"]["object"]["metadata"]["annotations"] = json!({"large": "x".repeat(bytes)});
    review.to_string()
}

fn args(nodes: usize) -> String {
    let text = include_str!("../corpus/extender/args-node-names");
    let mut args: Value = serde_json::from_str(text).unwrap();
    let node = |at: usize| json!({"metadata": {"name": format!("node-{at}")}, "status": {"images": "x".repeat(5000)}});
    args["Nodes"] = json!({"metadata": {}, "items": (0..nodes).map(node).collect::<Vec<_>>()});
    args["NodeNames"] = Value::Null;
    args.to_string()
}

#[test]
fn memory_of_a_request_is_bounded_by_its_body_and_given_back() {
    for (path, small, large) in [("/mutate/pods", review(1000), review(12 << 20)), ("/filter", args(10), args(4000))] {
        // what is made once: runtime, caches, figures
        handoff_fuzz::serve(path, small.as_bytes()).unwrap();
        #[allow(clippy::cast_precision_loss)]
        let body_mb = large.len() as f64 / 1e6;
        let bound = BODIES * body_mb + BESIDES_MB;
        let peak = peak_mb(|| {
            handoff_fuzz::serve(path, large.as_bytes()).unwrap();
        });
        assert!(peak <= bound, "{path}: {peak:.1} MB for a body of {body_mb:.1} MB");
        // ten requests take no more than one: nothing is kept
        let peak = peak_mb(|| {
            for _ in 0..10 {
                handoff_fuzz::serve(path, large.as_bytes()).unwrap();
            }
        });
        assert!(peak <= bound, "{path}: {peak:.1} MB after ten bodies of {body_mb:.1} MB");
    }
}
