# A dockerd of the lab's own, in private namespaces (docker/init.sh).
# on failure: look into docker.log of the state directory; `lab down`, then `lab up` starts afresh
. "$(dirname "$0")/../lib.sh"

docker info >/dev/null 2>&1 && [ -n "$(lab_pid)" ] && exit 77
[ -f /sys/fs/cgroup/cgroup.controllers ] && {
  echo "this machine has cgroup v2 only; nodes built from packages need v1. Use LAB_IMAGES=pull there."; exit 1; }
old=$(outer_pid)
[ -z "$old" ] || kill -KILL "$old"     # takes all of a half-started lab with it
rm -f "$LAB_STATE/docker.sock"
mkdir -p "$LAB_STATE"
setsid unshare --net --mount --pid --fork --kill-child --mount-proc --propagation private \
  "$LAB_DIR/docker/init.sh" "$LAB_STATE" >>"$LAB_STATE/docker.log" 2>&1 </dev/null &
until_ok 30 dockerd docker info || { tail -n 20 "$LAB_STATE/docker.log"; exit 1; }
