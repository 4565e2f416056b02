# Kubernetes, etcd, CoreDNS, csi-attacher and csi-provisioner: one Go module (go/kubernetes), so that what they share compiles once.
# on failure: run `lab build` again, it goes on with what is compiled; needs a Go module proxy
. "$(dirname "$0")/../lib.sh"

out=$BIN_KUBERNETES
kubernetes_is_built && exit 77
IFS=. read -r major minor _ <<<"$KUBERNETES"
ldflags="-s -w"
for p in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
  ldflags+=" -X $p.gitVersion=v$KUBERNETES -X $p.gitMajor=$major -X $p.gitMinor=$minor -X $p.gitTreeState=clean"
  ldflags+=" -X $p.gitCommit=0000000000000000000000000000000000000000 -X $p.buildDate=2026-01-01T00:00:00Z"
done
rm -rf "$out.tmp"; mkdir -p "$out.tmp"
cd "$LAB_DIR/go/kubernetes"
CGO_ENABLED=0 go build -p 2 -mod=readonly -trimpath -buildvcs=false -ldflags "$ldflags" -o "$out.tmp/" \
  k8s.io/kubernetes/cmd/{kube-apiserver,kube-controller-manager,kube-scheduler,kube-proxy,kubeadm,kubectl,kubelet} \
  github.com/kubernetes-csi/external-attacher/v4/cmd/csi-attacher \
  github.com/kubernetes-csi/external-provisioner/v6/cmd/csi-provisioner \
  ./etcd ./coredns
finish "$out"
