package main

import (
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"sort"

	"helm.sh/helm/v4/pkg/chart/common"
	chart "helm.sh/helm/v4/pkg/chart/v2"
)

// Functions of templates (sprig and Helm) whose result differs from call to call: keys, salts, random text, time, and
// "lookup", which is empty here but says that the author expects a cluster. Functions that only read the clock when
// asked to parse nonsense count too: a superfluous second rendering is cheap. "keys" and "values" answer in the random
// order of Go's maps. "derivePassword" is deterministic and not here; "encryptAES" and "bcrypt" have random salts.
var randomNames = map[string]bool{
	"ago": true, "bcrypt": true, "date": true, "dateInZone": true, "date_in_zone": true, "encryptAES": true,
	"genCA": true, "genCAWithKey": true, "genPrivateKey": true, "genSelfSignedCert": true,
	"genSelfSignedCertWithKey": true, "genSignedCert": true, "genSignedCertWithKey": true, "htmlDate": true,
	"htmlDateInZone": true, "htpasswd": true, "keys": true, "lookup": true, "now": true, "randAlpha": true, "randAlphaNum": true,
	"randAscii": true, "randBytes": true, "randInt": true, "randNumeric": true, "shuffle": true, "uuidv4": true, "values": true,
}

var (
	actions    = regexp.MustCompile(`(?s)\{\{.*?\}\}`)
	comment    = regexp.MustCompile(`(?s)/\*.*?\*/`)
	identifier = regexp.MustCompile(`[.$]?[\pL_][\pL\pN_]*`)
)

// randomFunctions names the functions in a chart, its subcharts and the values whose result is not a function of the
// request. It may name too many (a word in a quoted text), never too few: values and files count, as "tpl" runs them.
func randomFunctions(of *chart.Chart, values map[string]any) []string {
	found := map[string]bool{}
	scanChart(of, found)
	if content, err := json.Marshal(values); err == nil {
		scan(content, found)
	}
	names := slices.AppendSeq([]string{}, maps.Keys(found)) // never null in an answer
	sort.Strings(names)
	return names
}

func scanChart(of *chart.Chart, found map[string]bool) {
	for _, files := range [][]*common.File{of.Templates, of.Files} {
		for _, file := range files {
			scan(file.Data, found)
		}
	}
	if content, err := json.Marshal(of.Values); err == nil {
		scan(content, found)
	}
	for _, inner := range of.Dependencies() {
		scanChart(inner, found)
	}
}

func scan(content []byte, found map[string]bool) {
	for _, part := range actions.FindAll(content, -1) {
		for _, word := range identifier.FindAll(comment.ReplaceAll(part, nil), -1) {
			if randomNames[string(word)] {
				found[string(word)] = true
			}
		}
	}
}
