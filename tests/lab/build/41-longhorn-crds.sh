# Longhorn's CustomResourceDefinitions, out of its manager's Go module: nothing is compiled for them.
# on failure: run `lab build` again; needs a Go module proxy
. "$(dirname "$0")/../lib.sh"

mkdir -p "$IMAGES"
module=$LAB_DIR/go/longhorn-$LONGHORN
inputs=("$0" "$module/go.mod")
[ -z "$LAB_LONGHORN_BIN" ] || inputs=("$0" "$LAB_LONGHORN_BIN/crds.yaml")
fresh "$LONGHORN_CRDS" "${inputs[@]}" && exit 77
if [ -n "$LAB_LONGHORN_BIN" ]; then
  crds=$LAB_LONGHORN_BIN/crds.yaml
else
  crds=$(cd "$module" && GONOSUMDB='github.com/longhorn/*' go mod download -json github.com/longhorn/longhorn-manager | sed -n 's/^\t"Dir": "\(.*\)",\{0,1\}$/\1/p')/k8s/crds.yaml
fi
sed 's/^  labels: {{.*$/  labels:/' "$crds" >"$LONGHORN_CRDS.tmp"   # its one line that is a Helm template
finish "$LONGHORN_CRDS"
