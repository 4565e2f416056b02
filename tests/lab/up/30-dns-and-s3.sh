# DNS without the outside world, and the S3 server on the control plane.
# on failure: `lab exec kubectl -n s3 describe pod s3`
. "$(dirname "$0")/../lib.sh"

on_node $CONTROL_PLANE mkdir -p /var/lib/s3lab/backups
# StatefulSets of the tests are to get Longhorn's class, which is the default one
kube delete storageclass standard --ignore-not-found
applied=$(kube apply -f "$LAB_DIR/manifests/coredns.yaml" -f "$LAB_DIR/manifests/s3.yaml")
echo "$applied"
case $applied in *'configmap/coredns unchanged'*) ;; *) kube -n kube-system delete pod -l k8s-app=kube-dns --wait=false ;; esac
until_ok 150 'CoreDNS' kube -n kube-system rollout status deployment/coredns --timeout=1s
until_ok 60 'S3 server' kube -n s3 wait pod/s3 --for=condition=Ready --timeout=1s
