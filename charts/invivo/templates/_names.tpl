{{/* The image of one component: (list $ "operator" .Values.operator.image) */}}
{{- define "invivo.image" -}}
{{- $root := index . 0 -}}
{{- with index . 2 -}}
{{ . }}
{{- else -}}
{{ $root.Values.image.registry }}/invivo-{{ index . 1 }}:{{ $root.Values.image.tag | default $root.Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* Labels of everything. */}}
{{- define "invivo.labels" -}}
app.kubernetes.io/part-of: invivo
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{/* Annotations by which Prometheus finds a pod. */}}
{{- define "invivo.scrape" -}}
prometheus.io/scrape: "true"
prometheus.io/port: "9464"
prometheus.io/path: /metrics
{{- end -}}

{{/* Where operator and agents fetch. */}}
{{- define "invivo.patchServer" -}}
http://{{ .Values.patchServer.clusterIP | default (printf "invivo-patch-server.%s.svc" .Release.Namespace) }}:8080
{{- end -}}

{{/* What every container but the loader gives up. */}}
{{- define "invivo.unprivileged" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}
