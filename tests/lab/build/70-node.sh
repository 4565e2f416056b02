# The root file system of a kind node: base + Kubernetes' node programs + our units (node/).
. "$(dirname "$0")/../lib.sh"

# shellcheck disable=SC2046
fresh "$NODE_ROOT" "$0" $(find "$LAB_DIR/node" -type f | LC_ALL=C sort) "$BASE.tar" "$BIN_KUBERNETES" "$BIN_CONTAINERD" "$BIN_CNI" "$BIN_STANDIN" && exit 77
root=$(mktemp -d "$IMAGES/tmp.XXXX"); trap 'rm -rf "$root"' EXIT
cp -a "$BASE/." "$root"
chmod 755 "$root"
cd "$root"

install -m755 "$BIN_KUBERNETES"/{kubelet,kubeadm,kubectl} usr/bin/
install -m755 "$BIN_CONTAINERD"/* usr/local/bin/
install -D -m755 -t opt/cni/bin "$BIN_CNI"/*
install -m755 "$BIN_STANDIN" usr/sbin/iscsiadm
install -m755 "$LAB_DIR"/node/{entrypoint,pod-network,import-images} usr/local/bin/
install -D -m644 -t etc/containerd "$LAB_DIR/node/config.toml"
sed -i "s|@PAUSE@|$(usr/bin/kubeadm config images list --kubernetes-version "v$KUBERNETES" 2>/dev/null | grep /pause:)|" etc/containerd/config.toml
mkdir -p kind/manifests etc/kubernetes/manifests etc/cni/net.d
printf 'v%s' "$KUBERNETES" >kind/version
echo 'KUBELET_EXTRA_ARGS=--runtime-cgroups=/system.slice/containerd.service' >etc/default/kubelet

# systemd: nothing of Debian's that looks after hardware, consoles, disks or package updates; no sysctl files, they
# would change the machine. Then our five units.
rm -f etc/sysctl.d/* usr/lib/sysctl.d/* etc/systemd/system/*.wants/* \
  usr/lib/systemd/system/{multi-user,local-fs,basic}.target.wants/* \
  usr/lib/systemd/system/sockets.target.wants/*{udev,initctl}* \
  usr/lib/systemd/system/sysinit.target.wants/systemd-tmpfiles-setup.service
for u in systemd-binfmt.service systemd-udevd.service systemd-udev-trigger.service systemd-logind.service \
  systemd-modules-load.service systemd-remount-fs.service systemd-tmpfiles-clean.timer \
  dev-hugepages.mount dev-mqueue.mount proc-sys-fs-binfmt_misc.automount proc-sys-fs-binfmt_misc.mount \
  sys-kernel-debug.mount sys-kernel-tracing.mount sys-kernel-config.mount sys-fs-fuse-connections.mount \
  apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer fstrim.timer dpkg-db-backup.timer; do
  ln -sf /dev/null "etc/systemd/system/$u"
done
install -m644 -t etc/systemd/system "$LAB_DIR"/node/units/*.service "$LAB_DIR"/node/units/*.slice
install -D -m644 "$LAB_DIR/node/units/10-kubeadm.conf" etc/systemd/system/kubelet.service.d/10-kubeadm.conf
mkdir -p etc/systemd/system/multi-user.target.wants etc/systemd/journald.conf.d
for u in "$LAB_DIR"/node/units/*.service; do
  ln -s "/etc/systemd/system/$(basename "$u")" etc/systemd/system/multi-user.target.wants/
done
ln -sf multi-user.target usr/lib/systemd/system/default.target
ln -sf /lib/systemd/systemd usr/sbin/init
printf '[Journal]\nReadKMsg=no\nRuntimeMaxUse=64M\nStorage=volatile\n' >etc/systemd/journald.conf.d/lab.conf

tar --numeric-owner -cf "$NODE_ROOT.tmp" .
finish "$NODE_ROOT"
