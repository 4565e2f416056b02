package deploy

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
)

func configurations(all []object) []object {
	var found []object
	for _, o := range all {
		if strings.HasSuffix(o.text("kind"), "WebhookConfiguration") {
			found = append(found, o)
		}
	}
	return found
}

// Helm 3, and helm 4 for a release that helm 3 made, send what differs between the old manifest, the new one and the
// live object. Helm 4 applies on the server, where a field belongs to whoever wrote it: tests/run chart does that.
func TestAnUpgradeKeepsTheCaBundle(t *testing.T) {
	before := configurations(rendered(t, ""))
	after := configurations(rendered(t, "longhorn: {namespace: elsewhere}"))
	if len(before) != 2 || len(after) != 2 {
		t.Fatalf("%d and %d configurations", len(before), len(after))
	}
	for i, old := range before {
		live := bundled(t, old)
		var kind any = &admissionv1.ValidatingWebhookConfiguration{}
		if old.text("kind") == "MutatingWebhookConfiguration" {
			kind = &admissionv1.MutatingWebhookConfiguration{}
		}
		meta, err := strategicpatch.NewPatchMetaFromStruct(kind)
		if err != nil {
			t.Fatal(err)
		}
		patch, err := strategicpatch.CreateThreeWayMergePatch(encode(t, old), encode(t, after[i]), encode(t, live), meta, true)
		if err != nil {
			t.Fatal(err)
		}
		patched, err := strategicpatch.StrategicMergePatch(encode(t, live), patch, kind)
		if err != nil {
			t.Fatal(err)
		}
		var result object
		if err := json.Unmarshal(patched, &result); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(patched), "elsewhere") {
			t.Error("the upgrade changed nothing")
		}
		for _, hook := range result.list("webhooks") {
			hook := object(hook.(map[string]any))
			if hook.text("clientConfig", "caBundle") != "Y2E=" {
				t.Errorf("%s has lost its caBundle", hook.text("name"))
			}
		}
	}
}

// bundled is a configuration as it is in the cluster once Handoff has written its caBundle.
func bundled(t *testing.T, o object) object {
	t.Helper()
	var live object
	if err := json.Unmarshal(encode(t, o), &live); err != nil {
		t.Fatal(err)
	}
	for _, hook := range live.list("webhooks") {
		hook.(map[string]any)["clientConfig"].(map[string]any)["caBundle"] = "Y2E="
	}
	return live
}

func encode(t *testing.T, o object) []byte {
	t.Helper()
	text, err := json.Marshal(maps.Clone(o))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestOnlyACaBundleThatWasGivenIsRendered(t *testing.T) {
	for values, want := range map[string]string{"": "", "certificates: {source: cert-manager}": "", files: "Y2E="} {
		for _, configuration := range configurations(rendered(t, values)) {
			for _, hook := range configuration.list("webhooks") {
				hook := object(hook.(map[string]any))
				if have := hook.text("clientConfig", "caBundle"); have != want {
					t.Errorf("%q: %s has %q", values, hook.text("name"), have)
				}
			}
		}
	}
}
