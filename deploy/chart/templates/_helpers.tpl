{{- define "name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "selector" -}}
app.kubernetes.io/name: opencode-sidecar
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "labels" -}}
app.kubernetes.io/part-of: opencode-sidecar
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest }}{{ $image.repository }}@{{ $image.digest }}
{{- else }}{{ $image.repository }}:{{ $image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{- define "podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Egress rules to where names are asked. */}}
{{- define "dnsEgress" -}}
{{- range .Values.networkPolicy.dns }}
{{- if eq . "kube-dns" }}
- to:
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: kube-system
      podSelector:
        matchLabels:
          k8s-app: kube-dns
  ports:
    - { port: 53, protocol: UDP }
    - { port: 53, protocol: TCP }
{{- else if eq . "openshift" }}
- to:
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: openshift-dns
  ports:
    - { port: 5353, protocol: UDP }
    - { port: 5353, protocol: TCP }
{{- else }}
- to:
    - ipBlock:
        cidr: 169.254.20.10/32
  ports:
    - { port: 53, protocol: UDP }
    - { port: 53, protocol: TCP }
{{- end }}
{{- end }}
{{- end }}

{{/* Refuses what would be accepted and do nothing, or lose sessions' files. */}}
{{- define "checkWorkspace" -}}
{{- $workspace := .Values.workspace -}}
{{- if and (ne $workspace.mode "local") (not .Values.database.existingSecret) }}
{{- fail "workspace.mode: shared and archive need database.existingSecret (DATABASE_URL): without it one pod has all sessions" }}
{{- end }}
{{- if and (eq $workspace.mode "archive") (not $workspace.archive.url) }}
{{- fail "workspace.archive.url: which bucket? s3://bucket/folder" }}
{{- end }}
{{- range $name, $value := dict "SIDECAR_WORKSPACE" "workspace.mode" "SIDECAR_ARCHIVE_URL" "workspace.archive.url" "SIDECAR_ARCHIVE_ENDPOINT" "workspace.archive.endpoint" "SIDECAR_ARCHIVE_TIMEOUT_SECONDS" "workspace.archive.timeoutSeconds" }}
{{- if hasKey $.Values.settings $name }}{{ fail (printf "settings.%s: set %s, which has the volume, the keys and the network policy with it" $name $value) }}{{ end }}
{{- end }}
{{- if and (eq $workspace.mode "shared") (hasKey .Values.settings "WORKDIR") }}
{{- fail "settings.WORKDIR: with workspace.mode shared it is the shared volume" }}
{{- end }}
{{- end }}
