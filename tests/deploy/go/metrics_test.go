package deploy

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// What a replica shows, as docs/metrics.md has it: that table is made of the program's own registry, and a test of the
// program says when it is not.
type figure struct {
	kind string
	// values by label; nil if they cannot be listed
	labels map[string][]string
}

// Figures of others, whose labels are not ours to check.
var foreign = []string{"apiserver_admission_webhook_fail_open_count"}

// What Prometheus adds to each series, and histograms to their own.
var added = []string{"pod", "namespace", "job", "instance", "le", labels.MetricName}

func figures(t *testing.T) map[string]figure {
	t.Helper()
	found := map[string]figure{}
	row := regexp.MustCompile("(?m)^\\| `(handoff_[a-z_]+)` \\| ([a-z]+) \\| ([^|]*)\\|")
	word := regexp.MustCompile("`([^`]+)`")
	for _, match := range row.FindAllStringSubmatch(readFile(t, deploy("../docs/metrics.md")), -1) {
		one := figure{match[2], map[string][]string{}}
		// `label`: `value` `value`; `label`
		for _, label := range strings.Split(match[3], ";") {
			if words := word.FindAllStringSubmatch(label, -1); len(words) > 0 {
				one.labels[words[0][1]] = nil
				for _, value := range words[1:] {
					one.labels[words[0][1]] = append(one.labels[words[0][1]], value[1])
				}
			}
		}
		found[match[1]] = one
	}
	if len(found) < 5 {
		t.Fatalf("docs/metrics.md lists %d figures", len(found))
	}
	return found
}

// queries are all PromQL expressions of the alert rules and of the dashboard, by what they are for.
func queries(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, rule := range alerts(t) {
		all["alert "+rule.text("alert")] = rule.text("expr")
	}
	var dashboard object
	if err := json.Unmarshal([]byte(readFile(t, deploy("monitoring/dashboard.json"))), &dashboard); err != nil {
		t.Fatal(err)
	}
	for _, panel := range dashboard.list("panels") {
		panel := object(panel.(map[string]any))
		for _, target := range panel.list("targets") {
			target := object(target.(map[string]any))
			// Grafana puts the range in
			expr := strings.NewReplacer("$__rate_interval", "5m", "$__range", "1h").Replace(target.text("expr"))
			all["panel "+panel.text("title")+" "+target.text("refId")] = expr
		}
	}
	return all
}

func TestRulesAndDashboardAskForWhatThereIs(t *testing.T) {
	known, asked := figures(t), map[string]bool{}
	for where, query := range queries(t) {
		expr, err := parser.NewParser(parser.Options{}).ParseExpr(query)
		if err != nil {
			t.Errorf("%s: %v", where, err)
			continue
		}
		for _, complaint := range complaints(known, expr, asked) {
			t.Errorf("%s: %s in %s", where, complaint, query)
		}
	}
	for name := range known {
		if !asked[name] {
			t.Logf("nothing shows %s", name)
		}
	}
}

// complaints are metrics, labels and values of labels that there are not.
func complaints(known map[string]figure, expr parser.Expr, asked map[string]bool) []string {
	var wrong, groups []string
	available := slices.Clone(added)
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		switch node := node.(type) {
		case *parser.AggregateExpr:
			groups = append(groups, node.Grouping...)
		case *parser.VectorSelector:
			if slices.Contains(foreign, node.Name) {
				available = append(available, "name")
				return nil
			}
			name, one, found := lookUp(known, node.Name)
			if !found {
				wrong = append(wrong, "no figure "+node.Name)
				return nil
			}
			asked[name] = true
			available = append(available, sorted(one.labels)...)
			for _, matcher := range node.LabelMatchers {
				values, ours := one.labels[matcher.Name]
				if !ours && !slices.Contains(added, matcher.Name) {
					wrong = append(wrong, node.Name+" has no label "+matcher.Name)
				}
				positive := matcher.Type == labels.MatchEqual || matcher.Type == labels.MatchRegexp
				if ours && values != nil && positive && !slices.ContainsFunc(values, matcher.Matches) {
					wrong = append(wrong, matcher.String()+" is never so")
				}
			}
		}
		return nil
	})
	for _, group := range groups {
		if !slices.Contains(available, group) {
			wrong = append(wrong, "no label "+group)
		}
	}
	return wrong
}

// lookUp is the figure behind the name of a series, with the endings that its type has.
func lookUp(known map[string]figure, series string) (string, figure, bool) {
	endings := map[string][]string{"counter": {""}, "gauge": {""}, "histogram": {"_bucket", "_sum", "_count"}}
	for name, one := range known {
		for _, ending := range endings[one.kind] {
			if series == name+ending {
				return name, one, true
			}
		}
	}
	return "", figure{}, false
}

// A check that accepts anything would not be one.
func TestAWrongQueryIsFound(t *testing.T) {
	known := map[string]figure{
		"handoff_a_total": {"counter", map[string][]string{"kind": {"x", "y"}}},
		"handoff_b":       {"histogram", map[string][]string{}},
	}
	for query, sound := range map[string]bool{
		`sum by (kind) (rate(handoff_a_total{kind="x"}[5m]))`:     true,
		`sum by (kind, pod) (handoff_a_total{kind=~"x|z"})`:       true,
		`histogram_quantile(0.5, sum by (le) (handoff_b_bucket))`: true,
		`handoff_a`:                        false,
		`handoff_b`:                        false,
		`handoff_a_total{kind="z"}`:        false,
		`handoff_a_total{other="x"}`:       false,
		`sum by (other) (handoff_a_total)`: false,
	} {
		expr, err := parser.NewParser(parser.Options{}).ParseExpr(query)
		if err != nil {
			t.Fatal(err)
		}
		if wrong := complaints(known, expr, map[string]bool{}); (len(wrong) == 0) != sound {
			t.Errorf("%s: %v", query, wrong)
		}
	}
}
