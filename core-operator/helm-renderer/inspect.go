package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"sort"

	"github.com/Masterminds/semver/v3"
	chart "helm.sh/helm/v4/pkg/chart/v2"
)

type inspectRequest struct {
	Path string `json:"path"`
}

type inspectResult struct {
	Name         string            `json:"name"`
	Version      string            `json:"version"`
	Type         string            `json:"type,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
	Dependencies []dependency      `json:"dependencies"`
	Lock         *lock             `json:"lock,omitempty"`
	// Names of the charts that the chart carries.
	Vendored []string `json:"vendored"`
	// Names of declared dependencies that it does not carry.
	Missing []string `json:"missing"`
	// Functions whose result is not a function of the request.
	Random []string `json:"random"`
}

type dependency struct {
	Name       string `json:"name"`
	Version    string `json:"version,omitempty"`
	Repository string `json:"repository,omitempty"`
	Alias      string `json:"alias,omitempty"`
	Condition  string `json:"condition,omitempty"`
}

type lock struct {
	Digest       string       `json:"digest"`
	InSync       bool         `json:"inSync"`
	Dependencies []dependency `json:"dependencies"`
}

func inspect(request inspectRequest) (*inspectResult, error) {
	loaded, err := load(request.Path)
	if err != nil {
		return nil, err
	}
	result := &inspectResult{
		Name:         loaded.Name(),
		Version:      loaded.Metadata.Version,
		Type:         loaded.Metadata.Type,
		Annotations:  loaded.Metadata.Annotations,
		Dependencies: dependencies(loaded.Metadata.Dependencies),
		Vendored:     []string{},
		Missing:      missingDependencies(loaded),
		Random:       randomFunctions(loaded, nil),
	}
	for _, carried := range loaded.Dependencies() {
		result.Vendored = append(result.Vendored, carried.Name())
	}
	sort.Strings(result.Vendored)
	if loaded.Lock != nil {
		result.Lock = &lock{
			Digest:       loaded.Lock.Digest,
			InSync:       lockInSync(loaded),
			Dependencies: dependencies(loaded.Lock.Dependencies),
		}
	}
	return result, nil
}

func dependencies(from []*chart.Dependency) []dependency {
	result := []dependency{}
	for _, each := range from {
		if each != nil {
			result = append(result, dependency{each.Name, each.Version, each.Repository, each.Alias, each.Condition})
		}
	}
	return result
}

// lockInSync repeats the check of "helm dependency build" (internal/resolver: HashReq, and HashV2Req for the files
// that Helm 2 wrote), which Helm does not export.
func lockInSync(loaded *chart.Chart) bool {
	sum, err := digest([2][]*chart.Dependency{loaded.Metadata.Dependencies, loaded.Lock.Dependencies})
	if err == nil && sum == loaded.Lock.Digest {
		return true
	}
	if loaded.Metadata.APIVersion != chart.APIVersionV1 {
		return false
	}
	sum, err = digest(map[string][]*chart.Dependency{"dependencies": loaded.Metadata.Dependencies})
	return err == nil && sum == loaded.Lock.Digest
}

func digest(value any) (string, error) {
	content, err := json.Marshal(value)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(content)
	return "sha256:" + hex.EncodeToString(sum[:]), nil
}

type resolveRequest struct {
	Constraint string   `json:"constraint"`
	Versions   []string `json:"versions"`
}

type resolveResult struct {
	// Absent if none satisfies the constraint.
	Version *string `json:"version"`
}

// resolve chooses a version as Helm does (pkg/repo/v1, IndexFile.Get): the very text first, then the newest version
// that satisfies the constraint; texts that are no versions do not count; no constraint means any release.
func resolve(request resolveRequest) (*resolveResult, error) {
	text := request.Constraint
	if text == "" {
		text = "*"
	}
	constraint, err := semver.NewConstraint(text)
	if err != nil {
		return nil, fmt.Errorf("version %q is neither a version nor a range: %w", request.Constraint, err)
	}
	var newest *semver.Version
	for _, candidate := range request.Versions {
		if candidate == request.Constraint {
			return &resolveResult{Version: &candidate}, nil
		}
		version, err := semver.NewVersion(candidate)
		if err != nil || !constraint.Check(version) {
			continue
		}
		if newest == nil || newest.LessThan(version) {
			newest = version
		}
	}
	if newest == nil {
		return &resolveResult{}, nil
	}
	original := newest.Original()
	return &resolveResult{Version: &original}, nil
}
