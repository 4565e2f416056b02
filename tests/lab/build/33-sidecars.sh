# Three small helpers of ours (go/kubernetes/sidecars), which upstream publishes as images only.
# on failure: needs a Go module proxy
. "$(dirname "$0")/../lib.sh"

fresh "$BIN_SIDECARS" "$LAB_DIR"/go/kubernetes/{go.mod,sidecars/main.go} && exit 77
cd "$LAB_DIR/go/kubernetes"
CGO_ENABLED=0 go build -p 2 -mod=readonly -trimpath -buildvcs=false -ldflags "-s -w" -o "$BIN_SIDECARS.tmp" ./sidecars
finish "$BIN_SIDECARS"
