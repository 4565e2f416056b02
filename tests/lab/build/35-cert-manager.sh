# cert-manager: its controllers, its cainjector and its webhook out of its Go module, and its CustomResourceDefinitions.
# Its own programs are in no module, so go/cert-manager has a small main for each.
# on failure: run it again, it goes on with what is compiled; needs a Go module proxy
. "$(dirname "$0")/../lib.sh"

out=$BIN_CERT_MANAGER
module=$LAB_DIR/go/cert-manager
cert_manager_is_built && exit 77
rm -rf "$out.tmp"; mkdir -p "$out.tmp/crds"
cd "$module"
CGO_ENABLED=0 go build -p 2 -mod=readonly -trimpath -buildvcs=false -ldflags "-s -w" -o "$out.tmp/" \
  ./controller ./cainjector ./webhook
cp "$(go list -mod=readonly -m -f '{{.Dir}}' github.com/cert-manager/cert-manager)"/deploy/crds/*.yaml "$out.tmp/crds/"
finish "$out"
