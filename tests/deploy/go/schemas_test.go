package deploy

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// minors are the versions of Kubernetes whose schemas tests/deploy/run has made.
func minors(t *testing.T) []string {
	t.Helper()
	dirs, err := filepath.Glob(filepath.Join(env(t, "HANDOFF_SCHEMAS"), "kubernetes-*"))
	if err != nil || len(dirs) < 2 {
		t.Fatalf("no schemas: %v, %v", dirs, err)
	}
	return dirs
}

// kubeconform checks one text against the schemas of one minor.
func kubeconform(t *testing.T, schemas string, files ...string) error {
	t.Helper()
	where := "/{{ .ResourceKind }}{{ .KindSuffix }}.json"
	args := []string{"-strict", "-summary", "-schema-location", schemas + where}
	args = append(args, "-schema-location", filepath.Join(env(t, "HANDOFF_SCHEMAS"), "others")+where)
	out, err := tool(t, "kubeconform", append(args, files...)...)
	if err == nil && strings.Contains(out, "Valid: 0") {
		t.Fatalf("nothing was looked at: %s", out)
	}
	return err
}

func TestManifestsFitEverySupportedMinor(t *testing.T) {
	dir := t.TempDir()
	var all []string
	for name, objects := range renderings(t) {
		file := filepath.Join(dir, strings.NewReplacer(" ", "-", "/", "-").Replace(name)+".yaml")
		write(t, file, objects)
		all = append(all, file)
	}
	for _, schemas := range minors(t) {
		t.Run(filepath.Base(schemas), func(t *testing.T) {
			t.Parallel()
			if err := kubeconform(t, schemas, all...); err != nil {
				t.Error(err)
			}
		})
	}
}

// A check that accepts anything would not be one.
func TestAWrongManifestFitsNone(t *testing.T) {
	for what, spoil := range map[string]func(object){
		"an unknown field": func(o object) { o.at("spec").(map[string]any)["replica"] = 2 },
		"a wrong type":     func(o object) { o.at("spec").(map[string]any)["replicas"] = "two" },
		"a missing field":  func(o object) { delete(o.at("spec").(map[string]any), "selector") },
	} {
		file := filepath.Join(t.TempDir(), "wrong.yaml")
		all := rendered(t, "")
		for _, o := range all {
			if o.text("kind") == "Deployment" {
				spoil(o)
			}
		}
		write(t, file, all)
		for _, schemas := range minors(t) {
			if err := kubeconform(t, schemas, file); err == nil || !strings.Contains(err.Error(), "Deployment handoff is invalid") {
				t.Errorf("%s passes %s: %v", what, filepath.Base(schemas), err)
			}
		}
	}
}

func write(t *testing.T, file string, all []object) {
	t.Helper()
	var text strings.Builder
	for _, o := range all {
		one, err := yaml.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		text.WriteString("---\n" + string(one))
	}
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
}
