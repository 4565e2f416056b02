# Image archives out of the binaries, without any daemon. Three: for all nodes, for the control plane, and Longhorn's.
. "$(dirname "$0")/../lib.sh"

mkdir -p "$IMAGES"
done_before=true
root=$(mktemp -d "$IMAGES/tmp.XXXX"); trap 'rm -rf "$root"' EXIT

# put NAME FILE DEST... : a directory $root/NAME with the files at their places, and its layer $root/NAME.tar
put() {
  local name=$1; shift
  while [ $# -gt 0 ]; do install -D -m755 "$1" "$root/$name$2"; shift 2; done
  layer "$root/$name" "$root/$name.tar"
}
kubeadm_images=$("$BIN_KUBERNETES/kubeadm" config images list --kubernetes-version "v$KUBERNETES" 2>/dev/null)
name_of() { grep "/$1:" <<<"$kubeadm_images"; }
K=$BIN_KUBERNETES

if ! fresh "$IMAGES_ALL" "$0" "$BASE.tar" "$K" "$LAB_DIR/node/pause.c"; then
  done_before=false
  gcc -Os -static -s -o "$root/pause.bin" "$LAB_DIR/node/pause.c"
  put pause "$root/pause.bin" /pause
  put coredns "$K/coredns" /coredns
  put kube-proxy "$K/kube-proxy" /usr/local/bin/kube-proxy
  image_archive "$IMAGES_ALL.tmp" \
    "$(name_of pause)|$root/pause.tar|[\"/pause\"]" \
    "$(name_of coredns)|$root/coredns.tar|[\"/coredns\"]" \
    "$(name_of kube-proxy)|$BASE.tar,$root/kube-proxy.tar|null" \
    "lab.local/shell:1|$BASE.tar|null"
  finish "$IMAGES_ALL"
fi

if ! fresh "$IMAGES_CONTROL_PLANE" "$0" "$K" "$BIN_VERSITYGW" "$BIN_SNAPSHOTTER"; then
  done_before=false
  specs=()
  for c in kube-apiserver kube-controller-manager kube-scheduler etcd; do
    put $c "$K/$c" /usr/local/bin/$c
    specs+=("$(name_of $c)|$root/$c.tar|null")
  done
  put versitygw "$BIN_VERSITYGW/versitygw" /versitygw
  put snapshot-controller "$BIN_SNAPSHOTTER/snapshot-controller" /snapshot-controller
  image_archive "$IMAGES_CONTROL_PLANE.tmp" "${specs[@]}" \
    "lab.local/versitygw:1|$root/versitygw.tar|[\"/versitygw\"]" \
    "lab.local/snapshot-controller:1|$root/snapshot-controller.tar|[\"/snapshot-controller\"]"
  finish "$IMAGES_CONTROL_PLANE"
fi

if ! fresh "$IMAGES_LONGHORN" "$0" "$BASE.tar" "$BIN_STANDIN" "$LAB_DIR/node/instance-manager" "$K" "$BIN_SIDECARS" "$BIN_SNAPSHOTTER" "$BIN_LONGHORN"/longhorn*; then
  done_before=false
  # every program of Longhorn in one layer; the images differ by name only, the manifest says which program to run
  put longhorn "$BIN_LONGHORN/longhorn-manager" /usr/local/sbin/longhorn-manager \
    "$BIN_LONGHORN/longhorn" /usr/local/bin/longhorn \
    "$BIN_LONGHORN/longhorn-instance-manager" /usr/local/bin/longhorn-instance-manager \
    "$LAB_DIR/node/instance-manager" /usr/local/bin/instance-manager \
    "$BIN_SIDECARS" /usr/local/bin/grpc_health_probe \
    "$BIN_STANDIN" /usr/sbin/tgtd "$BIN_STANDIN" /usr/sbin/tgtadm "$BIN_STANDIN" /usr/sbin/sg_raw
  put csi "$K/csi-attacher" /usr/local/bin/csi-attacher "$K/csi-provisioner" /usr/local/bin/csi-provisioner \
    "$BIN_SNAPSHOTTER/csi-snapshotter" /usr/local/bin/csi-snapshotter \
    "$BIN_SIDECARS" /usr/local/bin/csi-node-driver-registrar "$BIN_SIDECARS" /usr/local/bin/livenessprobe
  layers=$BASE.tar,$root/longhorn.tar
  specs=("docker.io/longhornio/longhorn-manager:v$LONGHORN|$layers|null")
  for i in longhorn-engine longhorn-instance-manager longhorn-share-manager backing-image-manager; do
    specs+=("docker.io/longhornio/$i:v$LONGHORN|$layers|[\"/usr/bin/tini\", \"--\"]")
  done
  for i in csi-attacher csi-provisioner csi-snapshotter csi-node-driver-registrar livenessprobe; do
    specs+=("docker.io/longhornio/$i:lab|$BASE.tar,$root/csi.tar|[\"/usr/local/bin/$i\"]")
  done
  image_archive "$IMAGES_LONGHORN.tmp" "${specs[@]}"
  finish "$IMAGES_LONGHORN"
fi

if $done_before; then exit 77; fi
