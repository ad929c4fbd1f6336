// Renders a Helm chart as `helm template` does, for machines that have no helm: Go's own templates, sprig's functions, and the few
// of Helm's that the chart uses. Reads {"Values": ..., "Release": ..., "Chart": ...} from standard input, the folder of templates from the
// command line; writes {file: text}.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"github.com/Masterminds/sprig"
	"gopkg.in/yaml.v3"
)

func main() {
	var data map[string]interface{}
	if err := json.NewDecoder(os.Stdin).Decode(&data); err != nil {
		exit(err)
	}
	files, err := filepath.Glob(filepath.Join(os.Args[1], "*"))
	if err != nil {
		exit(err)
	}
	chart := template.New("chart").Option("missingkey=zero")
	functions := sprig.TxtFuncMap()
	functions["fail"] = func(message string) (string, error) { return "", errors.New(message) }
	functions["include"] = func(name string, data interface{}) (string, error) {
		var out bytes.Buffer
		err := chart.ExecuteTemplate(&out, name, data)
		return out.String(), err
	}
	functions["toYaml"] = func(value interface{}) (string, error) {
		text, err := yaml.Marshal(value)
		return strings.TrimSuffix(string(text), "\n"), err
	}
	template.Must(chart.Funcs(functions).ParseFiles(files...))
	rendered := map[string]string{}
	for _, file := range files {
		var out bytes.Buffer
		if err := chart.ExecuteTemplate(&out, filepath.Base(file), data); err != nil {
			exit(err)
		}
		rendered[filepath.Base(file)] = out.String()
	}
	if err := json.NewEncoder(os.Stdout).Encode(rendered); err != nil {
		exit(err)
	}
}

func exit(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
