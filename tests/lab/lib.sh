# Shared by `lab` and by the step scripts in build/ and up/. Sourced, never run.
set -euo pipefail

LAB_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
REPO=$(cd "$LAB_DIR/../.." && pwd)
# shellcheck source=versions.env
. "$LAB_DIR/versions.env"

# what is built, and survives `down`; what runs, and is gone after it
HANDOFF_CACHE=$(realpath -m "${HANDOFF_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/handoff}")
LAB_STATE=$(realpath -m "${LAB_STATE:-/var/lib/handoff-lab}")
# Labs beside each other differ in LAB_STATE. All else that the machine knows by name is the cgroup above everything:
LAB_CGROUP=handoff-lab
[ "$LAB_STATE" = /var/lib/handoff-lab ] || LAB_CGROUP+=-$(cksum <<<"$LAB_STATE" | cut -d' ' -f1)
export HANDOFF_CACHE LAB_STATE LAB_CGROUP
export LONGHORN=${LONGHORN:-$LONGHORN_DEFAULT}
# the newest first
LONGHORN_BUILDABLE=$(basename -a "$LAB_DIR"/go/longhorn-* | sed 's/^longhorn-//' | sort -rV | paste -sd ' ')
export LAB_WORKERS=${LAB_WORKERS:-2}
export LAB_LONGHORN_BIN=${LAB_LONGHORN_BIN:+$(realpath -m "$LAB_LONGHORN_BIN")} LAB_IMAGES=${LAB_IMAGES:-build}

CLUSTER=lab
CONTROL_PLANE=$CLUSTER-control-plane
WORKERS=$CLUSTER-worker    # the names kind gives
for n in $(seq 2 "$LAB_WORKERS"); do WORKERS+=" $CLUSTER-worker$n"; done
NODES="$CONTROL_PLANE $WORKERS"

# --- products in the cache, each named by its version
BIN_KUBERNETES=$HANDOFF_CACHE/bin/kubernetes-$KUBERNETES
BIN_KIND=$HANDOFF_CACHE/bin/kind-$KIND
BIN_CONTAINERD=$HANDOFF_CACHE/bin/containerd-$CONTAINERD
BIN_CNI=$HANDOFF_CACHE/bin/cni-$CNI_PLUGINS
BIN_VERSITYGW=$HANDOFF_CACHE/bin/versitygw-$VERSITYGW
BIN_SIDECARS=$HANDOFF_CACHE/bin/sidecars
BIN_SNAPSHOTTER=$HANDOFF_CACHE/bin/external-snapshotter    # with its CRDs and access rights
BIN_CERT_MANAGER=$HANDOFF_CACHE/bin/cert-manager-$CERT_MANAGER    # with its CRDs; for tests without nodes only
BIN_STANDIN=$HANDOFF_CACHE/bin/iscsi-standin
BASE=$HANDOFF_CACHE/base-$DEBIAN                   # a root directory, and BASE.tar, the same as an image layer
IMAGES=$HANDOFF_CACHE/images
NODE_IMAGE=kindest/node:v$KUBERNETES-lab
NODE_ROOT=$IMAGES/node-$KUBERNETES.tar             # its root file system, for `docker import`
IMAGES_ALL=$IMAGES/all-$KUBERNETES.tar             # archives the nodes import when they boot
IMAGES_CONTROL_PLANE=$IMAGES/control-plane-$KUBERNETES.tar
if [ "$LAB_IMAGES" = pull ]; then
  LONGHORN_KEY=$LONGHORN-pulled
  BIN_KUBERNETES=$HANDOFF_CACHE/bin/kubernetes-pulled    # kubectl only, out of the node image
  NODE_IMAGE=$KIND_NODE_IMAGE
  NODE_ROOT=$IMAGES/node-pulled.tar                      # `docker save` of it
  IMAGES_ALL=$IMAGES/all-pulled.tar
  IMAGES_CONTROL_PLANE=$IMAGES/control-plane-pulled.tar
