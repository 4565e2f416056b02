# kind; and containerd and the CNI plugins, which a pulled node image has already.
# on failure: run `lab build` again, it goes on with what is compiled; needs a Go module proxy
. "$(dirname "$0")/../lib.sh"

[ -d "$BIN_KIND" ] && { [ "$LAB_IMAGES" = pull ] || [ -d "$BIN_CONTAINERD" ] && [ -d "$BIN_CNI" ]; } && exit 77
cd /    # outside any module
# install DIR FLAGS PACKAGE@VERSION... : the binaries into DIR, which appears only when all are there
install() {
  local out=$1 ldflags=$2; shift 2
  [ -d "$out" ] && return
  mkdir -p "$out.tmp"
  CGO_ENABLED=0 GOBIN=$out.tmp go install -p 2 -trimpath -buildvcs=false -ldflags "-s -w $ldflags" "$@"
  mv "$out.tmp" "$out"
}
install "$BIN_KIND" "" sigs.k8s.io/kind@v"$KIND"
[ "$LAB_IMAGES" != pull ] || exit 0
install "$BIN_CONTAINERD" "-X github.com/containerd/containerd/v2/version.Version=v$CONTAINERD" \
  -tags no_btrfs,no_zfs,no_devmapper github.com/containerd/containerd/v2/cmd/{containerd,containerd-shim-runc-v2,ctr}@v"$CONTAINERD"
install "$BIN_CNI" "" github.com/containernetworking/plugins/plugins/{main/ptp,main/loopback,ipam/host-local,meta/portmap}@v"$CNI_PLUGINS"
