# Longhorn's manager, engine and instance manager of one version, unpatched, from one Go module (go/longhorn-VERSION).
# Only the SPDK ("v2") engine is absent: its module is not to be had, go/spdk-stub stands in for it.
# on failure: run `lab build` again, it goes on with what is compiled; needs a Go module proxy
. "$(dirname "$0")/../lib.sh"

[ -z "$LAB_LONGHORN_BIN" ] || exit 77
module=$LAB_DIR/go/longhorn-$LONGHORN
fresh "$BIN_LONGHORN" "$module/go.mod" "$LAB_DIR"/go/spdk-stub/pkg/*/*.go && exit 77
# not always the manager's own number: the module proxy does not have every release of the engine
engine=$(sed -n 's/^.*github.com\/longhorn\/longhorn-engine \(v[^ ]*\).*$/\1/p' "$module/go.mod")
out=$BIN_LONGHORN.tmp
rm -rf "$out"; mkdir -p "$out"
cd "$module"
# The engine is cgo (libqcow) and is linked statically, as upstream does. All three with the same flags, or their
# common dependencies would be compiled twice. Longhorn's modules are not in Go's checksum database; go.sum pins them.
CGO_ENABLED=1 GONOSUMDB='github.com/longhorn/*' go build -p 2 -mod=readonly -trimpath -buildvcs=false \
  -tags netgo,osusergo -o "$out/" \
  -ldflags "-s -w -linkmode external -extldflags -static -X main.Version=$engine -X github.com/longhorn/longhorn-manager/meta.Version=v$LONGHORN" \
  github.com/longhorn/longhorn-{manager,engine,instance-manager}
mv "$out/longhorn-engine" "$out/longhorn"
finish "$BIN_LONGHORN"
