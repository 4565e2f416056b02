// Command schemas writes JSON schemas, as kubeconform reads them, of the kinds in Kubernetes' swagger.json or in
// CustomResourceDefinitions, from a module's zip file.
//
//	schemas ZIP PATTERN OUT
//
// Each file in ZIP whose path below the module matches PATTERN (path.Match) is read. Unknown fields are refused.
package main

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"
)

type object = map[string]any

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: schemas ZIP PATTERN OUT")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, "schemas:", err)
		os.Exit(1)
	}
}

func run(archive, pattern, out string) error {
	files, err := zip.OpenReader(archive)
	if err != nil {
		return err
	}
	defer files.Close()
	written := 0
	for _, file := range files.File {
		// module@version/path
		_, version, _ := strings.Cut(file.Name, "@")
		_, below, _ := strings.Cut(version, "/")
		if match, err := path.Match(pattern, below); err != nil || !match {
			if err != nil {
				return err
			}
			continue
		}
		text, err := read(file)
		if err != nil {
			return err
		}
		n, err := convert(below, text, out)
		if err != nil {
			return fmt.Errorf("%s: %w", below, err)
		}
		written += n
	}
	if written == 0 {
		return fmt.Errorf("nothing in %s matches %s", archive, pattern)
	}
	return nil
}

func read(file *zip.File) ([]byte, error) {
	reader, err := file.Open()
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	return io.ReadAll(reader)
}

func convert(name string, text []byte, out string) (int, error) {
	if strings.HasSuffix(name, ".json") {
		var swagger object
		if err := json.Unmarshal(text, &swagger); err != nil {
			return 0, err
		}
		return kinds(swagger, out)
	}
	written := 0
	for _, document := range bytes.Split(text, []byte("\n---")) {
		var crd object
		if err := yaml.Unmarshal(document, &crd); err != nil {
			return 0, err
		}
		if crd["kind"] != "CustomResourceDefinition" {
			continue
		}
		n, err := versions(crd["spec"].(object), out)
		if err != nil {
			return 0, err
		}
		written += n
	}
	return written, nil
}

// kinds writes a schema for each kind of a swagger.json, with all it refers to.
func kinds(swagger object, out string) (int, error) {
	definitions, ok := swagger["definitions"].(object)
	if !ok {
		return 0, errors.New("no definitions")
	}
	written := 0
	for name := range definitions {
		definition := definitions[name].(object)
		gvks, _ := definition["x-kubernetes-group-version-kind"].([]any)
		if len(gvks) != 1 {
			continue
		}
		gvk := gvks[0].(object)
		used := object{}
		reach(name, definitions, used)
		root := used[name].(object)
		// a copy: others may refer to the same definition, and must not get the values of this kind
		schema := object{"$schema": "http://json-schema.org/draft-07/schema#", "definitions": used}
		for key, value := range root {
			schema[key] = value
		}
		if err := write(out, schema, gvk["group"].(string), gvk["version"].(string), gvk["kind"].(string)); err != nil {
			return 0, err
		}
		written++
	}
	return written, nil
}

func reach(name string, all, used object) {
	if _, seen := used[name]; seen {
		return
	}
	if name == "io.k8s.apimachinery.pkg.api.resource.Quantity" {
		used[name] = object{"type": []string{"string", "number"}}
		return
	}
	strict := strict(all[name]).(object)
	used[name] = strict
	refer(strict, func(to string) { reach(to, all, used) })
}

func refer(value any, to func(string)) {
	switch value := value.(type) {
	case object:
		if ref, ok := value["$ref"].(string); ok {
			to(strings.TrimPrefix(ref, "#/definitions/"))
		}
		for _, v := range value {
			refer(v, to)
		}
	case []any:
		for _, v := range value {
			refer(v, to)
		}
	}
}

// versions writes a schema for each version of a CustomResourceDefinition.
func versions(spec object, out string) (int, error) {
	written := 0
	for _, version := range spec["versions"].([]any) {
		version := version.(object)
		schema := strict(version["schema"].(object)["openAPIV3Schema"]).(object)
		schema["$schema"] = "http://json-schema.org/draft-07/schema#"
		kind := spec["names"].(object)["kind"].(string)
		if err := write(out, schema, spec["group"].(string), version["name"].(string), kind); err != nil {
			return 0, err
		}
		written++
	}
	return written, nil
}

// strict is a schema without descriptions in which an object has no fields but those that are listed.
func strict(value any) any {
	switch value := value.(type) {
	case object:
		if value["x-kubernetes-int-or-string"] == true || value["format"] == "int-or-string" {
			return object{"type": []string{"string", "integer"}}
		}
		result := object{}
		for key, v := range value {
			if _, text := v.(string); key == "description" && text {
				continue
			}
			result[key] = strict(v)
		}
		_, listed := value["properties"].(object)
		_, said := value["additionalProperties"]
		if listed && !said && value["x-kubernetes-preserve-unknown-fields"] != true {
			result["additionalProperties"] = false
		}
		return result
	case []any:
		result := make([]any, len(value))
		for i, v := range value {
			result[i] = strict(v)
		}
		return result
	}
	return value
}

// write names the file as kubeconform looks for it: kind-group-version, of the group what is before its first dot.
func write(out string, schema object, group, version, kind string) error {
	name := strings.ToLower(kind) + "-"
	apiVersion := version
	if group != "" {
		first, _, _ := strings.Cut(group, ".")
		name += first + "-"
		apiVersion = group + "/" + version
	}
	if properties, ok := schema["properties"].(object); ok {
		own := object{}
		for key, value := range properties {
			own[key] = value
		}
		own["apiVersion"], own["kind"] = object{"const": apiVersion}, object{"const": kind}
		schema["properties"] = own
		schema["required"] = append(list(schema["required"]), "apiVersion", "kind")
	}
	text, err := json.Marshal(schema)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(out, name+version+".json"), text, 0o644)
}

func list(value any) []any {
	items, _ := value.([]any)
	result := []any{}
	for _, item := range items {
		if item != "apiVersion" && item != "kind" {
			result = append(result, item)
		}
	}
	return result
}
