package deploy

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

func TestWrongValuesAreRefusedByName(t *testing.T) {
	for values, named := range map[string]string{
		"replica: 3":                                     "replica",
		"replicas: 0":                                    "/replicas",
		"image: {tag: latest}":                           "/image/tag",
		"image: {digest: abc}":                           "/image/digest",
		"settings: {evictionhold: 9s}":                   "evictionhold",
		"settings: {evictionHold: soon}":                 "/settings/evictionHold",
		"settings: {mode: off}":                          "/settings/mode",
		"certificates: {source: vault}":                  "/certificates/source",
		"certificates: {source: files, secretName: a}":   "/certificates/caBundle",
		"certificates: {source: files, caBundle: Y2E=}":  "/certificates/secretName",
		"scheduler: {tier: third}":                       "/scheduler/tier",
		"scheduler: {second: {name: default-scheduler}}": "/scheduler/second/name",
		"resources: {limits: {memory: lots}}":            "/resources/limits/memory",
		"podLabels: {app.kubernetes.io/name: other}":     "app.kubernetes.io/name",
		"agent: {kubeletDirectory: relative}":            "/agent/kubeletDirectory",
		"networkPolicy: {apiServerPorts: []}":            "/networkPolicy/apiServerPorts",
		"monitoring: {podMonitor: {interval: often}}":    "/monitoring/podMonitor/interval",
		"longhorn: {namespace: handoff-system}":          "Handoff needs a namespace of its own",
		"agent: {namespace: handoff-system}":             "Handoff needs a namespace of its own",
		"agent: {namespace: longhorn-system}":            "agent.namespace",
	} {
		out, err := helm(t, values)
		if err == nil {
			t.Errorf("%s: accepted", values)
		} else if !strings.Contains(strings.ReplaceAll(err.Error(), ".", "/"), strings.ReplaceAll(named, ".", "/")) {
			t.Errorf("%s: %q is not named in: %v", values, named, err)
		} else if out != "" {
			t.Errorf("%s: rendered all the same", values)
		}
	}
}

func TestAnOldClusterIsRefused(t *testing.T) {
	if _, err := helm(t, "", "--kube-version", "v1.29.9"); err == nil || !strings.Contains(err.Error(), "1.30") {
		t.Error(err)
	}
}

func TestSettingsBecomeTheEnvironment(t *testing.T) {
	env := map[string]string{}
	for _, o := range rendered(t, ways["all else"]) {
		if o.text("kind") != "Deployment" {
			continue
		}
		for _, v := range pods(t, []object{o})[o.name()].Spec.Containers[0].Env {
			env[v.Name] = v.Value
		}
	}
	for name, value := range map[string]string{
		"HANDOFF_EVICTION_POLICY":    "FinishIfNear",
		"HANDOFF_EVICTION_HOLD":      "90s",
		"HANDOFF_WORKERS":            "4",
		"HANDOFF_LOG":                "debug",
		"HANDOFF_RESUME_BACKOFF_MAX": "10m",
		"HANDOFF_LONGHORN_NAMESPACE": "storage",
	} {
		if env[name] != value {
			t.Errorf("%s is %q, not %q", name, env[name], value)
		}
	}
}

// Objects that name the namespace in a text, such as a user or a host name, follow it too.
func TestAnotherNamespaceIsNamedEverywhere(t *testing.T) {
	for name, values := range ways {
		text, err := helm(t, values, "--namespace", "elsewhere")
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range objects(t, text) {
			one, err := yaml.Marshal(o)
			if err != nil {
				t.Fatal(err)
			}
			// the script's default
			if strings.Contains(strings.ReplaceAll(string(one), "HANDOFF_NAMESPACE:-handoff-system", ""), namespace) &&
				!strings.Contains(o.name(), "handoff-scheduler-files") {
				t.Errorf("%s: %s names %s", name, o.name(), namespace)
			}
		}
	}
}

func TestTheFilesForTheClustersOwnScheduler(t *testing.T) {
	var data object
	for _, o := range rendered(t, ways["main"]) {
		if strings.HasSuffix(o.name(), "/handoff-scheduler-files") {
			data = o.at("data").(map[string]any)
		}
	}
	var config object
	if err := yaml.UnmarshalStrict([]byte(data.text("scheduler-config.yaml")), &config); err != nil {
		t.Fatal(err)
	}
	extender := object(config.list("extenders")[0].(map[string]any))
	if extender.text("urlPrefix") != "https://10.96.0.9" || config.text("clientConnection", "kubeconfig") != "/etc/other.conf" {
		t.Error(config)
	}
	for key, file := range map[string]string{"caFile": "ca.crt", "certFile": "tls.crt", "keyFile": "tls.key"} {
		if have := extender.text("tlsConfig", key); have != "/etc/elsewhere/"+file {
			t.Errorf("%s is %s", key, have)
		}
	}
	if data.text("write-files") != readFile(t, deploy("scheduler/write-files")) {
		t.Error("write-files is not the one of deploy/scheduler")
	}
}

// Variables that the chart sets by itself, that name what has one name in every installation, or that are the agent's.
var notSettings = []string{
	"HANDOFF_LONGHORN_NAMESPACE", "HANDOFF_CERTIFICATES", "HANDOFF_SCHEDULER_NAME", "HANDOFF_KUBELET_PLUGINS",
	"HANDOFF_WEBHOOK_SERVICE_NAME", "HANDOFF_EXTENDER_SERVICE_NAME", "HANDOFF_WEBHOOK_CONFIGURATION", "HANDOFF_CERTS_SECRET",
	"HANDOFF_LISTEN_WEBHOOK_PORT", "HANDOFF_LISTEN_EXTENDER_PORT", "HANDOFF_LISTEN_METRICS_PORT",
}

func TestTheSettingsAreTheVariablesOfServe(t *testing.T) {
	var schema object
	if err := yaml.Unmarshal([]byte(readFile(t, deploy(chart+"/values.schema.json"))), &schema); err != nil {
		t.Fatal(err)
	}
	capital := regexp.MustCompile("[A-Z]")
	settings := map[string]bool{}
	for name := range schema.at("properties", "settings", "properties").(map[string]any) {
		settings["HANDOFF_"+strings.ToUpper(capital.ReplaceAllString(name, "_$0"))] = true
	}
	read := map[string]bool{}
	for _, match := range regexp.MustCompile(`env = "(HANDOFF_[A-Z_]+)"`).FindAllStringSubmatch(readFile(t, deploy("../handoff/src/args.rs")), -1) {
		if !slices.Contains(notSettings, match[1]) {
			read[match[1]] = true
		}
	}
	if diff := cmp.Diff(sorted(read), sorted(settings)); diff != "" {
		t.Errorf("what the program reads is -, what the schema allows is +:\n%s", diff)
	}
}
