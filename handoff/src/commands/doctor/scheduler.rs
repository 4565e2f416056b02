//! Whether we are asked at all: by the API server and by kube-scheduler. The replicas count it.

use super::{Check, State};
use crate::commands::{connection::Cluster, installation};
use axum::http::Request;
use handoff_extender::Verb;
use handoff_webhook::Hook;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt, api::ListParams};

/// Port of the metrics of a replica, where its pod does not name one.
const PORT: i32 = 8080;

/// Asks each replica.
pub async fn look(cluster: &Cluster) -> Vec<Check> {
    const NAME: &str = "scheduler extender";
    let api = Api::<Pod>::namespaced(cluster.client.clone(), &cluster.handoff);
    let of_ours = ListParams::default().labels(&format!("app.kubernetes.io/name={}", installation::NAME));
    let pods = match api.list(&of_ours).await {
        Ok(list) => list.items,
        Err(error) => return vec![Check::unknown(NAME, &error)],
    };
    let (mut pages, mut failed) = (Vec::new(), None);
    for pod in pods.iter().filter(|p| runs(p)) {
        let (name, port) = (pod.name_any(), port(pod));
        let path = format!("/api/v1/namespaces/{}/pods/{name}:{port}/proxy/metrics", cluster.handoff);
        let answer = match Request::get(path).body(Vec::new()) {
            Ok(request) => cluster.client.request_text(request).await,
            Err(error) => Err(kube::Error::HttpError(error)),
        };
        match answer {
            Ok(page) => pages.push(page),
            Err(error) => failed = Some(error),
        }
    }
    match (pages.is_empty(), failed) {
        (true, Some(error)) => vec![Check::unknown(NAME, &error)],
        (true, None) => Vec::new(),
        (false, _) => vec![extender(&pages), reviews(&pages)],
    }
}

fn runs(pod: &Pod) -> bool {
    pod.status.as_ref().is_some_and(|s| s.phase.as_deref() == Some("Running"))
}

fn port(pod: &Pod) -> i32 {
    let containers = pod.spec.iter().flat_map(|s| &s.containers);
    let ports = containers.flat_map(|c| c.ports.iter().flatten());
    ports.into_iter().find(|p| p.name.as_deref() == Some("metrics")).map_or(PORT, |p| p.container_port)
}

/// How often one of these was answered, over all replicas.
fn answered(pages: &[String], hooks: &[&str]) -> u64 {
    let lines = pages.iter().flat_map(|page| page.lines()).filter(|l| l.starts_with("handoff_review_seconds_count"));
    let of_hook = lines.filter(|line| hooks.iter().any(|hook| line.contains(&format!("\"{hook}\""))));
    of_hook.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

fn extender(pages: &[String]) -> Check {
    let asked = answered(pages, &[Verb::Filter, Verb::Prioritize].map(Verb::as_str));
    let says = match asked {
        0 => "no scheduler has asked since the replicas were started".to_owned(),
        asked => format!("asked {asked} times since the replicas were started"),
    };
    let fix = "optional: docs/scheduler-wiring.md. Without it, new pods are only drawn to nodes that can take \
               their volumes";
    Check::advised("scheduler extender", asked > 0, says, fix)
}

fn reviews(pages: &[String]) -> Check {
    use Hook::{Binding, Eviction, PodCreate, PodDelete, Snapshot, StorageEviction};
    let hooks = [Binding, Eviction, PodCreate, PodDelete, Snapshot, StorageEviction].map(Hook::as_str);
    let pods = answered(pages, &hooks);
    let says = match pods {
        0 => "no review has reached a replica since it was started: no pod with a claim has been made or deleted yet, or the API server does not reach the Service".to_owned(),
        pods => format!("{pods} have reached the replicas since they were started"),
    };
    let fix =
        "kubectl run or delete a pod with a claim and look again; the API server must reach the pods on port 8443";
    Check::new("reviews", if pods > 0 { State::Ok } else { State::Warning }, says, fix)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::fake::Api as Fake;
    use serde_json::json;

    const PAGE: &str = "\
# TYPE handoff_review_seconds histogram
handoff_review_seconds_sum{hook=\"filter\",outcome=\"judged\"} 0.5
handoff_review_seconds_count{hook=\"filter\",outcome=\"judged\"} 7
handoff_review_seconds_count{hook=\"prioritize\",outcome=\"judged\"} 5
handoff_review_seconds_count{hook=\"eviction\",outcome=\"allowed\"} 3
handoff_review_seconds_bucket{le=\"1.0\",hook=\"filter\",outcome=\"judged\"} 7
";

    #[test]
    fn whether_anybody_asks() {
        let pages = [PAGE.to_owned(), PAGE.to_owned()];
        assert_eq!(answered(&pages, &["filter", "prioritize"]), 24);
        assert_eq!((extender(&pages).state, reviews(&pages).state), (State::Ok, State::Ok));
        let silent = ["# TYPE handoff_review_seconds histogram\n".to_owned()];
        assert_eq!((extender(&silent).state, reviews(&silent).state), (State::Warning, State::Warning));
    }

    #[tokio::test]
    async fn each_replica_is_asked_on_its_port() {
        let api = Fake::default();
        let pod = |name: &str, phase: &str| {
            json!({"metadata": {"name": name}, "status": {"phase": phase}, "spec": {"containers": [
                {"name": "handoff", "ports": [{"name": "metrics", "containerPort": 9090}]}]}})
        };
        api.put_all("/api/v1/namespaces/handoff-system/pods", [pod("one", "Running"), pod("two", "Pending")]);
        let cluster = api.cluster("x");
        assert_eq!(look(&cluster).await[0].state, State::Unknown, "it does not answer");
        api.put_text("/api/v1/namespaces/handoff-system/pods/one:9090/proxy/metrics", PAGE);
        let checks = look(&cluster).await;
        assert_eq!(checks[0].says, "asked 12 times since the replicas were started");
    }
}
