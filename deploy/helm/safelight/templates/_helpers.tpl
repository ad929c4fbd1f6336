{{- define "safelight.name" -}}
{{- if contains "safelight" .Release.Name -}}{{ .Release.Name | trunc 53 | trimSuffix "-" }}{{- else -}}{{ printf "%s-safelight" .Release.Name | trunc 53 | trimSuffix "-" }}{{- end -}}
{{- end -}}

{{- define "safelight.selector" -}}
app.kubernetes.io/name: safelight
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "safelight.labels" -}}
{{ include "safelight.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "safelight.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{- define "safelight.claim" -}}
{{ .Values.persistence.existingClaim | default (include "safelight.name" .) }}
{{- end -}}

{{- /* What can't work is said when the chart is rendered, not by a pod that fails. */ -}}
{{- define "safelight.check" -}}
{{- if and (not .Values.secret) -}}
{{- fail "secret: name the Secret that holds api-key and encryption-keys (see values.yaml)" -}}
{{- end -}}
{{- if and (or (gt (int .Values.replicaCount) 1) .Values.autoscaling.enabled) (not .Values.database) -}}
{{- fail "replicaCount above 1, or autoscaling, needs PostgreSQL: put database-url into the Secret and set database: true" -}}
{{- end -}}
{{- end -}}

{{- define "safelight.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "safelight.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}
