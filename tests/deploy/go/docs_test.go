package deploy

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

const (
	begin = "<!-- made of values.yaml by `make deploy-docs` -->\n"
	end   = "<!-- end -->\n"
)

// HANDOFF_WRITE_DOCS=1 writes the table instead of comparing it.
func TestTheTableOfValuesIsMadeOfTheirComments(t *testing.T) {
	path := deploy(chart + "/README.md")
	text := readFile(t, path)
	head, rest, found := strings.Cut(text, begin)
	_, tail, closed := strings.Cut(rest, end)
	if !found || !closed {
		t.Fatalf("%s has no place for the table", path)
	}
	want := head + begin + table(t) + end + tail
	if os.Getenv("HANDOFF_WRITE_DOCS") != "" {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if text != want {
		t.Errorf("%s is not what values.yaml says: run `make deploy-docs`", path)
	}
}

func table(t *testing.T) string {
	t.Helper()
	var document yaml.Node
	if err := yaml.Unmarshal([]byte(readFile(t, deploy(chart+"/values.yaml"))), &document); err != nil {
		t.Fatal(err)
	}
	text := "| value | default | what |\n|---|---|---|\n"
	rows(t, "", document.Content[0], &text)
	return text
}

// rows has one line per value that has a comment; one without belongs to the nearest above it that has.
func rows(t *testing.T, prefix string, node *yaml.Node, text *string) {
	t.Helper()
	for i := 0; i < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		name := prefix + key.Value
		// a comment that an empty line parts from the key is about the file
		paragraphs := strings.Split(key.HeadComment, "\n\n")
		comment := strings.TrimSpace(strings.ReplaceAll(strings.TrimPrefix(paragraphs[len(paragraphs)-1], "# "), "\n# ", " "))
		if comment == "" {
			if value.Kind != yaml.MappingNode || len(value.Content) == 0 {
				t.Errorf("%s has no comment", name)
			}
			rows(t, name+".", value, text)
			continue
		}
		if !strings.HasSuffix(comment, ".") {
			t.Errorf("the comment of %s is no sentence: %q", name, comment)
		}
		*text += fmt.Sprintf("| `%s` | `%s` | %s |\n", name, inline(t, value), strings.ReplaceAll(comment, "|", `\|`))
	}
}

// inline is a value in one line.
func inline(t *testing.T, node *yaml.Node) string {
	t.Helper()
	var value any
	if err := node.Decode(&value); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestEveryValueHasItsSchemaAndTheOtherWayRound(t *testing.T) {
	var schema, values object
	if err := json.Unmarshal([]byte(readFile(t, deploy(chart+"/values.schema.json"))), &schema); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal([]byte(readFile(t, deploy(chart+"/values.yaml"))), &values); err != nil {
		t.Fatal(err)
	}
	same(t, "", schema, values)
}

func same(t *testing.T, path string, schema, values object) {
	t.Helper()
	properties, ok := schema.at("properties").(map[string]any)
	if !ok {
		return
	}
	for key := range properties {
		// helm's own; settings are set or not
		if _, there := values[key]; !there && key != "global" && path != ".settings" {
			t.Errorf("%s.%s is in the schema and not in values.yaml", path, key)
		}
	}
	for key, value := range values {
		below, there := properties[key].(map[string]any)
		if !there {
			t.Errorf("%s.%s is in values.yaml and not in the schema", path, key)
		}
		if fields, ok := value.(map[string]any); ok {
			same(t, path+"."+key, below, fields)
		}
	}
}

func TestVersionsAreTheWorkspaces(t *testing.T) {
	match := regexp.MustCompile(`(?m)^\[workspace\.package\]\nversion = "([^"]+)"`).FindStringSubmatch(readFile(t, deploy("../Cargo.toml")))
	if match == nil {
		t.Fatal("Cargo.toml has no version")
	}
	var about object
	if err := yaml.Unmarshal([]byte(readFile(t, deploy(chart+"/Chart.yaml"))), &about); err != nil {
		t.Fatal(err)
	}
	if about.text("version") != match[1] || about.text("appVersion") != match[1] {
		t.Errorf("the chart is %s, its image %s, the workspace %s", about.text("version"), about.text("appVersion"), match[1])
	}
}
