{{- define "fastserve.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "fastserve.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "fastserve.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "fastserve.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "fastserve.selector" -}}
app.kubernetes.io/name: {{ include "fastserve.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "fastserve.labels" -}}
{{ include "fastserve.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
{{- end -}}

{{- define "fastserve.image" -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}

{{- define "fastserve.serviceAccount" -}}
{{- default (ternary (include "fastserve.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name -}}
{{- end -}}

{{- define "fastserve.materializeServiceAccount" -}}
{{- $made := ternary (printf "%s-materialize" (include "fastserve.fullname" .)) "default" .Values.materialize.serviceAccount.create -}}
{{- default $made .Values.materialize.serviceAccount.name -}}
{{- end -}}

{{/* Nobody is root, nothing is written but to volumes, no system call beyond the runtime's usual ones. */}}
{{- define "fastserve.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "fastserve.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* What serve, materialize and apply share: settings, the repo, a place for temporary files. */}}
{{- define "fastserve.env" -}}
- name: FASTSERVE_CONFIG
  value: /etc/fastserve/fastserve.toml
{{- with .Values.env }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "fastserve.mounts" -}}
- name: settings
  mountPath: /etc/fastserve
  readOnly: true
- name: tmp
  mountPath: /tmp
{{- if .Values.repo.configMap }}
- name: repo
  mountPath: /repo
  readOnly: true
{{- end }}
{{- end -}}

{{- define "fastserve.volumes" -}}
- name: settings
  configMap:
    name: {{ include "fastserve.fullname" . }}
{{- with .Values.repo.configMap }}
- name: repo
  configMap:
    name: {{ . | quote }}
{{- end }}
{{- end -}}
