# shellcheck shell=bash
# Sourced by tests/run: the chart on the lab as a user has it, from the first install to nothing left. Each check says what it
# looked at; the last line says how many held.
: "${lab:?}" "${e2e:?}" "${program:?}"

passed=0 failed=0
# check WHAT CMD... : whether CMD succeeds; what it said is shown when it does not
check() {
  local what=$1 said; shift
  if said=$("$@" 2>&1); then
    echo "  ok      $what"; passed=$((passed + 1))
  else
    echo "  FAILED  $what"; printf '%s\n' "$said" | sed 's/^/          /'; failed=$((failed + 1))
  fi
}
# within SECONDS CMD... : repeats CMD until it succeeds
within() {
  local until=$((SECONDS + $1)); shift
  until "$@"; do
    [ $SECONDS -lt $until ] || return 1
    sleep 1
  done
}
empty() { local said; said=$("$@") && { [ -z "$said" ] || { echo "$said"; return 1; }; }; }
has() { local wanted=$1 said; shift; said=$("$@" 2>&1) || { echo "$said"; return 1; }; echo "$said"; grep -qE -- "$wanted" <<<"$said"; }

helm() { $lab exec "$helm" --namespace handoff-system "$@"; }
kube() { $lab exec kubectl "$@"; }
tool() { $lab exec "$program" "$@"; }

