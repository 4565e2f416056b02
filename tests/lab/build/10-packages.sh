# Debian packages of this machine: Docker, what builds root file systems, the C libraries of Longhorn's engine.
# on failure: apt-get needs root and a Debian mirror in /etc/apt
. "$(dirname "$0")/../lib.sh"

packages="docker.io containerd runc iptables nftables debootstrap iproute2 procps jq libqcow-dev zlib1g-dev gcc libc6-dev"
# shellcheck disable=SC2086
dpkg-query -W -f '${db:Status-Status}\n' $packages 2>/dev/null | grep -vqx installed ||
  [ "$(dpkg-query -W $packages 2>/dev/null | wc -l)" -lt "$(wc -w <<<"$packages")" ] || exit 77

# the lab starts its own dockerd; the packages must start nothing on this machine
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
  printf '#!/bin/sh\nexit 101\n' >$policy; chmod 755 $policy
  trap 'rm -f $policy' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086
apt-get install -y --no-install-recommends $packages
