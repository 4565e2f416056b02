{{/* Names are fixed: a cluster has one installation, and its webhook configurations, lease and Secrets are called so. */}}

{{- define "handoff.labels" -}}
app.kubernetes.io/part-of: handoff
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "handoff.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{/* The fields of a pod that are the same for all: not root, and what may not be done to it. */}}
{{- define "handoff.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "handoff.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* One replica per node where there are nodes enough; a cluster with one node left still gets all. Argument: the name. */}}
{{- define "handoff.antiAffinity" -}}
podAntiAffinity:
  preferredDuringSchedulingIgnoredDuringExecution:
  - weight: 100
    podAffinityTerm:
      topologyKey: kubernetes.io/hostname
      labelSelector:
        matchLabels: {app.kubernetes.io/name: {{ . }}}
{{- end }}

{{/* Where a webhook is. Argument: list of root and path. The caBundle is written at run time, by Handoff or by
     cert-manager's cainjector. It is rendered only when neither does, so that no upgrade takes it away. */}}
{{- define "handoff.clientConfig" -}}
{{- $root := index . 0 -}}
service: {namespace: {{ $root.Release.Namespace }}, name: handoff-webhook, path: {{ index . 1 }}}
{{- if eq $root.Values.certificates.source "files" }}
caBundle: {{ $root.Values.certificates.caBundle }}
{{- end }}
{{- end }}

{{/* Namespaces of workloads: all but the cluster's, ours and the storage's. */}}
{{- define "handoff.workloads" -}}
matchExpressions:
- key: kubernetes.io/metadata.name
  operator: NotIn
  values: [kube-system, kube-public, kube-node-lease, {{ .Release.Namespace }}, {{ .Values.longhorn.namespace }}]
{{- end }}

{{/* A configuration of kube-scheduler, for this namespace. Argument: dict of root and text. */}}
{{- define "handoff.schedulerConfig" -}}
{{- $root := .root -}}
{{- $text := .text | replace "handoff-system" $root.Release.Namespace -}}
{{- $text = $text | replace "weight: 5\n" (printf "weight: %d\n" (int $root.Values.scheduler.weight)) -}}
{{- if $root.Values.scheduler.bind -}}
{{- $text = $text | replace "# bindVerb: bind" "bindVerb: bind" -}}
{{- end -}}
{{- $text -}}
{{- end }}

{{- define "handoff.apiServerPorts" -}}
{{- range .Values.networkPolicy.apiServerPorts }}
- {port: {{ . }}, protocol: TCP}
{{- end }}
{{- end }}

{{/* The pod of a tool of ours that runs to its end. Argument: dict of root, name (of the account too) and args. */}}
{{- define "handoff.toolPod" -}}
{{- $root := .root -}}
serviceAccountName: {{ .name }}
enableServiceLinks: false
restartPolicy: Never
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 0 }}
{{- end }}
{{- with $root.Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.tolerations }}
tolerations: {{- toYaml . | nindent 0 }}
{{- end }}
securityContext: {{- include "handoff.podSecurity" $root | nindent 2 }}
containers:
- name: handoff
  image: {{ include "handoff.image" $root }}
  imagePullPolicy: {{ $root.Values.image.pullPolicy }}
  args: {{ toJson .args }}
  env:
  - {name: HANDOFF_NAMESPACE, value: {{ $root.Release.Namespace }}}
  - {name: HANDOFF_LONGHORN_NAMESPACE, value: {{ $root.Values.longhorn.namespace }}}
  resources:
    requests: {cpu: 10m, memory: 16Mi}
    limits: {memory: 128Mi}
  securityContext: {{- include "handoff.containerSecurity" $root | nindent 4 }}
{{- end }}
