package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	chart "helm.sh/helm/v4/pkg/chart/v2"
)

// confineSchemas keeps the check of values against values.schema.json from reading files or the network.
//
// Helm's check follows references to file:, http: and https: addresses. Such references are taken out of the schema
// (what they point to is then not checked, as Helm does with urn: addresses) and answered as warnings.
func confineSchemas(of *chart.Chart) ([]string, error) {
	var warnings []string
	if len(of.Schema) > 0 {
		for address := range outside(of.Schema) {
			warnings = append(warnings, fmt.Sprintf("values.schema.json of chart %q refers to %q, which is not loaded", of.Name(), address))
		}
		if len(warnings) > 0 {
			if err := withoutReferences(of); err != nil {
				return nil, err
			}
			for address := range outside(of.Schema) {
				return nil, fmt.Errorf("values.schema.json of chart %q refers to %q, which is not loaded", of.Name(), address)
			}
		}
	}
	for _, inner := range of.Dependencies() {
		more, err := confineSchemas(inner)
		if err != nil {
			return nil, err
		}
		warnings = append(warnings, more...)
	}
	return warnings, nil
}

// outside returns the addresses that Helm's check would load.
func outside(schema []byte) map[string]bool {
	asked := recorder{}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(schema))
	if err != nil {
		return nil // Helm says the same, in better words
	}
	compiler := jsonschema.NewCompiler()
	compiler.UseLoader(asked)
	if compiler.AddResource("file:///values.schema.json", document) == nil {
		_, _ = compiler.Compile("file:///values.schema.json")
	}
	return asked
}

// recorder loads nothing: every document is the schema that allows everything.
type recorder map[string]bool

func (r recorder) Load(address string) (any, error) {
	if !strings.HasPrefix(address, "urn:") {
		r[address] = true
	}
	return true, nil
}

func withoutReferences(of *chart.Chart) error {
	document, err := decode(of.Schema)
	if err != nil {
		return err
	}
	strip(document)
	of.Schema, err = json.Marshal(document)
	return err
}

func strip(value any) {
	switch value := value.(type) {
	case map[string]any:
		for _, key := range []string{"$ref", "$dynamicRef", "$recursiveRef", "$schema"} {
			text, isText := value[key].(string)
			if address, err := url.Parse(text); isText && err == nil && address.IsAbs() && !knownDraft(text) {
				delete(value, key)
			}
		}
		for _, inner := range value {
			strip(inner)
		}
	case []any:
		for _, inner := range value {
			strip(inner)
		}
	}
}

// knownDraft: the drafts of JSON Schema are part of the library and never loaded.
func knownDraft(address string) bool {
	return strings.Contains(address, "://json-schema.org/")
}
