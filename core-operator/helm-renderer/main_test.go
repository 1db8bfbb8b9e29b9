package main

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const chartYaml = "apiVersion: v2\nname: example\nversion: 1.2.3\n"

// folder writes a chart: "Chart.yaml" may be left out.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "example")
	all := map[string]string{"Chart.yaml": chartYaml}
	maps.Copy(all, files)
	for name, content := range all {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func render(t *testing.T, files map[string]string, values map[string]any) (*chartResult, error) {
	t.Helper()
	return renderChart(chartRequest{Path: folder(t, files), ReleaseName: "release", Namespace: "kube-system", Values: values, Scan: true})
}

func mustRender(t *testing.T, files map[string]string) *chartResult {
	t.Helper()
	result, err := render(t, files, nil)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

func expectError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not contain %q", err, part)
		}
	}
}

func configMap(name string) string {
	return "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: " + name + "\n"
}

func names(t *testing.T, objects []object) string {
	t.Helper()
	var found []string
	for _, each := range objects {
		var head struct {
			Kind     string
			Metadata struct{ Name string }
		}
		if err := json.Unmarshal(each.Object, &head); err != nil {
			t.Fatal(err)
		}
		found = append(found, head.Kind+"/"+head.Metadata.Name)
	}
	return strings.Join(found, " ")
}

func TestObjectsComeInInstallOrderWithTheirTemplate(t *testing.T) {
	result := mustRender(t, map[string]string{
		"templates/a.yaml": "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n---\n# only a comment\n---\n" + configMap("c"),
		"templates/b.yaml": "apiVersion: v1\nkind: Namespace\nmetadata: {name: {{ .Release.Namespace }}}\n",
	})
	if got := names(t, result.Objects); got != "Namespace/kube-system ConfigMap/c Deployment/d" {
		t.Error(got)
	}
	if got := result.Objects[0].Source; got != "example/templates/b.yaml" {
		t.Error(got)
	}
}

func TestListsAreFlattenedAndOtherDocumentsNameTheirTemplate(t *testing.T) {
	list := "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Secret, metadata: {name: one}}\n- {apiVersion: v1, kind: Secret, metadata: {name: two}}\n"
	result := mustRender(t, map[string]string{"templates/list.yaml": list})
	if got := names(t, result.Objects); got != "Secret/one Secret/two" {
		t.Error(got)
	}
	_, err := render(t, map[string]string{"templates/bad.yaml": "kind: ConfigMap\nmetadata: {name: a}\n"}, nil)
	expectError(t, err, "example/templates/bad.yaml", "without apiVersion")
	_, err = objectsOf("# Source: example/templates/text.yaml\njust text\n", "")
	expectError(t, err, "example/templates/text.yaml", "is no mapping")
}

func TestHooksCarryEventsAndWeight(t *testing.T) {
	annotated := configMap("h") + "  annotations:\n    helm.sh/hook: pre-install,pre-upgrade\n    helm.sh/hook-weight: \"-5\"\n"
	result := mustRender(t, map[string]string{
		"templates/hook.yaml":    annotated,
		"templates/unknown.yaml": configMap("u") + "  annotations:\n    helm.sh/hook: crd-install\n",
	})
	if len(result.Objects) != 0 || len(result.Hooks) != 1 {
		t.Fatalf("%+v", result)
	}
	hook := result.Hooks[0]
	if hook.Weight != -5 || len(hook.Events) != 2 || hook.Events[1] != "pre-upgrade" || hook.Source != "example/templates/hook.yaml" {
		t.Errorf("%+v", hook)
	}
}

func TestEveryDocumentOfCRDFilesIsRead(t *testing.T) {
	crd := func(name string) string {
		return "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: " + name + "}\n"
	}
	path := folder(t, map[string]string{"crds/all.yaml": crd("a") + "---\n" + crd("b")})
	result, err := renderChart(chartRequest{Path: path, ReleaseName: "r", Namespace: "n", IncludeCRDs: true})
	if err != nil {
		t.Fatal(err)
	}
	if got := names(t, result.Objects); got != "CustomResourceDefinition/a CustomResourceDefinition/b" {
		t.Error(got)
	}
	if got := result.Objects[1].Source; got != "example/crds/all.yaml" {
		t.Error(got)
	}
}