elif [ -n "$LAB_LONGHORN_BIN" ]; then
  BIN_LONGHORN=$LAB_LONGHORN_BIN
  # a name that follows the files: other binaries under the same version number are another image archive
  LONGHORN_KEY=$LONGHORN-own-$(stat -Lc '%n %s %Y' "$LAB_LONGHORN_BIN"/* 2>/dev/null | sha256sum | cut -c1-8)
else
  BIN_LONGHORN=$HANDOFF_CACHE/bin/longhorn-$LONGHORN
  LONGHORN_KEY=$LONGHORN
fi
IMAGES_LONGHORN=$IMAGES/longhorn-$LONGHORN_KEY.tar
LONGHORN_CRDS=$IMAGES/longhorn-$LONGHORN_KEY-crds.yaml
LONGHORN_RELEASED=$IMAGES/longhorn-$LONGHORN_KEY.yaml    # its released manifest, when images are pulled

export DOCKER_HOST=unix://$LAB_STATE/docker.sock KUBECONFIG=$LAB_STATE/kubeconfig
export PATH=$BIN_KUBERNETES:$BIN_KIND:$PATH

say() { printf '%s %s\n' "$(date +%T)" "$*" >&2; }
die() { printf 'lab: %s\n' "$*" >&2; exit 1; }

# fresh OUT INPUT... : OUT is made of these inputs. Files of this repository count by content, as a new clone gives them
# new times; products by size and time. If it is not: make OUT.tmp, then call `finish OUT`.
fresh() {
  local out=$1 in; shift
  made_of=$(for in; do
    case $in in "$REPO"/*) sha256sum <"$in" ;; *) stat -Lc '%s %Y' "$in" ;; esac
  done | sha256sum)
  [ -e "$out" ] && [ "$made_of" = "$(cat "$out.made-of" 2>/dev/null)" ]
}
finish() { rm -rf "$1"; mv "$1.tmp" "$1"; echo "$made_of" >"$1.made-of"; }

cert_manager_is_built() {
  fresh "$BIN_CERT_MANAGER" "$LAB_DIR"/go/cert-manager/{go.mod,go.sum,controller/main.go,cainjector/main.go,webhook/main.go}
}
kubernetes_is_built() { fresh "$BIN_KUBERNETES" "$LAB_DIR"/go/kubernetes/{go.mod,etcd/main.go,coredns/main.go}; }

# step DIR/NAME.sh [NAME] : runs one step, says how long it took, keeps its output in a log file.
# A step that finds nothing to do exits with 77; then the time of its last real run stays on record.
step() {
  local file=$1 name log rc=0 real user sys
  name=${2:-$(basename "$file" .sh)}
  log=$STEP_LOGS/$name.log
  mkdir -p "$STEP_LOGS"
  say "$name ..."
  local TIMEFORMAT='%R %U %S'
  { time bash -euo pipefail "$file" >"$log" 2>&1; } 2>"$log.time" || rc=$?
  read -r real user sys <"$log.time" || true
  rm -f "$log.time"
  case $rc in
    0) say "$name: ${real}s"
       printf '%s\t%s\t%s\t%s\n' "$name" "$real" "$user" "$sys" >"$STEP_LOGS/$name.cost" ;;
    77) say "$name: already done" ;;
    *) { echo; echo "lab: step $name failed after ${real}s; the end of $log:"; tail -n 25 "$log"; echo
         sed -n 's/^# on failure: /lab: /p' "$file"; } >&2
       exit 1 ;;
  esac
}

# costs : a table of what the steps took when they last ran
costs() {
  printf '%-24s %9s %9s\n' step 'wall s' 'CPU s'
  cat "$1"/*.cost 2>/dev/null |
    awk -F'\t' '{printf "%-24s %9.0f %9.0f\n", $1, $2, $3+$4; w+=$2; c+=$3+$4} END {printf "%-24s %9.0f %9.0f\n", "sum", w, c}'
}

# --- the lab's namespaces: process 1 of a private pid, net and mount namespace holds dockerd (docker/init.sh)
outer_pid() { pgrep -f "^unshare --net --mount --pid .*/docker/init.sh $(sed 's/[^a-zA-Z0-9/_-]/[&]/g' <<<"$LAB_STATE")\$" | head -n1 || true; }
lab_pid() { local p; p=$(outer_pid); [ -n "$p" ] && pgrep -P "$p" | head -n1; }

# in_lab CMD... : runs CMD there (the API server and the pods are reachable only from inside)
in_lab() {
  if [ "${HANDOFF_LAB_INSIDE:-}" = "$LAB_STATE" ]; then "$@"; return; fi
  local pid
  pid=$(lab_pid) || die "the lab is not up (start it with: $LAB_DIR/lab up)"
  # nsenter -m forgets the working directory, so go back to it
  # shellcheck disable=SC2016
  HANDOFF_LAB_INSIDE=$LAB_STATE nsenter -t "$pid" --net --mount --pid -- bash -c 'cd "$0" && exec "$@"' "$PWD" "$@"
}
kube() { in_lab kubectl "$@"; }
on_node() { docker exec -i "$@"; }

# until_ok SECONDS WHAT CMD... : repeats CMD until it succeeds
until_ok() {
  local limit=$1 what=$2 t0=$SECONDS; shift 2
  until "$@" >/dev/null 2>&1; do
    if [ $((SECONDS - t0)) -ge "$limit" ]; then
      echo "gave up after ${limit}s waiting for: $what"; "$@" || true; return 1
    fi
    sleep 0.5
  done
  echo "$what: after $((SECONDS - t0))s"
}

# layer DIR OUT.tar : a directory as an image layer, the same bytes for the same content
layer() { tar --sort=name --mtime=@0 --numeric-owner --owner=0 --group=0 -C "$1" -cf "$2" .; }

# image_archive OUT.tar 'NAME:TAG|LAYER.tar[,LAYER.tar]|ENTRYPOINT-JSON[|USER]' ...
# writes a docker-archive with one or several images; a layer they share is stored once
image_archive() {
  local out=$1 spec name layers entry user l sum ids files config manifest='[]' work; shift
  work=$(mktemp -d)
  declare -A digest=()
  for spec; do
    IFS='|' read -r name layers entry user <<<"$spec"
    ids='[]' files='[]'
    for l in ${layers//,/ }; do
      if [ -z "${digest[$l]:-}" ]; then
        sum=$(sha256sum <"$l"); digest[$l]=${sum%% *}
        ln -sf "$(realpath "$l")" "$work/${digest[$l]}.tar"
      fi
      ids=$(jq -c --arg d "sha256:${digest[$l]}" '. + [$d]' <<<"$ids")
      files=$(jq -c --arg f "${digest[$l]}.tar" '. + [$f]' <<<"$files")
    done
    # the label makes the configuration, and so the image id, differ between names over the same layers
    jq -nc --arg name "$name" --argjson ids "$ids" --argjson entry "$entry" --arg user "${user:-}" '
      {architecture: "amd64", os: "linux", created: "2026-01-01T00:00:00Z",
       config: {Entrypoint: $entry, User: $user, WorkingDir: "/", Labels: {"lab.local/name": $name},
                Env: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]},
       rootfs: {type: "layers", diff_ids: $ids},
       history: ($ids | map({created: "2026-01-01T00:00:00Z", created_by: "handoff lab"}))}' >"$work/config"
    sum=$(sha256sum <"$work/config"); config=${sum%% *}.json
    mv "$work/config" "$work/$config"
    manifest=$(jq -c --arg c "$config" --arg n "$name" --argjson l "$files" \
      '. + [{Config: $c, RepoTags: [$n], Layers: $l}]' <<<"$manifest")
  done
  printf '%s' "$manifest" >"$work/manifest.json"
  tar -C "$work" --dereference -cf "$out.tmp" . && mv "$out.tmp" "$out"
  rm -rf "$work"
}

# load_archive FILE NODE... : into containerd of the nodes, all at once
load_archive() {
  local file=$1 n pids=(); shift
  for n; do on_node "$n" env CONTAINERD_SUPPRESS_DEPRECATION_WARNINGS=1 ctr -n k8s.io images import --local --discard-unpacked-layers - <"$file" & pids+=($!); done
  for n in "${pids[@]}"; do wait "$n"; done
}
