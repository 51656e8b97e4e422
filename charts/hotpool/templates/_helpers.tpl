{{/* Labels of every object. Argument: dict of root (the top context) and component (operator, agent, redis, viewer, test). */}}
{{- define "hotpool.labels" -}}
{{ include "hotpool.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: hotpool
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name (.root.Chart.Version | replace "+" "_") | trunc 63 | trimSuffix "-" | quote }}
{{- end }}

{{/* Labels that select pods. They must never change. */}}
{{- define "hotpool.selector" -}}
app.kubernetes.io/name: hotpool
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* A string, or an integer as its digits: numbers of values files are floats, which Go prints as 1e+06. */}}
{{- define "hotpool.text" -}}
{{- if kindIs "float64" . }}{{ printf "%.0f" . }}{{ else }}{{ . }}{{ end -}}
{{- end }}

{{/*
JSON of a value in which every scalar is a string, as labels, annotations and selectors need. Two fields of the
Kubernetes API below a toleration or an affinity stay numbers.
*/}}
{{- define "hotpool.strings" -}}
{{- if kindIs "map" . -}}
{{- $fields := list -}}
{{- range $name, $value := . -}}
{{- $text := has $name (list "tolerationSeconds" "weight") | ternary (toJson $value) (include "hotpool.strings" $value) -}}
{{- $fields = append $fields (printf "%s: %s" (toJson $name) $text) -}}
{{- end -}}
{ {{- join ", " $fields -}} }
{{- else if kindIs "slice" . -}}
{{- $items := list -}}
{{- range . }}{{ $items = append $items (include "hotpool.strings" .) }}{{ end -}}
[ {{- join ", " $items -}} ]
{{- else -}}
{{ include "hotpool.text" . | toJson }}
{{- end -}}
{{- end }}

{{/* The same as YAML. */}}
{{- define "hotpool.stringsYaml" -}}
{{ (printf "{\"value\": %s}" (include "hotpool.strings" .) | fromJson).value | toYaml }}
{{- end }}

{{/* The image of operator and agent. With a digest, the tag only informs people. */}}
{{- define "hotpool.image" -}}
{{- $image := .Values.image -}}
{{- $tag := include "hotpool.text" ($image.tag | default "") -}}
{{- if $image.digest -}}
{{ printf "%s%s@%s" $image.repository ($tag | empty | ternary "" (printf ":%s" $tag)) $image.digest | quote }}
{{- else -}}
{{ printf "%s:%s" $image.repository ($tag | default .Chart.AppVersion) | quote }}
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
nodeSelector: {{- merge (dict) (.nodeSelector | default dict) (dict "kubernetes.io/os" "linux") | include "hotpool.stringsYaml" | nindent 2 }}
{{- with .tolerations }}
tolerations: {{- include "hotpool.stringsYaml" . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{- include "hotpool.stringsYaml" . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ include "hotpool.text" . | quote }}
{{- end }}
{{- end }}

{{/* Non-empty if a Redis is configured. */}}
{{- define "hotpool.redis" -}}
{{- if or .Values.redis.builtin.enabled .Values.redis.url }}true{{ end -}}
{{- end }}

{{- define "hotpool.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets: {{- range . }}
- name: {{ include "hotpool.text" . | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* Secret with the passwords of the built-in Redis. */}}
{{- define "hotpool.redisSecret" -}}
{{ include "hotpool.text" (.Values.redis.builtin.existingSecret | default "hotpool-redis") }}
{{- end }}

{{/* JSON list of the ports of the catalogue's services that are for remote clients. */}}
{{- define "hotpool.cataloguePorts" -}}
{{- $ports := list -}}
{{- range (.Values.agent.catalogue | default dict).services -}}
{{- if and (kindIs "map" .) (ne (toString .scope) "local") -}}
{{- $port := include "hotpool.text" (.port | default "") -}}
{{- if regexMatch "^[0-9]+$" $port }}{{ $ports = append $ports (int $port) }}{{ end -}}
{{- end -}}
{{- end -}}
{{ $ports | uniq | toJson }}
{{- end }}

{{/* JSON list of the namespaces whose pods can be services. */}}
{{- define "hotpool.podNamespaces" -}}
{{- $names := list .Release.Namespace -}}
{{- range .Values.agent.podNamespaces }}{{ $names = append $names (include "hotpool.text" .) }}{{ end -}}
{{ $names | uniq | toJson }}
{{- end }}
