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

{{- /* Of a cluster that kubeadm made, its own words: {podSubnet, serviceSubnet}. Without a cluster to ask (helm template) {}. */}}
{{- define "unmasq.kubeadm" -}}
{{- $config := lookup "v1" "ConfigMap" "kube-system" "kubeadm-config" | default dict -}}
{{- dig "data" "ClusterConfiguration" "" $config | fromYaml | dig "networking" dict | toYaml -}}
{{- end }}

{{- /* Stated ones count; kubeadm isn't asked where there are any, or all Nodes are watched. */}}
{{- define "unmasq.podCIDRs" -}}
{{- if .Values.podCIDRs -}}
{{ join "," .Values.podCIDRs }}
{{- else if not .Values.watchNodes -}}
{{ (include "unmasq.kubeadm" . | fromYaml).podSubnet | default "" }}
{{- end -}}
{{- end }}

{{- define "unmasq.serviceCIDRs" -}}
{{- if .Values.serviceCIDRs -}}
{{ join "," .Values.serviceCIDRs }}
{{- else if not (or .Values.podCIDRs .Values.watchNodes) -}}
{{ (include "unmasq.kubeadm" . | fromYaml).serviceSubnet | default "" }}
{{- end -}}
{{- end }}
