package deploy

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// hooks are the objects that helm makes for an event, by name.
func hooks(t *testing.T, values, event string) map[string]object {
	t.Helper()
	found := map[string]object{}
	for _, o := range rendered(t, values) {
		if hook(o) == event {
			found[o.name()] = o
		}
	}
	return found
}

// Helm forgets its hooks: whatever it makes for one must go by itself.
func TestHooksLeaveNothingBehind(t *testing.T) {
	seen := 0
	for way, values := range ways {
		for _, o := range rendered(t, values) {
			if hook(o) == "" {
				continue
			}
			seen++
			policy := strings.Split(o.text("metadata", "annotations", "helm.sh/hook-delete-policy"), ",")
			slices.Sort(policy)
			if diff := cmp.Diff([]string{"before-hook-creation", "hook-failed", "hook-succeeded"}, policy); diff != "" {
				t.Errorf("%s: %s stays: %s", way, o.name(), diff)
			}
			// what it had to say would go with it
			if kind := o.text("kind"); kind == "Pod" || kind == "Job" {
				if o.text("metadata", "annotations", "helm.sh/hook-output-log-policy") != "hook-succeeded,hook-failed" {
					t.Errorf("%s: %s ends unheard", way, o.name())
				}
			}
		}
	}
	if seen == 0 {
		t.Error("no hook was looked at")
	}
}

func TestUninstallWithdrawsUnlessTheHandoffsAreKept(t *testing.T) {
	job := "Job/" + namespace + "/handoff-uninstall"
	for values, want := range map[string][]string{
		"":                                {"uninstall", "--yes"},
		"crd: {keep: true}":               {"uninstall", "--yes", "--keep-handoffs"},
		"uninstallHook: {enabled: false}": nil,
	} {
		var have []string
		if pod, there := pods(t, sortedObjects(hooks(t, values, "pre-delete")))[job]; there {
			have = pod.Spec.Containers[0].Args
		}
		if diff := cmp.Diff(want, have); diff != "" {
			t.Errorf("%q: %s", values, diff)
		}
	}
}

func TestTheTestIsDoctor(t *testing.T) {
	values := "agent: {namespace: elsewhere}\nlonghorn: {namespace: storage}"
	pod := pods(t, sortedObjects(hooks(t, values, "test")))["Pod/"+namespace+"/handoff-doctor"]
	if diff := cmp.Diff([]string{"doctor", "--agent-namespace=elsewhere"}, pod.Spec.Containers[0].Args); diff != "" {
		t.Error(diff)
	}
	env := map[string]string{}
	for _, v := range pod.Spec.Containers[0].Env {
		env[v.Name] = v.Value
	}
	if diff := cmp.Diff(map[string]string{"HANDOFF_NAMESPACE": namespace, "HANDOFF_LONGHORN_NAMESPACE": "storage"}, env); diff != "" {
		t.Error(diff)
	}
}

func sortedObjects(all map[string]object) []object {
	var list []object
	for _, name := range sorted(all) {
		list = append(list, all[name])
	}
	return list
}

func TestTheAlertRulesAreThoseOfDeployMonitoring(t *testing.T) {
	for _, o := range rendered(t, "monitoring: {prometheusRule: {enabled: true}}") {
		if o.text("kind") != "PrometheusRule" {
			continue
		}
		var rules []object
		for _, rule := range object(o.list("spec", "groups")[0].(map[string]any)).list("rules") {
			rules = append(rules, rule.(map[string]any))
		}
		if diff := cmp.Diff(alerts(t), rules); diff != "" {
			t.Error(diff)
		}
		return
	}
	t.Error("no rule was rendered")
}
