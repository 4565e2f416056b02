# CSI snapshots: CRDs, controller and the class of Longhorn's backups. The sidecar comes with Longhorn.
# on failure: `lab exec kubectl -n kube-system logs deployment/snapshot-controller`
. "$(dirname "$0")/../lib.sh"

kube apply --server-side -f "$BIN_SNAPSHOTTER/crds.yaml"
until_ok 30 'snapshot CRDs' kube wait --for=condition=Established --timeout=2s -f "$BIN_SNAPSHOTTER/crds.yaml"
kube apply -f "$BIN_SNAPSHOTTER/rbac.yaml" -f "$LAB_DIR/manifests/snapshots.yaml"
until_ok 90 'snapshot controller' kube -n kube-system rollout status deployment/snapshot-controller --timeout=1s
