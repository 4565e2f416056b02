//! The comparator: the same verdicts, written as the examples of kube-rs write a webhook. The whole review is read into
//! `AdmissionReview<Pod>`, the answer is built with `AdmissionResponse`, and the extender's arguments are read into
//! types of k8s-openapi. It asks the same coordinator.

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State},
    routing::post,
};
use handoff_coordinator::verdicts::{Admission, DeletedPod, EvictionVerdict, NewPod, Placement, PodRef, Settings};
use json_patch::{AddOperation, Patch, PatchOperation, jsonptr::PointerBuf};
use k8s_openapi::{
    api::{
        core::v1::{
            Affinity, Binding, Node, NodeAffinity, NodeSelectorRequirement, NodeSelectorTerm, Pod,
            PreferredSchedulingTerm,
        },
        policy::v1::Eviction,
    },
    apimachinery::pkg::apis::meta::v1::ListMeta,
};
use kube::{
    ResourceExt,
    core::{
        DynamicObject,
        admission::{AdmissionRequest, AdmissionResponse, AdmissionReview},
    },
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc};

/// The comparator's routes, under the same paths as ours.
pub fn router<C: Admission + Placement>(coordinator: Arc<C>) -> Router {
    let webhook = Router::new()
        .route("/mutate/pods", post(create))
        .route("/validate/pods-delete", post(delete))
        .route("/validate/evictions", post(evict))
        .route("/validate/bindings", post(bind))
        .with_state(coordinator.clone() as Arc<dyn Admission>);
    let extender = Router::new()
        .route("/filter", post(filter))
        .route("/prioritize", post(prioritize))
        .with_state(coordinator as Arc<dyn Placement>);
    webhook.merge(extender).layer(DefaultBodyLimit::disable())
}

type Answer = Json<AdmissionReview<DynamicObject>>;

fn claims(pod: &Pod) -> Vec<String> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let claim = |volume: &k8s_openapi::api::core::v1::Volume| match (&volume.persistent_volume_claim, &volume.ephemeral)
    {
        (Some(source), _) => Some(source.claim_name.clone()),
        (None, Some(_)) => Some(format!("{}-{}", pod.name_any(), volume.name)),
        _ => None,
    };
    volumes.filter_map(claim).collect()
}

fn is_of_daemon_set(pod: &Pod) -> bool {
    pod.owner_references().iter().any(|owner| owner.kind == "DaemonSet")
}

async fn create(State(admission): State<Arc<dyn Admission>>, Json(review): Json<AdmissionReview<Pod>>) -> Answer {
    let request: AdmissionRequest<Pod> = match review.try_into() {
        Ok(request) => request,
        Err(error) => return Json(AdmissionResponse::invalid(error).into_review()),
    };
    let response = AdmissionResponse::from(&request);
    let Some(pod) = &request.object else { return Json(response.into_review()) };
    let claims = claims(pod);
    let assigned = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
    if assigned || is_of_daemon_set(pod) || claims.is_empty() {
        return Json(response.into_review());
    }
    let plan = admission.create(&NewPod {
        namespace: request.namespace.as_deref().unwrap_or_default(),
        settings: Settings::of(pod.metadata.annotations.as_ref()),
        claims: &claims,
        templates: &[],
    });
    let nodes = plan.nodes;
    if nodes.is_empty() {
        return Json(response.into_review());
    }
    let terms = nodes.into_iter().map(|node| PreferredSchedulingTerm {
        weight: node.weight,
        preference: NodeSelectorTerm {
            match_fields: Some(vec![NodeSelectorRequirement {
                key: "metadata.name".to_owned(),
                operator: "In".to_owned(),
                values: Some(vec![node.name]),
            }]),
            ..NodeSelectorTerm::default()
        },
    });
    let affinity = Affinity {
        node_affinity: Some(NodeAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(terms.collect()),
            ..NodeAffinity::default()
        }),
        ..Affinity::default()
    };
    let patched = serde_json::to_value(affinity).map_err(|error| error.to_string()).and_then(|value| {
        let path = PointerBuf::from_tokens(["spec", "affinity"]);
        let operations = Patch(vec![PatchOperation::Add(AddOperation { path, value })]);
        AdmissionResponse::from(&request).with_patch(operations).map_err(|error| error.to_string())
    });
    Json(patched.unwrap_or_else(AdmissionResponse::invalid).into_review())
}

