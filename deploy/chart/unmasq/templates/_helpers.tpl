{{- define "unmasq.labels" -}}
app.kubernetes.io/name: unmasq
{{- end }}

{{- define "unmasq.selector" -}}
app.kubernetes.io/name: unmasq
app.kubernetes.io/component: agent
{{- end }}

{{- define "unmasq.image" -}}
{{- with .Values.image -}}
{{- $suffix := ternary "-tools" "" .tools -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default (print $.Chart.AppVersion $suffix) }}
{{- end -}}
{{- end -}}
{{- end }}
