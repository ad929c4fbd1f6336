{{- define "safelight.name" -}}
{{- if contains "safelight" .Release.Name -}}{{ .Release.Name | trunc 53 | trimSuffix "-" }}{{- else -}}{{ printf "%s-safelight" .Release.Name | trunc 53 | trimSuffix "-" }}{{- end -}}
{{- end -}}

{{- define "safelight.selector" -}}
app.kubernetes.io/name: safelight
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "safelight.labels" -}}
{{ include "safelight.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
{{- end -}}

{{- define "safelight.image" -}}
{{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) | quote }}
{{- end -}}

{{- define "safelight.claim" -}}
{{ .Values.persistence.existingClaim | default (include "safelight.name" .) | quote }}
{{- end -}}

{{- /* Whether a second gateway may have the volume too: be it beside the first, be it for a moment of an update. */ -}}
{{- define "safelight.sharesVolume" -}}
{{- if or (not .Values.persistence.enabled) .Values.persistence.existingClaim (has "ReadWriteMany" .Values.persistence.accessModes) -}}true{{- end -}}
{{- end -}}

{{- /* As a variable has it: 1048576, which Go's templates write as 1.048576e+06. */ -}}
{{- define "safelight.text" -}}
{{- if kindIs "float64" . -}}{{ toJson . }}{{- else -}}{{ . }}{{- end -}}
{{- end -}}

{{- /* What can't work is said when the chart is rendered, not by a pod that fails. */ -}}
{{- define "safelight.check" -}}
{{- if and (not .Values.secret) -}}
{{- fail "secret: name the Secret that holds api-key and encryption-keys (see values.yaml)" -}}
{{- end -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" (include "safelight.name" .)) -}}
{{- fail "the release's name is a part of a Service's: begin it with a letter, and let letters, digits and - follow" -}}
{{- end -}}
{{- $drain := 30 -}}
{{- if hasKey .Values.env "SAFELIGHT_DRAIN_TIMEOUT_S" -}}
{{- $drain = get .Values.env "SAFELIGHT_DRAIN_TIMEOUT_S" -}}
{{- end -}}
{{- if lt (int64 .Values.terminationGracePeriodSeconds) (add 20 (int64 $drain)) -}}
{{- fail (printf "terminationGracePeriodSeconds: set it to %d or more, so that what runs may finish within SAFELIGHT_DRAIN_TIMEOUT_S before the pod is killed" (add 20 (int64 $drain))) -}}
{{- end -}}
{{- if or (gt (int .Values.replicaCount) 1) .Values.autoscaling.enabled -}}
{{- if not .Values.database -}}
{{- fail "replicaCount above 1, or autoscaling, needs PostgreSQL: put database-url into the Secret and set database: true" -}}
{{- end -}}
{{- if not (include "safelight.sharesVolume" .) -}}
{{- fail "replicaCount above 1, or autoscaling, needs a volume that all gateways mount: set persistence.accessModes to [ReadWriteMany], or persistence.enabled: false" -}}
{{- end -}}
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

{{- define "safelight.raySecurity" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "safelight.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}
