package deploy

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/yaml"
)

// pods are the pod templates among the objects, by the name of what makes them.
func pods(t *testing.T, all []object) map[string]corev1.PodTemplateSpec {
	t.Helper()
	found := map[string]corev1.PodTemplateSpec{}
	for _, o := range all {
		var template any
		switch o.text("kind") {
		case "Deployment", "DaemonSet", "Job":
			template = o.at("spec", "template")
		case "Pod":
			template = map[string]any{"metadata": o.at("metadata"), "spec": o.at("spec")}
		default:
			if o.at("spec", "template", "spec", "containers") != nil {
				t.Errorf("%s has pods that are not looked at", o.name())
			}
			continue
		}
		text, err := yaml.Marshal(template)
		if err != nil {
			t.Fatal(err)
		}
		var pod corev1.PodTemplateSpec
		if err := yaml.UnmarshalStrict(text, &pod); err != nil {
			t.Fatalf("%s: %v", o.name(), err)
		}
		found[o.name()] = pod
	}
	return found
}

func TestPodsAskForNothingThatPodSecurityRestrictedRefuses(t *testing.T) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	restricted := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
	seen := 0
	for way, all := range renderings(t) {
		for name, pod := range pods(t, all) {
			seen++
			var refused []string
			for _, result := range evaluator.EvaluatePod(restricted, &pod.ObjectMeta, &pod.Spec) {
				if !result.Allowed {
					refused = append(refused, result.ForbiddenReason)
				}
			}
			var known []string
			if name == "DaemonSet/handoff-agent/handoff-agent" {
				// what the agent is there for: it looks at a directory of its host
				known = []string{"restricted volume types"}
			}
			slices.Sort(refused)
			slices.Sort(known)
			if !slices.Equal(refused, known) {
				t.Errorf("%s: %s: %v", way, name, refused)
			}
		}
	}
	if seen == 0 {
		t.Error("no pod was looked at")
	}
}

func TestTheAgentOnlyLooksAtTheKubeletsStagingDirectory(t *testing.T) {
	agent := pods(t, rendered(t, ""))["DaemonSet/handoff-agent/handoff-agent"]
	if len(agent.Spec.Volumes) != 1 || agent.Spec.Volumes[0].HostPath.Path != "/var/lib/kubelet/plugins/kubernetes.io/csi" {
		t.Error(agent.Spec.Volumes)
	}
	for _, mount := range agent.Spec.Containers[0].VolumeMounts {
		if !mount.ReadOnly || *mount.MountPropagation != corev1.MountPropagationHostToContainer {
			t.Error(mount)
		}
	}
}

func TestContainersAreBounded(t *testing.T) {
	for way, all := range renderings(t) {
		for name, pod := range pods(t, all) {
			for _, c := range append(pod.Spec.InitContainers, pod.Spec.Containers...) {
				where := fmt.Sprintf("%s: %s: container %s", way, name, c.Name)
				r := c.Resources
				if r.Requests.Cpu().IsZero() || r.Requests.Memory().IsZero() || r.Limits.Memory().IsZero() {
					t.Errorf("%s: requests of cpu and memory and a limit of memory are wanted: %v", where, r)
				}
				if c.SecurityContext.ReadOnlyRootFilesystem == nil || !*c.SecurityContext.ReadOnlyRootFilesystem {
					t.Errorf("%s can write its root file system", where)
				}
				_, tag, tagged := strings.Cut(c.Image[strings.LastIndex(c.Image, "/")+1:], ":")
				if !tagged || tag == "latest" || tag == "" {
					t.Errorf("%s: image %s names no version", where, c.Image)
				}
			}
			if pod.Spec.PriorityClassName == "" && pod.Spec.RestartPolicy == "" {
				t.Errorf("%s: %s has no priority", way, name)
			}
		}
	}
}

// Verbs and resources by which rights can be widened, and the wildcard.
var tooMuch = []string{"*", "escalate", "impersonate", "bind", "approve", "sign"}

func TestRolesAreNarrow(t *testing.T) {
	seen := 0
	for way, all := range renderings(t) {
		for _, o := range all {
			for _, rule := range o.list("rules") {
				seen++
				rule := object(rule.(map[string]any))
				where := fmt.Sprintf("%s: %s: %v", way, o.name(), rule)
				for _, key := range []string{"apiGroups", "resources", "verbs"} {
					for _, word := range rule.list(key) {
						if slices.Contains(tooMuch, word.(string)) && o.text("kind") != "ValidatingWebhookConfiguration" {
							t.Errorf("%q in %s", word, where)
						}
					}
				}
				secrets := slices.Contains(rule.list("resources"), any("secrets"))
				if secrets && o.text("kind") != "Role" {
					t.Errorf("Secrets of all namespaces: %s", where)
				}
				// `create` cannot be bound to a name
				if secrets && len(rule.list("resourceNames")) == 0 && !slices.Equal(rule.list("verbs"), []any{"create"}) {
					t.Errorf("Secrets without a name: %s", where)
				}
			}
		}
	}
	if seen == 0 {
		t.Error("no rule was looked at")
	}
}

func TestNothingOfTheChartStopsTheClusterWhenHandoffIsAway(t *testing.T) {
	for way, all := range renderings(t) {
		for _, o := range all {
			if !strings.HasSuffix(o.text("kind"), "WebhookConfiguration") {
				continue
			}
			for _, hook := range o.list("webhooks") {
				hook := object(hook.(map[string]any))
				if hook.text("failurePolicy") != "Ignore" || hook.at("timeoutSeconds").(float64) > 5 {
					t.Errorf("%s: %s", way, hook.text("name"))
				}
			}
		}
	}
}