# ours : every object that Handoff or its chart has made, of every kind: by namespace, name, label or content. What a pod or
# an attachment of Kubernetes has been annotated with goes with it. Longhorn's own note of who attached a volume last is
# Longhorn's. The namespace is the user's, and so is what Kubernetes puts into each.
ours() {
  # shellcheck disable=SC2016 # for the shell inside
  $lab exec bash -c 'kubectl api-resources --verbs=list -o name | grep -vE "^events|metrics.k8s.io$" |
    while read -r kind; do kubectl get "$kind" -A -o json --ignore-not-found </dev/null || exit 1; done' |
    jq -r '(if .items then .items[] else . end) | del(.spec.lastAttachedBy) | . as $object | .metadata as $m |
      select(($m.name | startswith("handoff-e2e")) or ($m.namespace // "") == "handoff-e2e" | not) |
      select([.kind, $m.name] | IN(["Namespace", "handoff-system"], ["ConfigMap", "kube-root-ca.crt"], ["ServiceAccount", "default"]) | not) |
      select(
        ($m.namespace // "" | IN("handoff-system", "handoff-agent"))
        or ($m.name | test("handoff"))
        or ($m.labels["app.kubernetes.io/part-of"] // "") == "handoff"
        or ((.kind == "Pod" or .apiVersion == "storage.k8s.io/v1" | not) and ($object | tostring | contains("volumehandoff.io")))
      ) | "\(.kind)/\($m.namespace // "")/\($m.name)"' | sort -u
}
# requests of ours for an attachment
prestages() {
  kube -n longhorn-system get volumeattachments.longhorn.io -o json | jq -r '.items[] | .metadata.name as $volume |
    .spec.attachmentTickets // {} | .[] | select(.parameters.lastAttachedBy == "volumehandoff.io") | "\($volume) → \(.nodeID)"'
}
owes() { tool status -o json | jq -e 'any(.volumes[]; .owed | length > 0)' >/dev/null; }
bundles() {
  kube get validatingwebhookconfigurations,mutatingwebhookconfigurations handoff -o json |
    jq -re '[.items[].webhooks[].clientConfig.caBundle // ""] | if all(. != "") then unique[] else error("a webhook has no caBundle") end'
}
workload() {
  kube -n handoff-e2e get pods -o json |
    jq -re '.items[] | "\(.metadata.name) \(.metadata.uid) on \(.spec.nodeName), ready \(all(.status.containerStatuses[]; .ready)), restarts \([.status.containerStatuses[].restartCount] | add)"'
}
same() { if [ -z "$1" ] || [ "$1" != "$2" ]; then printf "before: %s\nafter:  %s\n" "$1" "$2"; return 1; fi; }
refused() {
  local said
  if said=$(helm uninstall handoff 2>&1); then echo "it was not refused: $said"; return 1; fi
  echo "$said"
  grep -q 'is owed' <<<"$said"
}
replicas() { kube -n handoff-system rollout status deployment/handoff --timeout=180s; }

chart() {
  local helm before move settings=settings.evictionHold
  helm=$(tests/deploy/run tools)/helm
  $lab kubelet fast

  say "nothing of ours is there"
  helm uninstall handoff --ignore-not-found --no-hooks --wait >/dev/null
  kube delete -k deploy/kustomize --ignore-not-found
  kube delete namespace handoff-system handoff-e2e --ignore-not-found
  check "the cluster has nothing of Handoff" within 120 empty ours

  say "helm install, with a CA of its own"
  check "helm install" helm install handoff deploy/helm/handoff --create-namespace --wait --timeout 3m
  check "the webhooks get their caBundle" within 60 bundles
  check "agents run" kube -n handoff-agent rollout status daemonset/handoff-agent --timeout=180s
  check "the look that finds what is left sees what is there" has '^CustomResourceDefinition//volumehandoffs.volumehandoff.io$' ours
  # the right to ask the kubelets is not given
  check "helm test: doctor, in the cluster" has ' 0 failed, 1 could not be looked at' helm test handoff
  check "the test leaves nothing" empty kube -n handoff-system get serviceaccounts,pods,roles,rolebindings -o name --field-selector metadata.name=handoff-doctor

  say "the tools"
  check "every command, as handoff and as kubectl handoff" in_lab --installed cli --handoff "$program"

  say "a move with a backup in flight; in its middle helm upgrade, and helm uninstall, which must refuse"
  move=$(mktemp)
  # so slow that the backup is owed for minutes
  in_lab --installed --keep --link 4mbit ci --count 1 >"$move" 2>&1 &
  local moving=$! ended=0
  check "a backup is owed" within 900 owes
  before=$(bundles || true)
  check "helm upgrade with another value" helm upgrade handoff deploy/helm/handoff --reset-then-reuse-values --set $settings=45s
  check "the webhooks keep their caBundle" same "$before" "$(bundles)"
  check "helm uninstall is refused while the backup is owed" refused
  check "nothing was withdrawn" same "$before" "$(bundles)"
  check "and nothing of the attempt is left" empty kube -n handoff-system get serviceaccounts,jobs,roles,rolebindings -o name --field-selector metadata.name=handoff-uninstall
  # until then helm calls the release `uninstalling`, and upgrades nothing
  check "whoever thinks better of it rolls back to the same" helm rollback handoff 2
  check "and helm says deployed" has '^STATUS: deployed' helm status handoff
  check "the new value is in use, by every replica" replicas
  check "which have it" has 'HANDOFF_EVICTION_HOLD=45s' kube -n handoff-system set env deployment/handoff --list
  wait $moving || ended=$?
  check "every claim of the move holds" test $ended = 0
  sed 's/^/          /' "$move"
  rm -f "$move"

  say "helm uninstall"
  check "nothing is owed" within 300 not owes
  before=$(workload || true)
  check "helm uninstall" helm uninstall handoff --wait --timeout 3m
  check "nothing of ours is left, of any kind" within 120 empty ours
  check "nor any request for an attachment" empty prestages
  check "the pods run on" same "$before" "$(workload)"
  check "and write" kube -n handoff-e2e exec db-0 -- sh -c 'date >/data/after-uninstall && sync'
  check "a pod is scheduled, evicted and runs again without it" moves_without

  kube delete namespace handoff-system --ignore-not-found
  kustomized
  kube delete namespace handoff-e2e --ignore-not-found
  $lab link off
  echo
  echo "$passed passed, $failed failed"
  [ $failed = 0 ]
}
# installed without the chart, and removed as docs/upgrade.md says
kustomized() {
  say "kustomize: the same, by hand"
  check "kubectl apply -k" kube apply -k deploy/kustomize
  check "every replica serves" replicas
  check "the webhooks get their caBundle" within 60 bundles
  check "handoff uninstall" tool uninstall --yes
  check "kubectl delete -k" kube delete -k deploy/kustomize --ignore-not-found
  check "nothing of ours is left, of any kind" within 120 empty ours
  check "nor any request for an attachment" empty prestages
}
not() { ! "$@"; }
# the same node takes the pod again: nothing is cordoned
moves_without() {
  local uid
  uid=$(kube -n handoff-e2e get pod db-0 -o 'jsonpath={.metadata.uid}')
  kube create --raw /api/v1/namespaces/handoff-e2e/pods/db-0/eviction -f - <<<'{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"db-0","namespace":"handoff-e2e"}}'
  within 300 replaced "$uid"
}
replaced() {
  kube -n handoff-e2e get pod db-0 -o json |
    jq -e --arg old "$1" '.metadata.uid != $old and any(.status.conditions[]; .type == "Ready" and .status == "True")' >/dev/null 2>&1
}
