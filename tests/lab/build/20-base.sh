# The one Debian root: nodes are made of it, and it is the lowest layer of every image that needs a shell.
# on failure: debootstrap needs root and the Debian mirror of /etc/apt
. "$(dirname "$0")/../lib.sh"

fresh "$BASE.tar" "$0" && exit 77
apt-get update -qq
# shellcheck disable=SC2016
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | awk '!/security/ && !n++')
# node: systemd to iproute2; kube-proxy: iptables, conntrack; Longhorn: tini, netcat (its probes), e2fsprogs, mount
packages=systemd,runc,ca-certificates,kmod,procps,ethtool,iproute2,iptables,nftables,conntrack
packages+=,bash,util-linux,mount,e2fsprogs,tini,netcat-openbsd

rm -rf "$BASE" "$BASE.tmp"
debootstrap --variant=minbase --include=$packages "$DEBIAN" "$BASE.tmp" "$mirror"
cd "$BASE.tmp"
rm -rf var/cache/apt/* var/lib/apt/lists/* var/log/* var/cache/debconf/*-old \
  usr/share/{doc,man,info,locale}/* usr/lib/udev/hwdb.* tmp/*
cd /
mv "$BASE.tmp" "$BASE"
layer "$BASE" "$BASE.tar.tmp"
finish "$BASE.tar"
