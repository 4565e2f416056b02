package deploy

import (
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTheChartAndKustomizeGiveTheSameObjects(t *testing.T) {
	for name, way := range map[string]struct {
		values string
		dirs   []string
	}{
		"default":          {"", []string{"kustomize"}},
		"cert-manager":     {"certificates: {source: cert-manager}", []string{"cert-manager"}},
		"second scheduler": {"scheduler: {tier: second}", []string{"kustomize", "scheduler/second"}},
		"bind":             {"scheduler: {bind: true}", []string{"kustomize", "scheduler/bind"}},
	} {
		t.Run(name, func(t *testing.T) {
			var kustomize []object
			for _, dir := range way.dirs {
				kustomize = append(kustomize, kustomized(t, dir)...)
			}
			want, have := compared(kustomize), compared(rendered(t, way.values))
			// helm makes the release's namespace itself
			if _, there := want["Namespace//"+namespace]; !there {
				t.Fatal("kustomize makes no namespace")
			}
			delete(want, "Namespace//"+namespace)
			if diff := cmp.Diff(want, have); diff != "" {
				t.Errorf("kustomize is -, the chart is +:\n%s", diff)
			}
		})
	}
}

var hashed = regexp.MustCompile(`^handoff-scheduler-[a-z0-9]{10}$`)

// compared is what is left without what each tool adds for itself: helm's labels and hooks, and the way in which a
// changed ConfigMap restarts a pod: kustomize gives it another name, the chart gives the pod an annotation.
func compared(all []object) map[string]object {
	result := map[string]object{}
	for _, o := range all {
		if hook(o) != "" {
			continue
		}
		o = clean(map[string]any(o)).(map[string]any)
		result[o.name()] = o
	}
	return result
}

// hook is what makes helm run the object.
func hook(o object) string { return o.text("metadata", "annotations", "helm.sh/hook") }

func clean(value any) any {
	switch value := value.(type) {
	case map[string]any:
		result := map[string]any{}
		for key, v := range value {
			switch {
			case key == "helm.sh/chart", key == "app.kubernetes.io/managed-by", key == "app.kubernetes.io/version", key == "checksum/configuration":
				continue
			}
			v = clean(v)
			if empty, ok := v.(map[string]any); ok && len(empty) == 0 && key == "annotations" {
				continue
			}
			result[key] = v
		}
		return result
	case []any:
		result := make([]any, len(value))
		for i, v := range value {
			result[i] = clean(v)
		}
		return result
	case string:
		if hashed.MatchString(value) {
			return "handoff-scheduler"
		}
		return strings.TrimSpace(value)
	}
	return value
}
