{{/* Every object carries the version, so that templates are never changed under their name. */}}
{{- define "class.name" -}}
{{ .Release.Name }}-{{ .Chart.Version }}
{{- end }}
