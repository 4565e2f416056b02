# Debian packages of this machine: Docker, what builds root file systems, the C libraries of Longhorn's engine.
# on failure: apt-get needs root and a Debian mirror in /etc/apt
. "$(dirname "$0")/../lib.sh"

packages="docker.io containerd runc iptables nftables debootstrap iproute2 procps jq build-essential libqcow-dev zlib1g-dev ca-certificates"
[ "$LAB_IMAGES" != pull ] || packages+=" curl"
# shellcheck disable=SC2086
[ "$(dpkg-query -W -f '${db:Status-Status}\n' $packages 2>/dev/null | grep -cx installed)" = "$(wc -w <<<"$packages")" ] &&
  command -v docker >/dev/null && exit 77

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
# newer Debian has the client in a package of its own
command -v docker >/dev/null || apt-get install -y --no-install-recommends docker-cli
