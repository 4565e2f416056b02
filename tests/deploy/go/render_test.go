// Package deploy tests what is in deploy/: the chart, the kustomizations and the image, with the real helm, kustomize and
// kubeconform. tests/deploy/run builds them and runs this.
package deploy

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

const (
	namespace = "handoff-system"
	// what the manifests of deploy/scheduler/second name
	kubernetes = "v1.36.2"
	chart      = "helm/handoff"
)

type object map[string]any

// at is the value at a path of keys, or nil.
func (o object) at(path ...string) any {
	var value any = map[string]any(o)
	for _, key := range path {
		fields, ok := value.(map[string]any)
		if !ok {
			return nil
		}
		value = fields[key]
	}
	return value
}

func (o object) text(path ...string) string {
	text, _ := o.at(path...).(string)
	return text
}

func (o object) list(path ...string) []any {
	list, _ := o.at(path...).([]any)
	return list
}

// name is unique among the objects of a cluster.
func (o object) name() string {
	return strings.Join([]string{o.text("kind"), o.text("metadata", "namespace"), o.text("metadata", "name")}, "/")
}

// deploy is the path of a file below deploy/.
func deploy(name string) string {
	path, err := filepath.Abs(filepath.Join("../../../deploy", name))
	if err != nil {
		panic(err)
	}
	return path
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// env is a variable that tests/deploy/run sets.
func env(t *testing.T, name string) string {
	t.Helper()
	value := os.Getenv(name)
	if value == "" {
		t.Fatalf("%s is not set: run tests/deploy/run", name)
	}
	return value
}

// tool runs a program of ours; its standard output is returned.
func tool(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	command := exec.Command(filepath.Join(env(t, "HANDOFF_DEPLOY_TOOLS"), name), args...)
	var out, errors bytes.Buffer
	command.Stdout, command.Stderr = &out, &errors
	// no configuration, plugin or cluster of whoever runs this
	home := t.TempDir()
	command.Env = append(os.Environ(), "HOME="+home, "HELM_CONFIG_HOME="+home, "HELM_CACHE_HOME="+home, "HELM_DATA_HOME="+home, "KUBECONFIG=/dev/null")
	if err := command.Run(); err != nil {
		return out.String(), &failed{err, out.String() + errors.String()}
	}
	return out.String(), nil
}

type failed struct {
	err error
	out string
}

func (f *failed) Error() string { return f.err.Error() + "\n" + f.out }

// helm renders the chart with the values; further words are given to helm.
func helm(t *testing.T, values string, words ...string) (string, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(file, []byte(values), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"template", "handoff", deploy(chart), "--namespace", namespace, "--kube-version", kubernetes, "--values", file}
	return tool(t, "helm", append(args, words...)...)
}

// rendered is the chart with the values.
func rendered(t *testing.T, values string, words ...string) []object {
	t.Helper()
	text, err := helm(t, values, words...)
	if err != nil {
		t.Fatal(err)
	}
	return objects(t, text)
}

// kustomized is what a directory below deploy/ gives.
func kustomized(t *testing.T, dir string) []object {
	t.Helper()
	text, err := tool(t, "kustomize", "build", deploy(dir))
	if err != nil {
		t.Fatal(err)
	}
	return objects(t, text)
}

var separator = regexp.MustCompile(`(?m)^---$`)

func objects(t *testing.T, text string) []object {
	t.Helper()
	var all []object
	for _, document := range separator.Split(text, -1) {
		var one object
		// strict: a key that is there twice is a mistake
		if err := yaml.UnmarshalStrict([]byte(document), &one); err != nil {
			t.Fatalf("%v in\n%s", err, document)
		}
		if one != nil {
			all = append(all, one)
		}
	}
	if len(all) == 0 {
		t.Fatal("nothing was rendered")
	}
	names := map[string]bool{}
	for _, o := range all {
		if names[o.name()] {
			t.Fatalf("%s is there twice", o.name())
		}
		names[o.name()] = true
	}
	return all
}

// renderings are the ways to install Handoff, by name.
func renderings(t *testing.T) map[string][]object {
	t.Helper()
	all := map[string][]object{}
	for name, values := range ways {
		all["chart "+name] = rendered(t, values)
	}
	for _, dir := range []string{"kustomize", "cert-manager", "scheduler/second", "scheduler/bind"} {
		all["kustomize "+dir] = kustomized(t, dir)
	}
	return all
}

var ways = map[string]string{
	"default":      "",
	"cert-manager": "certificates: {source: cert-manager}",
	"files":        files,
	"second":       "scheduler: {tier: second, bind: true, second: {takesPods: true}}",
	"main":         "scheduler: {tier: main, main: {directory: /etc/elsewhere, kubeconfig: /etc/other.conf}}\nextender: {clusterIP: 10.96.0.9}",
	"all else": `
image: {repository: "registry.example:5000/team/handoff", digest: "sha256:` + strings.Repeat("0", 64) + `"}
imagePullSecrets: [{name: pull}]
longhorn: {namespace: storage}
settings: {evictionPolicy: FinishIfNear, evictionHold: 90s, workers: 4, log: debug, resumeBackoffMax: 10m}
agent: {kubeletDirectory: /var/lib/k0s/kubelet, nodeSelector: {storage: "true"}}
nodeSelector: {kubernetes.io/os: linux}
tolerations: [{operator: Exists}]
affinity: {nodeAffinity: {}}
podAnnotations: {prometheus.io/scrape: "true"}
podLabels: {team: storage}
networkPolicy: {apiServerPorts: [16443], extraEgress: [{ports: [{port: 4317, protocol: TCP}]}]}
resourceQuota: {enabled: true}
monitoring: {podMonitor: {enabled: true, labels: {release: prometheus}}, prometheusRule: {enabled: true}, dashboard: {enabled: true}}
crd: {keep: true}`,
	"little": "agent: {enabled: false}\nnetworkPolicy: {enabled: false}\npodDisruptionBudget: {enabled: false}\ncrd: {install: false}\nuninstallHook: {enabled: false}",
}

const files = "certificates: {source: files, secretName: my-certificate, caBundle: Y2E=}"

func sorted[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