func TestMissingDependenciesAreNamedAndCanBeAdded(t *testing.T) {
	parent := folder(t, map[string]string{
		"Chart.yaml":  chartYaml + "dependencies:\n- {name: inner, version: 1.x.x, repository: \"https://charts.example.org\", alias: renamed}\n",
		"values.yaml": "renamed: {name: from-parent}\n",
	})
	inner := folder(t, map[string]string{
		"Chart.yaml":       "apiVersion: v2\nname: inner\nversion: 1.5.0\n",
		"templates/a.yaml": configMap("{{ .Values.name }}"),
	})
	request := chartRequest{Path: parent, ReleaseName: "r", Namespace: "n"}
	_, err := renderChart(request)
	expectError(t, err, `does not carry its dependencies "inner"`)

	request.Dependencies = []string{inner}
	result, err := renderChart(request)
	if err != nil {
		t.Fatal(err)
	}
	if got := names(t, result.Objects); got != "ConfigMap/from-parent" {
		t.Error(got)
	}

	request.Dependencies = append(request.Dependencies, folder(t, nil))
	_, err = renderChart(request)
	expectError(t, err, `"example" does not depend on "example"`)
}

func TestEnvironmentFilesAndNetworkAreOutOfReach(t *testing.T) {
	t.Setenv("TOKEN", "secret")
	for _, function := range []string{`env "TOKEN"`, `expandenv "$TOKEN"`} {
		_, err := render(t, map[string]string{"templates/a.yaml": configMap("a") + "data: {x: {{ " + function + " }}}\n"}, nil)
		expectError(t, err, "not defined")
		_, err = renderTemplate(templateRequest{Name: "overwrite.yaml", Text: "{{ " + function + " }}"})
		expectError(t, err, "not defined", "overwrite.yaml:1")
	}
	result, err := renderTemplate(templateRequest{Text: `[{{ getHostByName "localhost" }}]{{ lookup "v1" "Secret" "a" "b" }}`})
	if err != nil || result.Text != "[]map[]" {
		t.Error(result, err)
	}
	linked := folder(t, nil)
	if err := os.Symlink("/etc/hostname", filepath.Join(linked, "name")); err != nil {
		t.Fatal(err)
	}
	_, err = renderChart(chartRequest{Path: linked, ReleaseName: "r", Namespace: "n"})
	expectError(t, err, `contains the link "name"`)
}

func TestSchemasAreCheckedWithoutLoadingAnything(t *testing.T) {
	outer := filepath.Join(t.TempDir(), "outer.json")
	if err := os.WriteFile(outer, []byte("false"), 0o644); err != nil {
		t.Fatal(err)
	}
	schema := `{"$schema": "http://json-schema.org/draft-07/schema#", "type": "object",
		"properties": {"count": {"type": "integer"}, "other": {"$ref": "file://` + outer + `"}}}`
	files := map[string]string{"values.schema.json": schema, "templates/a.yaml": configMap("a")}
	result, err := render(t, files, map[string]any{"count": 1.0, "other": "x"})
	if err != nil {
		t.Fatal(err)
	}
	if len(result.Warnings) != 1 || !strings.Contains(result.Warnings[0], "outer.json") {
		t.Error(result.Warnings)
	}
	_, err = render(t, files, map[string]any{"count": "many"})
	expectError(t, err, "/count", "integer")

	files["values.schema.json"] = `{"properties": {"other": {"$ref": "outer.json"}}}`
	_, err = render(t, files, nil)
	expectError(t, err, "which is not loaded")
}

func TestIntegersOfTemplateDataStayIntegers(t *testing.T) {
	request := templateRequest{
		Name: "overwrite.yaml",
		Text: "{{ .Cluster.big }} {{ .Cluster.half }} {{ toYaml .Cluster.list }} [{{ .Cluster.missing }}]",
		Data: json.RawMessage(`{"Cluster": {"big": 1024000000000, "half": 0.5, "list": [9007199254740993]}}`),
	}
	result, err := renderTemplate(request)
	if err != nil {
		t.Fatal(err)
	}
	if result.Text != "1024000000000 0.5 - 9007199254740993 []" {
		t.Error(result.Text)
	}
	request.Text = "a\n{{ .Cluster.missing.deeper }}"
	_, err = renderTemplate(request)
	expectError(t, err, "overwrite.yaml:2", "nil pointer")
}

func TestValuesAreReadAsYaml11(t *testing.T) {
	result, err := readValues(valuesRequest{Text: "a: yes\nb: 0644\n---\nc: {d: 1}\n"})
	if err != nil {
		t.Fatal(err)
	}
	content, _ := json.Marshal(result)
	if string(content) != `{"values":{"a":true,"b":420,"c":{"d":1}}}` {
		t.Error(string(content))
	}
	_, err = readValues(valuesRequest{Text: "- a"})
	expectError(t, err, "cannot unmarshal")
}

