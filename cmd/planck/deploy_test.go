package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.yaml.in/yaml/v3"

	"planck/network"
	"planck/test/pg"
)

const (
	alertsFile    = "../../deploy/prometheus/planck-alerts.yaml"
	dashboardFile = "../../deploy/grafana/planck.json"
)

// alert is a rule of Prometheus.
type alert struct {
	Alert       string            `yaml:"alert"`
	Expr        string            `yaml:"expr"`
	For         string            `yaml:"for"`
	Labels      map[string]string `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations"`
}

func alerts(t *testing.T) (all []alert) {
	t.Helper()
	text, err := os.ReadFile(alertsFile)
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct {
			Name  string  `yaml:"name"`
			Rules []alert `yaml:"rules"`
		} `yaml:"groups"`
	}
	in := yaml.NewDecoder(strings.NewReader(string(text)))
	in.KnownFields(true)
	if err := in.Decode(&file); err != nil {
		t.Fatalf("%s: %v", alertsFile, err)
	}
	for _, g := range file.Groups {
		all = append(all, g.Rules...)
	}
	return all
}

// exposed are the labels of each metric of a controller with everything that it
// may have: a cluster, Keystone, Nova, notifications.
func exposed(t *testing.T) map[string][]string {
	t.Helper()
	text := fmt.Sprintf("[DEFAULT]\nauth_strategy = keystone\nnotification_driver = log\n[database]\nconnection = %s\n"+
		"[keystone_authtoken]\nauth_url = http://127.0.0.1:1\nusername = u\npassword = p\nproject_name = p\n"+
		"[nova]\nendpoint_override = http://127.0.0.1:1\nauth_url = http://127.0.0.1:1\nusername = u\npassword = p\nproject_name = p\n", pg.Start(t))
	cfg, _, err := LoadConfig([]string{configFile(t, "planck.conf", text)}, map[string]string{
		"state-dir": t.TempDir(), "api-listen": "127.0.0.1:0", "openflow-listen": "127.0.0.1:0", "ovsdb-listen": "127.0.0.1:0",
	})
	if err != nil {
		t.Fatal(err)
	}
	l, err := listen(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.close)
	store, err := network.Open(t.Context(), string(cfg.Database), cfg.NetworkConfig())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	p, err := assemble(cfg, slog.New(slog.DiscardHandler), store, l, new(recentLines))
	if err != nil {
		t.Fatal(err)
	}
	descriptions := make(chan *prometheus.Desc)
	go func() {
		defer close(descriptions)
		p.registry.Describe(descriptions)
	}()
	labels := map[string][]string{}
	for d := range descriptions {
		found := description.FindStringSubmatch(d.String())
		if found == nil {
			t.Fatalf("a description that can't be read: %s", d)
		}
		labels[found[1]] = strings.FieldsFunc(found[2], func(r rune) bool { return r == ',' || r == ' ' })
	}
	return labels
}

var (
	description = regexp.MustCompile(`fqName: "([^"]+)".*variableLabels: \{([^}]*)\}`)
	metricName  = regexp.MustCompile(`\b((?:planck|process|go)_[a-z0-9_]+)(?:\{([^}]*)\})?`)
	selector    = regexp.MustCompile(`([a-z_]+)\s*(?:=~|!~|!=|=)\s*"`)
	grouping    = regexp.MustCompile(`\bby \(([^)]*)\)`)
)

// ofTargets are labels that Prometheus itself adds.
var ofTargets = []string{"instance", "job"}

// checkExpression checks that metrics of an expression are exposed, with the
// labels by which it selects and groups.
func checkExpression(t *testing.T, where, expr string, exposed map[string][]string) {
	t.Helper()
	var known []string
	for _, found := range metricName.FindAllStringSubmatch(expr, -1) {
		name := found[1]
		labels, ok := exposed[name]
		if of, bucket := strings.CutSuffix(name, "_bucket"); bucket {
			labels, ok = exposed[of]
			labels = append(slices.Clone(labels), "le")
		}
		if !ok {
			t.Errorf("%s: no controller exposes %s", where, name)
		}
		known = append(known, labels...)
		for _, label := range selector.FindAllStringSubmatch(found[2], -1) {
			if !slices.Contains(labels, label[1]) && !slices.Contains(ofTargets, label[1]) {
				t.Errorf("%s: %s has no label %s", where, name, label[1])
			}
		}
	}
	for _, found := range grouping.FindAllStringSubmatch(expr, -1) {
		for label := range strings.SplitSeq(found[1], ",") {
			if label = strings.TrimSpace(label); !slices.Contains(known, label) && !slices.Contains(ofTargets, label) {
				t.Errorf("%s: no metric of %s has the label %s", where, expr, label)
			}
		}
	}
	if strings.Count(expr, "(") != strings.Count(expr, ")") || strings.Count(expr, "[") != strings.Count(expr, "]") {
		t.Errorf("%s: brackets of %s", where, expr)
	}
}

func TestDashboardAndAlertsUseMetricsThatThereAre(t *testing.T) {
	exposed := exposed(t)
	names := map[string]bool{}
	for _, a := range alerts(t) {
		checkExpression(t, a.Alert, a.Expr, exposed)
		if names[a.Alert] || a.Annotations["summary"] == "" || a.Labels["severity"] == "" {
			t.Errorf("alert %q has no name of its own, no summary or no severity", a.Alert)
		}
		names[a.Alert] = true
		if a.For != "" && !regexp.MustCompile(`^\d+[smh]$`).MatchString(a.For) {
			t.Errorf("%s: for %q", a.Alert, a.For)
		}
	}
	text, err := os.ReadFile(dashboardFile)
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title, Type string
			ID          int
			Targets     []struct{ Expr, LegendFormat string }
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	ids, used := map[int]bool{}, 0
	for _, p := range dashboard.Panels {
		if ids[p.ID] || p.Title == "" {
			t.Errorf("panel %d %q", p.ID, p.Title)
		}
		ids[p.ID] = true
		for _, target := range p.Targets {
			used++
			checkExpression(t, "panel "+p.Title, target.Expr, exposed)
		}
	}
	if used == 0 {
		t.Error("the dashboard asks for nothing")
	}
}

// Every alert has a line in docs/operations.md that says what to do.
func TestAlertsAreDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range alerts(t) {
		if line := regexp.MustCompile("(?m)^\\| `" + a.Alert + "` \\| .{10,} \\|$"); !line.Match(doc) {
			t.Errorf("docs/operations.md has no line for %s (%s)", a.Alert, cmp.Or(a.Annotations["summary"], "no summary"))
		}
	}
}
