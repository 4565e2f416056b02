# The kind cluster: one control plane and LAB_WORKERS workers.
# on failure: `lab logs DIR` collects what the nodes say; `lab down`, then `lab up` starts afresh
. "$(dirname "$0")/../lib.sh"

all_nodes_ready() { [ "$(kube get nodes --no-headers | awk '$2 ~ /^Ready/' | wc -l)" = "$(wc -w <<<"$NODES")" ]; }
# shellcheck disable=SC2086
if [ "$(docker ps --format '{{.Names}}' | sort)" = "$(printf '%s\n' $NODES | sort)" ] &&
  until_ok 60 'all nodes Ready' all_nodes_ready; then exit 77; fi

if [ "$LAB_IMAGES" = pull ]; then
  image=$NODE_IMAGE own_cni=false
  docker load -i "$NODE_ROOT"
else
  # a name that follows the file, so that a rebuilt node image is not mistaken for the old one
  image=$NODE_IMAGE-$(stat -c %Y "$NODE_ROOT") own_cni=true
  docker image inspect "$image" >/dev/null 2>&1 ||
    docker import --change 'ENV container=docker PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
      --change 'ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]' "$NODE_ROOT" "$image"
fi

echo "$NODES" >"$LAB_STATE/nodes"    # node/pod-network reads it
# our nodes import what lies in /images when they boot
mount() { echo "  - {hostPath: $1, containerPath: $2, readOnly: true}"; }
extra_mounts() {
  echo "  extraMounts:"; mount "$LAB_STATE/nodes" /etc/lab-nodes; mount "$IMAGES_ALL" /images/all.tar
}
{
  cat <<CONFIG
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
networking: {disableDefaultCNI: $own_cni}
kubeadmConfigPatches:
- |
  kind: KubeletConfiguration
  metadata: {name: config}
  failCgroupV1: false
- |
  kind: ClusterConfiguration
  metadata: {name: config}
  controllerManager:
    # our nodes have fixed pod networks, see node/pod-network; kind's own CNI goes by what is allocated
    extraArgs: [{name: allocate-node-cidrs, value: "$([ $own_cni = true ] && echo false || echo true)"}]
nodes:
CONFIG
  echo "- role: control-plane"
  extra_mounts; mount "$IMAGES_CONTROL_PLANE" /images/control-plane.tar
  for _ in $WORKERS; do
    echo "- role: worker"
    extra_mounts; mount "$IMAGES_LONGHORN" /images/longhorn.tar
  done
} >"$LAB_STATE/kind.yaml"

in_lab kind delete cluster --name $CLUSTER --kubeconfig "$KUBECONFIG"
in_lab kind create cluster --name $CLUSTER --config "$LAB_STATE/kind.yaml" --image "$image" --kubeconfig "$KUBECONFIG" --retain
until_ok 120 'all nodes Ready' kube wait node --all --for=condition=Ready --timeout=2s

if [ "$LAB_IMAGES" = pull ]; then
  for n in $NODES; do docker cp "$BIN_STANDIN" "$n:/usr/sbin/iscsiadm"; done
  # shellcheck disable=SC2086
  { load_archive "$IMAGES_ALL" $NODES; load_archive "$IMAGES_CONTROL_PLANE" $CONTROL_PLANE; load_archive "$IMAGES_LONGHORN" $WORKERS; }
fi
