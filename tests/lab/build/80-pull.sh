# LAB_IMAGES=pull: kind's node image, Longhorn's released manifest, and the images that it names. All by the machine's
# own docker, as the lab's has no way out.
# on failure: needs a running docker daemon on this machine that reaches an image registry
. "$(dirname "$0")/../lib.sh"

fresh "$IMAGES_LONGHORN" "$0" "$LAB_DIR/versions.env" "$BASE.tar" "$BIN_VERSITYGW" "$BIN_SNAPSHOTTER" "$BIN_STANDIN" "$LAB_DIR/node/instance-manager" && exit 77
key=$made_of
unset DOCKER_HOST
root=$(mktemp -d "$IMAGES/tmp.XXXX"); trap 'rm -rf "$root"' EXIT

docker pull "$NODE_IMAGE"
docker save -o "$NODE_ROOT" "$NODE_IMAGE"
mkdir -p "$BIN_KUBERNETES"
container=$(docker create "$NODE_IMAGE")
docker cp "$container:/usr/bin/kubectl" "$BIN_KUBERNETES/kubectl"
docker rm "$container"

curl -fsSL "https://raw.githubusercontent.com/longhorn/longhorn/v$LONGHORN/deploy/longhorn.yaml" >"$LONGHORN_RELEASED"
images=$(grep -o 'longhornio/[a-z0-9-]*:v[A-Za-z0-9._-]*' "$LONGHORN_RELEASED" | sort -u)
for i in $images; do docker pull "$i"; done
# The stand-in is needed here as well: the kernel's iSCSI can be steered from the machine's own network namespace only,
# and the nodes have theirs.
manager=$(grep /longhorn-instance-manager: <<<"$images")
cp "$BIN_STANDIN" "$root/standin"; cp "$LAB_DIR/node/instance-manager" "$root/"
cat >"$root/Dockerfile" <<DOCKERFILE
FROM $manager
COPY standin /usr/sbin/tgtd
COPY standin /usr/sbin/tgtadm
COPY standin /usr/sbin/sg_raw
COPY instance-manager /usr/local/bin/instance-manager
DOCKERFILE
docker build -t "$manager" "$root"
# shellcheck disable=SC2086
docker save -o "$IMAGES_LONGHORN.tmp" $images
docker pull "$manager"     # the name is upstream's again

install -D -m755 "$BIN_VERSITYGW/versitygw" "$root/s3/versitygw"
layer "$root/s3" "$root/s3.tar"
install -D -m755 "$BIN_SNAPSHOTTER/snapshot-controller" "$root/snapshots/snapshot-controller"
layer "$root/snapshots" "$root/snapshots.tar"
image_archive "$IMAGES_CONTROL_PLANE" "lab.local/versitygw:1|$root/s3.tar|[\"/versitygw\"]" \
  "lab.local/snapshot-controller:1|$root/snapshots.tar|[\"/snapshot-controller\"]"
image_archive "$IMAGES_ALL" "lab.local/shell:1|$BASE.tar|null"
made_of=$key; finish "$IMAGES_LONGHORN"
