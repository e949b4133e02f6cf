package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// changedFlow and toldChange are what planck changes -o json prints.
type changedFlow struct {
	Host, Bridge, Change, Text, Was, Cookie string
	Revisions                               []uint64
}

type toldChange struct {
	Cause, Operation string
	Position         string
	Revision         uint64
	RequestID        string `json:"request_id"`
	ProjectID        string `json:"project_id"`
	Flows            []changedFlow
}

// changes are what planck changes prints.
func (c *cloud) changes(args ...string) ([]toldChange, error) {
	c.Helper()
	told, _, err := c.changesPage(args...)
	return told, err
}

// changesPage are what planck changes prints, and where the next page begins.
func (c *cloud) changesPage(args ...string) (told []toldChange, next string, err error) {
	c.Helper()
	var answer struct {
		Changes []toldChange
		Next    string
	}
	out, err := c.planckError(append([]string{"changes", "-o", "json"}, args...)...)
	if err == nil {
		err = json.Unmarshal([]byte(out), &answer)
	}
	if err != nil {
		return nil, "", fmt.Errorf("planck changes %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return answer.Changes, answer.Next, nil
}

// addRule lets tcp to a port in by the default group of a tenant, and returns the
// id of the request.
func (c *cloud) addRule(project string, port int) (request string) {
	c.Helper()
	_, groups := c.call(http.MethodGet, "/v2.0/security-groups?name=default", nil, "X-Project-Id", project)
	list, _ := groups["security_groups"].([]any)
	if len(list) != 1 {
		c.Fatalf("the default group of %s: %v", project, groups)
	}
	body, err := json.Marshal(object{"security_group_rule": object{
		"security_group_id": list[0].(object)["id"], "direction": "ingress", "protocol": "tcp", "port_range_min": port, "port_range_max": port,
	}})
	if err != nil {
		c.Fatal(err)
	}
	req, err := http.NewRequest(http.MethodPost, c.api+"/v2.0/security-group-rules", bytes.NewReader(body))
	if err != nil {
		c.Fatal(err)
	}
	req.Header.Set("X-Project-Id", project)
	req.Header.Set("X-User-Id", "ann")
	resp, err := c.client.Do(req)
	if err != nil {
		c.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		c.Fatalf("a rule of %s: %s", project, resp.Status)
	}
	return resp.Header.Get("X-Openstack-Request-Id")
}

// differsBy checks that what a host has otherwise than the model wanted before a
// change is what that changed, and nothing else.
func (c *cloud) differsBy(host string, change toldChange) {
	c.Helper()
	var answer struct {
		Differences []struct{ Bridge, Desired, Installed string }
	}
	out, err := c.planckError("diff", host, "-o", "json", "--at", strconv.FormatUint(change.Revision-1, 10))
	if exit := new(exec.ExitError); !errors.As(err, &exit) || exit.ExitCode() != 1 || json.Unmarshal([]byte(out), &answer) != nil {
		c.Fatalf("planck diff --at the revision before the request: %v\n%s", err, out)
	}
	var got, want []string
	for _, d := range answer.Differences {
		got = append(got, d.Bridge+": "+d.Desired+" is now "+d.Installed)
	}
	for _, f := range change.Flows {
		want = append(want, f.Bridge+": "+f.Was+" is now "+f.Text)
	}
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		c.Errorf("what the request changed (-), planck diff --at the revision before (+):\n%s", diff)
	}
}

func TestChangesLeadFromRequestsToFlowsAndBack(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, "[openflow]\naudit_interval = 1\n")
	c.hostsUp()
	for i, project := range []string{"blue", "red"} {
		id := c.network(project, "10.0.0.0/24", object{"tenant_id": project})
		c.boot(project+"-vm", fmt.Sprintf("host%d", i+1), id, object{"tenant_id": project})
	}
	c.settled()

	requests := map[string]string{"blue": c.addRule("blue", 8080), "red": c.addRule("red", 9090)}
	var blue toldChange
	for project, request := range requests {
		host := map[string]string{"blue": "host1", "red": "host2"}[project]
		c.eventually("the request of "+project+" leads to its flow", func() error {
			told, err := c.changes("--request", request)
			if err != nil {
				return err
			}
			if len(told) != 1 || told[0].RequestID != request || told[0].ProjectID != project || len(told[0].Flows) == 0 {
				return fmt.Errorf("%+v", told)
			}
			for _, f := range told[0].Flows {
				if f.Host != host || f.Change == "deleted" || len(f.Revisions) != 1 || f.Revisions[0] != told[0].Revision {
					return fmt.Errorf("a flow of %s: %+v", project, f)
				}
			}
			if project == "blue" {
				blue = told[0]
			}
			return nil
		})
	}
	if text := c.planck("changes", "--host", "host1", "--since", "5m", "-n", "50"); !strings.Contains(text, requests["blue"]) || strings.Contains(text, requests["red"]) {
		t.Errorf("planck changes --host host1 shall have the request of blue alone:\n%s", text)
	}

	rule := slices.IndexFunc(blue.Flows, func(f changedFlow) bool { return f.Change == "added" && strings.Contains(f.Text, "tp_dst=8080") })
	if rule < 0 {
		t.Fatalf("the flow of the rule is not among %+v", blue.Flows)
	}
	c.differsBy("host1", blue)
	out, err := c.planckError("diff", "host1", "--at", "99999999")
	if exit := new(exec.ExitError); !errors.As(err, &exit) || exit.ExitCode() != 2 || !strings.Contains(out, "is not there yet") {
		t.Errorf("planck diff --at a revision to come: %v\n%s", err, out)
	}

	deleted := blue.Flows[rule]
	if _, err := c.lab.Host("host1").Ofctl("del-flows", deleted.Bridge, "cookie="+deleted.Cookie+"/-1"); err != nil {
		t.Fatal(err)
	}
	c.eventually("what somebody deleted by hand came back", func() error {
		told, err := c.changes("--flow", deleted.Text)
		if err != nil {
			return err
		}
		if len(told) < 2 || told[0].Cause != "audit" || told[0].Flows[0].Text != deleted.Text || told[1].RequestID != requests["blue"] {
			return fmt.Errorf("%+v", told)
		}
		return nil
	})
}
