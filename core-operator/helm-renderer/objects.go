package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"strings"

	releaseutil "helm.sh/helm/v4/pkg/release/v1/util"
	"sigs.k8s.io/yaml"
)

var errNoMapping = errors.New("is no mapping")

// objectsOf reads the objects of a manifest with the decoder that kubectl uses.
//
// Each document of a rendered release starts with a comment that names its template; documents without one (further
// documents of a file of CRDs) belong to the template before them.
func objectsOf(manifest, source string) ([]object, error) {
	documents := releaseutil.SplitManifests(manifest)
	keys := make([]string, 0, len(documents))
	for key := range documents {
		keys = append(keys, key)
	}
	sort.Sort(releaseutil.BySplitManifestsOrder(keys))

	objects := make([]object, 0, len(keys))
	for _, key := range keys {
		document := documents[key]
		if line, _, _ := strings.Cut(document, "\n"); strings.HasPrefix(line, "# Source: ") {
			source = strings.TrimSpace(strings.TrimPrefix(line, "# Source: "))
		}
		content, err := yaml.YAMLToJSON([]byte(document))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", source, err)
		}
		if bytes.Equal(content, []byte("null")) {
			continue // only comments
		}
		if objects, err = flatten(objects, content, source); err != nil {
			return nil, fmt.Errorf("%s: %w", source, err)
		}
	}
	return objects, nil
}

// flatten appends an object, or the objects of a list.
func flatten(objects []object, content []byte, source string) ([]object, error) {
	var head struct {
		APIVersion string            `json:"apiVersion"`
		Kind       string            `json:"kind"`
		Items      []json.RawMessage `json:"items"`
	}
	if content[0] != '{' {
		return nil, errNoMapping
	}
	if err := json.Unmarshal(content, &head); err != nil && !strings.HasSuffix(head.Kind, "List") {
		// "items" of an object that is no list may be anything
		var typed struct{ APIVersion, Kind string }
		if err := json.Unmarshal(content, &typed); err != nil {
			return nil, fmt.Errorf("apiVersion and kind must be text: %w", err)
		}
		head.APIVersion, head.Kind = typed.APIVersion, typed.Kind
	}
	if head.APIVersion == "" || head.Kind == "" {
		return nil, fmt.Errorf("object without apiVersion and kind: %s", cut(content))
	}
	if !strings.HasSuffix(head.Kind, "List") || head.Items == nil {
		return append(objects, object{Source: source, Object: content}), nil
	}
	for index, item := range head.Items {
		if len(item) == 0 || item[0] != '{' {
			return nil, fmt.Errorf("item %d of the %s %w", index, head.Kind, errNoMapping)
		}
		var err error
		if objects, err = flatten(objects, item, source); err != nil {
			return nil, fmt.Errorf("item %d of the %s: %w", index, head.Kind, err)
		}
	}
	return objects, nil
}

// cut is the beginning of a document, for a message.
func cut(content []byte) string {
	if len(content) > 100 {
		return string(content[:100]) + "…"
	}
	return string(content)
}
