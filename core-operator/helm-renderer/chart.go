package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"
	"time"

	"helm.sh/helm/v4/pkg/action"
	charter "helm.sh/helm/v4/pkg/chart"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/loader"
	"helm.sh/helm/v4/pkg/chart/loader/archive"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	release "helm.sh/helm/v4/pkg/release/v1"
)

type chartRequest struct {
	// An archive or a folder.
	Path string `json:"path"`
	// Archives of charts that the chart names as dependencies without carrying them.
	Dependencies []string       `json:"dependencies"`
	ReleaseName  string         `json:"releaseName"`
	Namespace    string         `json:"namespace"`
	KubeVersion  string         `json:"kubeVersion"`
	APIVersions  []string       `json:"apiVersions"`
	Values       map[string]any `json:"values"`
	IncludeCRDs  bool           `json:"includeCrds"`
	// Also answer the text that "helm template" prints.
	WithText bool `json:"withText"`
	// Also look for functions whose result is not a function of the request.
	Scan bool `json:"scan"`
	// What the function "now" is ahead of the clock: two renderings of one second show what depends on the time.
	ClockOffsetSeconds int64 `json:"clockOffsetSeconds"`
}

type chartResult struct {
	// In Helm's install order.
	Objects []object `json:"objects"`
	Hooks   []hook   `json:"hooks"`
	Text    string   `json:"text,omitempty"`
	Random  []string `json:"random,omitempty"`
	// What was left out, for people.
	Warnings []string `json:"warnings,omitempty"`
}

type object struct {
	Source string          `json:"source"`
	Object json.RawMessage `json:"object"`
}

type hook struct {
	Events []release.HookEvent `json:"events"`
	Weight int                 `json:"weight"`
	object
}

// renderChart does what "helm template" does: a dry run of an installation without a cluster.
func renderChart(request chartRequest) (*chartResult, error) {
	loaded, err := load(request.Path)
	if err != nil {
		return nil, err
	}
	if kind := loaded.Metadata.Type; kind != "" && kind != "application" {
		return nil, fmt.Errorf("%s charts are not installable", kind)
	}
	if err := addDependencies(loaded, request.Dependencies); err != nil {
		return nil, err
	}
	if missing := missingDependencies(loaded); len(missing) > 0 {
		return nil, fmt.Errorf("chart %q does not carry its dependencies %s", loaded.Name(), quoted(missing))
	}
	result := &chartResult{Objects: []object{}, Hooks: []hook{}}
	if result.Warnings, err = confineSchemas(loaded); err != nil {
		return nil, err
	}
	if request.Scan {
		// before rendering, which drops disabled subcharts: the answer then holds for all values
		result.Random = randomFunctions(loaded, request.Values)
	}

	configuration := action.NewConfiguration()
	if offset := time.Duration(request.ClockOffsetSeconds) * time.Second; offset != 0 {
		configuration.CustomTemplateFuncs = template.FuncMap{"now": func() time.Time { return time.Now().Add(offset) }}
	}
	install := action.NewInstall(configuration)
	install.DryRunStrategy = action.DryRunClient
	install.Replace = true
	install.ReleaseName = request.ReleaseName
	install.Namespace = request.Namespace
	install.IncludeCRDs = request.IncludeCRDs
	install.APIVersions = request.APIVersions
	if request.KubeVersion != "" {
		if install.KubeVersion, err = common.ParseKubeVersion(request.KubeVersion); err != nil {
			return nil, fmt.Errorf("Kubernetes version %q is not valid: %w", request.KubeVersion, err)
		}
	}
	values := request.Values
	if values == nil {
		values = map[string]any{}
	}
	released, err := install.RunWithContext(context.Background(), loaded, values)
	if err != nil {
		return nil, err
	}
	rendered, ok := released.(*release.Release)
	if !ok {
		return nil, fmt.Errorf("Helm answered a %T in place of a release", released)
	}

	if result.Objects, err = objectsOf(rendered.Manifest, ""); err != nil {
		return nil, err
	}
	for _, found := range rendered.Hooks {
		objects, err := objectsOf(found.Manifest, found.Path)
		if err != nil {
			return nil, err
		}
		for _, object := range objects {
			result.Hooks = append(result.Hooks, hook{Events: found.Events, Weight: found.Weight, object: object})
		}
	}
	if request.WithText {
		result.Text = text(rendered)
	}
	return result, nil
}

// text is the output of "helm template" for a release.
func text(rendered *release.Release) string {
	var out strings.Builder
	fmt.Fprintln(&out, strings.TrimSpace(rendered.Manifest))
	for _, hook := range rendered.Hooks {
		fmt.Fprintf(&out, "---\n# Source: %s\n%s\n", hook.Path, hook.Manifest)
	}
	return out.String()
}

// load reads a chart as Helm does, but follows no links out of a chart folder.
func load(path string) (*chart.Chart, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		if err := refuseLinks(path); err != nil {
			return nil, err
		}
	}
	open := loadArchive
	if info.IsDir() {
		open = loader.LoadDir
	}
	loaded, err := open(path)
	if err != nil {
		return nil, fmt.Errorf("chart %q cannot be loaded: %w", filepath.Base(path), err)
	}
	known, ok := loaded.(*chart.Chart)
	if !ok {
		return nil, fmt.Errorf("chart %q has an apiVersion other than v1 and v2", filepath.Base(path))
	}
	return known, nil
}

// loadArchive is loader.LoadFile, which unpacks each archive twice.
func loadArchive(path string) (charter.Charter, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if err := archive.EnsureArchive(filepath.Base(path), file); err != nil {
		return nil, err
	}
	return loader.LoadArchive(file)
}

// refuseLinks: Helm follows links in chart folders, and templates can print any file of the chart.
func refuseLinks(folder string) error {
	return filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type()&fs.ModeSymlink != 0 && path != folder {
			name, _ := filepath.Rel(folder, path)
			return fmt.Errorf("chart %q contains the link %q", filepath.Base(folder), name)
		}
		return err
	})
}

// addDependencies adds charts from outside, as if they lay in the folder "charts".
func addDependencies(parent *chart.Chart, paths []string) error {
	for _, path := range paths {
		missing := missingDependencies(parent)
		dependency, err := load(path)
		if err != nil {
			return err
		}
		if !slices.Contains(missing, dependency.Name()) {
			if !declares(parent, dependency.Name()) {
				return fmt.Errorf("chart %q does not depend on %q", parent.Name(), dependency.Name())
			}
			if vendors(parent, dependency.Name(), dependency.Metadata.Version) {
				continue
			}
		}
		parent.AddDependency(dependency)
	}
	return nil
}

func declares(parent *chart.Chart, name string) bool {
	return slices.ContainsFunc(parent.Metadata.Dependencies, func(declared *chart.Dependency) bool {
		return declared != nil && declared.Name == name
	})
}

func vendors(parent *chart.Chart, name, version string) bool {
	return slices.ContainsFunc(parent.Dependencies(), func(carried *chart.Chart) bool {
		return carried.Name() == name && (version == "" || carried.Metadata.Version == version)
	})
}

// missingDependencies names what the chart declares and does not carry; Helm too compares names only.
func missingDependencies(parent *chart.Chart) []string {
	missing := []string{}
	for _, declared := range parent.Metadata.Dependencies {
		if declared != nil && !vendors(parent, declared.Name, "") && !slices.Contains(missing, declared.Name) {
			missing = append(missing, declared.Name)
		}
	}
	return missing
}

func quoted(names []string) string {
	return `"` + strings.Join(names, `", "`) + `"`
}
