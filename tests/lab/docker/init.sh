#!/bin/bash
# Process 1 of the lab's private pid, network and mount namespaces: runs dockerd. When this process ends, the kernel
# ends everything in the lab with it. Argument: the state directory; LAB_CGROUP comes from lib.sh.
set -u
state=$1
ip link set lo up
mount -t tmpfs tmpfs /run     # sockets and locks of our own
mkdir -p /run/lock

# one cgroup above everything the lab starts, to be removed by `lab down`
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then    # version 2: one tree
  mkdir -p "/sys/fs/cgroup/$LAB_CGROUP"
else
  for c in /sys/fs/cgroup/*/; do mkdir -p "$c$LAB_CGROUP"; done
fi

# --dns: names outside the lab are to fail at once instead of after a timeout
dockerd --data-root "$state/docker" --exec-root /run/docker --host "unix://$state/docker.sock" \
  --pidfile /run/docker.pid --dns 127.0.0.1 --storage-driver overlay2 --ip6tables=false \
  --exec-opt native.cgroupdriver=cgroupfs --cgroup-parent "/$LAB_CGROUP" --log-opt max-size=20m \
  --add-runtime lab="$(dirname "$0")/runc-lab" --default-runtime lab &
wait    # bash reaps the shims' orphans meanwhile
