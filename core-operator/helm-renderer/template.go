package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"helm.sh/helm/v4/pkg/chart/common"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
)

type templateRequest struct {
	// For messages, such as "overwrite.yaml".
	Name string          `json:"name"`
	Text string          `json:"text"`
	Data json.RawMessage `json:"data"`
}

type templateResult struct {
	Text string `json:"text"`
}

const (
	// A file whose name starts with "_" is not rendered by itself, only where it is named.
	templatePath = "request/_template"
	callTemplate = `{{ template "` + templatePath + `" .Values }}`
)

// renderTemplate evaluates a single text as Helm evaluates the templates of charts.
func renderTemplate(request templateRequest) (*templateResult, error) {
	data, err := decode(request.Data)
	if err != nil {
		return nil, fmt.Errorf("data of %q: %w", request.Name, err)
	}
	only := &chart.Chart{
		Metadata: &chart.Metadata{Name: "request", Version: "1.0.0", APIVersion: chart.APIVersionV2},
		Templates: []*common.File{
			{Name: "_template", Data: []byte(request.Text)},
			{Name: "call", Data: []byte(callTemplate)},
		},
	}
	values := common.Values{"Values": data, "Release": map[string]any{}, "Capabilities": map[string]any{}}
	rendered, err := engine.Engine{}.Render(only, values)
	if err != nil {
		return nil, fmt.Errorf("%s", strings.ReplaceAll(err.Error(), templatePath, request.Name))
	}
	return &templateResult{Text: rendered["request/call"]}, nil
}

// decode keeps integers as integers: as floating-point numbers, large ones would print as 1.024e+12.
func decode(content []byte) (any, error) {
	if len(content) == 0 {
		return map[string]any{}, nil
	}
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		return nil, err
	}
	if _, err := decoder.Token(); err != io.EOF {
		return nil, fmt.Errorf("more than one JSON value")
	}
	return numbers(value), nil
}

func numbers(value any) any {
	switch value := value.(type) {
	case json.Number:
		if integer, err := value.Int64(); err == nil {
			return integer
		}
		if number, err := value.Float64(); err == nil {
			return number
		}
		return value.String()
	case map[string]any:
		for key, inner := range value {
			value[key] = numbers(inner)
		}
	case []any:
		for index, inner := range value {
			value[index] = numbers(inner)
		}
	}
	return value
}

type valuesRequest struct {
	Text string `json:"text"`
}

type valuesResult struct {
	Values map[string]any `json:"values"`
}

// readValues reads YAML as Helm reads a file of values: YAML 1.1, several documents are merged.
func readValues(request valuesRequest) (*valuesResult, error) {
	values, err := loader.LoadValues(strings.NewReader(request.Text))
	if err != nil {
		return nil, err
	}
	return &valuesResult{Values: values}, nil
}
