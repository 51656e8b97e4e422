{{/* Labels of every object. Argument: dict of root (the top context) and component (operator, agent, redis, viewer, test). */}}
{{- define "hotpool.labels" -}}
{{ include "hotpool.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: hotpool
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name (.root.Chart.Version | replace "+" "_") }}
{{- end }}

{{/* Labels that select pods. They must never change. */}}
{{- define "hotpool.selector" -}}
app.kubernetes.io/name: hotpool
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* The image of operator and agent. */}}
{{- define "hotpool.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{ printf "%s@%s" $image.repository $image.digest }}
{{- else -}}
{{ printf "%s:%s" $image.repository ($image.tag | default .Chart.AppVersion) }}
{{- end -}}
{{- end }}

{{/* Settings of a pod that PodSecurity `restricted` requires. OpenShift assigns user and group itself, and refuses others. */}}
{{- define "hotpool.podSecurity" -}}
runAsNonRoot: true
{{- if not (.Capabilities.APIVersions.Has "security.openshift.io/v1") }}
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
{{- end }}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* Settings of a container that PodSecurity `restricted` requires, and a read-only root file system. */}}
{{- define "hotpool.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Scheduling of operator, agent and Redis. Argument: the values of the component. */}}
{{- define "hotpool.placement" -}}
nodeSelector: {{- merge (dict) .nodeSelector (dict "kubernetes.io/os" "linux") | toYaml | nindent 2 }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{/* Non-empty if a Redis is configured. */}}
{{- define "hotpool.redis" -}}
{{- if or .Values.redis.builtin.enabled .Values.redis.url }}true{{ end -}}
{{- end }}

{{- define "hotpool.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets: {{- range . }}
- name: {{ . }}
{{- end }}
{{- end }}
{{- end }}