func TestVersionsAreResolvedAsHelmDoes(t *testing.T) {
	versions := []string{"1.2.0", "v1.10.0", "nonsense", "1.9.3", "2.0.0-rc.1"}
	for constraint, expected := range map[string]string{
		"": "v1.10.0", "1.x.x": "v1.10.0", "~1.9.0": "1.9.3", "2.0.0-rc.1": "2.0.0-rc.1", ">=2.0.0-0": "2.0.0-rc.1",
		"nonsense-": "error", "3.x": "none",
	} {
		result, err := resolve(resolveRequest{Constraint: constraint, Versions: versions})
		got := "error"
		if err == nil {
			got = "none"
			if result.Version != nil {
				got = *result.Version
			}
		}
		if got != expected {
			t.Errorf("%q: %s in place of %s", constraint, got, expected)
		}
	}
}

func TestInspectTellsDependenciesLockAndRandomFunctions(t *testing.T) {
	declared := "dependencies:\n- {name: inner, version: 1.5.0, repository: \"https://charts.example.org\"}\n"
	files := map[string]string{
		"Chart.yaml":             chartYaml + declared,
		"Chart.lock":             declared + "digest: sha256:0\n",
		"templates/a.yaml":       `{{- /* uuidv4 */ -}}{{ .Values.now }}{{ $now := 1 }}{{ derivePassword 1 "long" "a" "b" "c" }}`,
		"templates/_h.tpl":       `{{ define "x" }}{{ if true }}{{ (genCA "a" 1).Cert }}{{ end }}{{ end }}`,
		"values.yaml":            "text: '{{ randAlpha 5 }}'\nplain: now\n",
		"charts/more/Chart.yaml": "apiVersion: v2\nname: more\nversion: 1.0.0\n",
	}
	result, err := inspect(inspectRequest{Path: folder(t, files)})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(result.Random, " "); got != "genCA randAlpha" {
		t.Error(got)
	}
	if result.Missing[0] != "inner" || result.Vendored[0] != "more" || result.Lock.InSync {
		t.Errorf("%+v", result)
	}
}

func TestInspectAnswersListsEvenIfTheyAreEmpty(t *testing.T) {
	result, err := inspect(inspectRequest{Path: folder(t, map[string]string{"Chart.yaml": chartYaml})})
	if err != nil {
		t.Fatal(err)
	}
	answer, err := json.Marshal(result)
	if err != nil || strings.Contains(string(answer), "null") {
		t.Errorf("%s %v", answer, err)
	}
}

func TestTheClockCanBeSetAhead(t *testing.T) {
	path := folder(t, map[string]string{"templates/a.yaml": configMap(`{{ now | date "2006" | quote }}`)})
	seen := map[string]bool{}
	for _, offset := range []int64{0, 400 * 24 * 3600} {
		result, err := renderChart(chartRequest{Path: path, ReleaseName: "r", Namespace: "n", ClockOffsetSeconds: offset})
		if err != nil {
			t.Fatal(err)
		}
		seen[names(t, result.Objects)] = true
	}
	if len(seen) != 2 {
		t.Error(seen)
	}
}

func TestPanicsAndNonsenseAnswerTheirRequestOnly(t *testing.T) {
	var in, out bytes.Buffer
	frames := []string{
		`{"id": 1, "kind": "template", "body": {"text": "{{ repeat -1 \"a\" }}"}}`,
		`{"id": 2, "kind": "other", "body": {}}`,
		`nonsense`,
		`{"id": 3, "kind": "resolve", "body": {"constraint": "*", "versions": ["1.0.0"]}}`,
	}
	for _, frame := range frames {
		in.Write([]byte{0, 0, 0, byte(len(frame))})
		in.WriteString(frame)
	}
	if err := serve(&in, &out); err != nil {
		t.Fatal(err)
	}
	for index, expected := range []string{`"id":1,"error"`, `unknown kind`, `not valid JSON`, `{"id":3,"result":{"version":"1.0.0"}}`} {
		frame, err := readFrame(&out)
		if err != nil || !strings.Contains(string(frame), expected) {
			t.Errorf("%d: %s %v", index, frame, err)
		}
	}
	if _, err := readFrame(&out); err != io.EOF {
		t.Error(err)
	}
}
