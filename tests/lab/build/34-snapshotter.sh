# CSI snapshots: external-snapshotter's sidecar and controller, from the Go module of Kubernetes (go/kubernetes), and out
# of its modules the CRDs and the controller's access rights.
# on failure: run `lab build` again, it goes on with what is compiled; needs a Go module proxy
. "$(dirname "$0")/../lib.sh"

out=$BIN_SNAPSHOTTER
fresh "$out" "$0" "$LAB_DIR/go/kubernetes/go.mod" && exit 77
module=github.com/kubernetes-csi/external-snapshotter
rm -rf "$out.tmp"; mkdir -p "$out.tmp"
cd "$LAB_DIR/go/kubernetes"
CGO_ENABLED=0 go build -p 2 -mod=readonly -trimpath -buildvcs=false -ldflags "-s -w" -o "$out.tmp/" \
  $module/v8/cmd/{csi-snapshotter,snapshot-controller}
dir_of() { go list -mod=readonly -m -f '{{.Dir}}' "$1"; }
# group snapshots have a prefix of their own and are off by default
cat "$(dir_of $module/client/v8)"/config/crd/snapshot.storage.k8s.io_*.yaml >"$out.tmp/crds.yaml"
cat "$(dir_of $module/v8)/deploy/kubernetes/snapshot-controller/rbac-snapshot-controller.yaml" >"$out.tmp/rbac.yaml"
finish "$out"
