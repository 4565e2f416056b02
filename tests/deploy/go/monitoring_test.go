package deploy

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
	"sigs.k8s.io/yaml"
)

func TestTheAlertRulesPassPromtool(t *testing.T) {
	if _, err := tool(t, "promtool", "check", "rules", "--lint=all", "--lint-fatal", deploy("monitoring/alerts.yaml")); err != nil {
		t.Error(err)
	}
	out, err := tool(t, "promtool", "test", "rules", deploy("../tests/deploy/alerts_test.yaml"))
	if err != nil {
		t.Error(err)
	}
	if !strings.Contains(out, "SUCCESS") {
		t.Error(out)
	}
}

func alerts(t *testing.T) []object {
	t.Helper()
	var rules object
	if err := yaml.UnmarshalStrict([]byte(readFile(t, deploy("monitoring/alerts.yaml"))), &rules); err != nil {
		t.Fatal(err)
	}
	var all []object
	for _, group := range rules.list("groups") {
		for _, rule := range object(group.(map[string]any)).list("rules") {
			all = append(all, rule.(map[string]any))
		}
	}
	if len(all) == 0 {
		t.Fatal("no rule")
	}
	return all
}

func TestEveryAlertFiresInItsTestAndHasItsPlaceInTheRunbook(t *testing.T) {
	runbook := readFile(t, deploy("../docs/runbook.md"))
	var tests object
	if err := yaml.Unmarshal([]byte(readFile(t, deploy("../tests/deploy/alerts_test.yaml"))), &tests); err != nil {
		t.Fatal(err)
	}
	fires, silent := map[string]bool{}, map[string]bool{}
	for _, test := range tests.list("tests") {
		for _, one := range object(test.(map[string]any)).list("alert_rule_test") {
			one := object(one.(map[string]any))
			if len(one.list("exp_alerts")) > 0 {
				fires[one.text("alertname")] = true
			} else {
				silent[one.text("alertname")] = true
			}
		}
	}
	for _, rule := range alerts(t) {
		name := rule.text("alert")
		if !strings.Contains(runbook, "\n## "+name+"\n") {
			t.Errorf("docs/runbook.md has no section %s", name)
		}
		if rule.text("annotations", "runbook") != "docs/runbook.md#"+strings.ToLower(name) {
			t.Errorf("%s does not point at its runbook", name)
		}
		if !fires[name] || !silent[name] {
			t.Errorf("%s must be seen to fire and seen to be silent", name)
		}
	}
	for _, title := range regexp.MustCompile(`(?m)^## (Handoff\w+)$`).FindAllStringSubmatch(runbook, -1) {
		if !fires[title[1]] {
			t.Errorf("docs/runbook.md tells of %s, which is no alert", title[1])
		}
	}
}

func TestTheDashboardsQueriesAreSound(t *testing.T) {
	var dashboard object
	if err := json.Unmarshal([]byte(readFile(t, deploy("monitoring/dashboard.json"))), &dashboard); err != nil {
		t.Fatal(err)
	}
	if dashboard.text("uid") == "" || dashboard.at("id") != nil {
		t.Error("a dashboard that is provisioned has a uid and no id")
	}
	ids, queries := map[any]bool{}, 0
	for _, panel := range dashboard.list("panels") {
		panel := object(panel.(map[string]any))
		if ids[panel["id"]] {
			t.Errorf("two panels have id %v", panel["id"])
		}
		ids[panel["id"]] = true
		if panel.text("type") == "row" {
			continue
		}
		if panel.text("title") == "" || panel.text("description") == "" {
			t.Errorf("panel %v says not what it shows", panel["id"])
		}
		if panel.text("datasource", "uid") != "${datasource}" {
			t.Errorf("%s names a data source of its own", panel.text("title"))
		}
		if len(panel.list("targets")) == 0 {
			t.Errorf("%s asks nothing", panel.text("title"))
		}
		for _, target := range panel.list("targets") {
			queries++
			// Grafana puts the range in
			expression := strings.ReplaceAll(object(target.(map[string]any)).text("expr"), "$__rate_interval", "5m")
			expression = strings.ReplaceAll(expression, "$__range", "1h")
			if _, err := parser.NewParser(parser.Options{}).ParseExpr(expression); err != nil {
				t.Errorf("%s: %v", panel.text("title"), err)
			}
		}
	}
	if queries == 0 {
		t.Error("no query")
	}
}
