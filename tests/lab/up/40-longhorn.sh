# Longhorn, and its backup target on the S3 server.
# on failure: `lab exec kubectl -n longhorn-system get pods` says what is missing; `lab logs DIR` collects all logs
. "$(dirname "$0")/../lib.sh"

manifests() {
  if [ "$LAB_IMAGES" = pull ]; then
    # replicas as in our own manifest, and the toleration for what Longhorn does not deploy itself
    sed -E -e 's/numberOfReplicas: "3"/numberOfReplicas: "2"/' \
      -e 's/^( *)serviceAccountName: longhorn-service-account$/&\n\1tolerations: [{key: lab.local\/maintenance, operator: Exists, effect: NoExecute}]/' \
      "$LONGHORN_RELEASED"
    return
  fi
  # 1.8 and older convert between two versions of their API in a webhook of their own, and are ready when it is
  local probe=9502 conversion=/dev/null
  case $LONGHORN in 1.[0-8].*) probe=9501 conversion=$LAB_DIR/manifests/longhorn-conversion.yaml ;; esac
  cat "$LONGHORN_CRDS"; echo ---
  sed -e "s/@VERSION@/v$LONGHORN/g" -e "s/@PROBE@/$probe/" "$LAB_DIR/manifests/longhorn.yaml"
  cat "$conversion"
}
# Before Longhorn, as its pods are to start with these settings; a released manifest brings a ConfigMap of its own.
settings=$LAB_DIR/manifests/longhorn-settings.yaml
kube apply -f "$settings"
manifests | kube apply --server-side --force-conflicts -f -
[ "$LAB_IMAGES" != pull ] || kube apply -f "$settings"
instance_managers_run() {
  [ "$(kube -n longhorn-system get instancemanagers.longhorn.io -o 'jsonpath={.items[*].status.currentState}' |
    grep -ow running | wc -l)" = "$LAB_WORKERS" ]
}
L="-n longhorn-system"
set_backup_target() {
  local url=s3://backups@us-east-1/ secret=s3-secret
  # shellcheck disable=SC2086
  case $LONGHORN in
    # its object follows two settings, and would be set back to them
    1.7.*) kube $L patch settings.longhorn.io backup-target-credential-secret --type merge -p '{"value": "'$secret'"}'
      kube $L patch settings.longhorn.io backup-target --type merge -p '{"value": "'$url'"}' ;;
    *) kube $L patch backuptarget default --type merge -p '{"spec": {"backupTargetURL": "'$url'", "credentialSecret": "'$secret'"}}' ;;
  esac
}
# shellcheck disable=SC2086
{
  until_ok 180 'longhorn-manager' kube $L rollout status daemonset/longhorn-manager --timeout=2s
  until_ok 180 'CSI plugin' kube $L rollout status daemonset/longhorn-csi-plugin --timeout=2s
  until_ok 120 'csi-attacher' kube $L rollout status deployment/csi-attacher --timeout=2s
  until_ok 120 'csi-provisioner' kube $L rollout status deployment/csi-provisioner --timeout=2s
  until_ok 120 'csi-snapshotter' kube $L rollout status deployment/csi-snapshotter --timeout=2s
  until_ok 180 'an instance manager per worker' instance_managers_run
  until_ok 120 'engine image' kube $L wait engineimages.longhorn.io --all --for=jsonpath='{.status.state}'=deployed --timeout=2s
  until_ok 60 'BackupTarget object' kube $L get backuptarget default
  set_backup_target
  until_ok 120 'backup target' kube $L wait backuptarget/default --for=jsonpath='{.status.available}'=true --timeout=2s
}