async fn delete(State(admission): State<Arc<dyn Admission>>, Json(review): Json<AdmissionReview<Pod>>) -> Answer {
    let request: AdmissionRequest<Pod> = match review.try_into() {
        Ok(request) => request,
        Err(error) => return Json(AdmissionResponse::invalid(error).into_review()),
    };
    let by_kubelet = request.user_info.groups.iter().flatten().any(|group| group == "system:nodes");
    if let Some(pod) = request.old_object.as_ref().filter(|_| !by_kubelet) {
        let leaves = pod.metadata.deletion_timestamp.is_none() && !is_of_daemon_set(pod) && !claims(pod).is_empty();
        if leaves {
            let namespace = request.namespace.clone().unwrap_or_default();
            let deleted = DeletedPod {
                pod: PodRef { namespace, name: pod.name_any(), uid: pod.uid() },
                node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
                settings: Settings::of(pod.metadata.annotations.as_ref()),
                claims: claims(pod),
            };
            admission.delete(deleted, request.dry_run).await;
        }
    }
    Json(AdmissionResponse::from(&request).into_review())
}

async fn evict(State(admission): State<Arc<dyn Admission>>, Json(review): Json<AdmissionReview<Eviction>>) -> Answer {
    let request: AdmissionRequest<Eviction> = match review.try_into() {
        Ok(request) => request,
        Err(error) => return Json(AdmissionResponse::invalid(error).into_review()),
    };
    let namespace = request.namespace.clone().unwrap_or_default();
    let options = request.object.as_ref().and_then(|eviction| eviction.delete_options.as_ref());
    let uid = options.and_then(|options| options.preconditions.as_ref()?.uid.clone());
    let pod = PodRef { namespace, name: request.name.clone(), uid };
    let response = AdmissionResponse::from(&request);
    let response = match admission.evict(pod, request.dry_run).await {
        EvictionVerdict::Hold { message } | EvictionVerdict::Gone { message } => response.deny(message),
        EvictionVerdict::Allow { .. } => response,
    };
    Json(response.into_review())
}

async fn bind(State(admission): State<Arc<dyn Admission>>, Json(review): Json<AdmissionReview<Binding>>) -> Answer {
    let request: AdmissionRequest<Binding> = match review.try_into() {
        Ok(request) => request,
        Err(error) => return Json(AdmissionResponse::invalid(error).into_review()),
    };
    let response = AdmissionResponse::from(&request);
    let namespace = request.namespace.clone().unwrap_or_default();
    let Some(Binding { metadata, target }) = request.object else { return Json(response.into_review()) };
    let pod = PodRef { namespace, name: request.name, uid: metadata.uid };
    admission.bind(pod, target.name.unwrap_or_default(), request.dry_run).await;
    Json(response.into_review())
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Args {
    pod: Pod,
    nodes: Option<NodeList>,
    node_names: Option<Vec<String>>,
}

#[derive(Serialize, Deserialize)]
struct NodeList {
    #[serde(default)]
    metadata: ListMeta,
    items: Vec<Node>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Filtered {
    nodes: Option<NodeList>,
    node_names: Option<Vec<String>>,
    failed_nodes: Option<BTreeMap<String, String>>,
    failed_and_unresolvable_nodes: BTreeMap<String, String>,
    error: String,
}

async fn filter(State(placement): State<Arc<dyn Placement>>, Json(args): Json<Args>) -> Json<Filtered> {
    let Args { pod, mut nodes, mut node_names } = args;
    let mut failed = BTreeMap::new();
    let asked = PodRef { namespace: pod.namespace().unwrap_or_default(), name: pod.name_any(), uid: pod.uid() };
    let settings = Settings::of(pod.metadata.annotations.as_ref());
    if let Some(judge) = placement.judge(&asked, &settings, &claims(&pod)) {
        let mut passes = |name: &str| match judge.fits(name) {
            Ok(()) => true,
            Err(reason) => {
                failed.insert(name.to_owned(), reason);
                false
            }
        };
        if let Some(names) = &mut node_names {
            names.retain(|name| passes(name));
        }
        if let Some(list) = &mut nodes {
            list.items.retain(|node| passes(&node.name_any()));
        }
    }
    let error = String::new();
    Json(Filtered { nodes, node_names, failed_nodes: None, failed_and_unresolvable_nodes: failed, error })
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct HostPriority {
    host: String,
    score: i64,
}

async fn prioritize(State(placement): State<Arc<dyn Placement>>, Json(args): Json<Args>) -> Json<Vec<HostPriority>> {
    let Args { pod, nodes, node_names } = args;
    let asked = PodRef { namespace: pod.namespace().unwrap_or_default(), name: pod.name_any(), uid: pod.uid() };
    let settings = Settings::of(pod.metadata.annotations.as_ref());
    let judge = placement.judge(&asked, &settings, &claims(&pod));
    let of_nodes = nodes.into_iter().flat_map(|list| list.items).map(|node| node.name_any());
    let names = node_names.into_iter().flatten().chain(of_nodes);
    let scored = names.map(|host| HostPriority { score: judge.as_ref().map_or(0, |judge| judge.score(&host)), host });
    Json(scored.collect())
}
