package main

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"planck/controller"
)

func TestFlowsInTextNameTheTablesThatActionsLeadTo(t *testing.T) {
	tests := []struct{ bridge, actions, want string }{
		{"br-int", "goto_table:10", "goto_table:10(PortSecurity)"},
		{"br-int", "resubmit(,70)", "resubmit(,70(IngressCt))"},
		{"br-int", "resubmit(3,60),output:1", "resubmit(3,60(L2Lookup)),output:1"},
		{"br-int", "ct(table=70,zone=4),goto_table:90", "ct(table=70(IngressCt),zone=4),goto_table:90(Output)"},
		{"br-tun", "goto_table:10", "goto_table:10(EncapUnicast)"},
		{"br-data", "goto_table:10", "goto_table:10(WireVlan)"},
		{"br-int", "goto_table:199,output:10", "goto_table:199,output:10"},
		{"br-int", "goto_table:300", "goto_table:300"},
	}
	for _, test := range tests {
		if got := nameTables(test.bridge, test.actions); got != test.want {
			t.Errorf("%s %s: %s, want %s", test.bridge, test.actions, got, test.want)
		}
	}
}

func TestBridgesThatWereNotReadAreNamedBesideTheFlows(t *testing.T) {
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, controller.FlowDump{
			Flows:    []controller.FlowRecord{{Bridge: "br-int", Actions: "drop", Cookie: "0x1"}},
			Problems: []controller.BridgeProblem{{Bridge: "br-tun", Problem: "it is not connected"}},
		})
	}))
	defer api.Close()
	cmd := flowsCommand()
	cmd.SetArgs([]string{"h1", "--url", api.URL, "-o", "ovs-ofctl"})
	var out, problems strings.Builder
	cmd.SetOut(&out)
	cmd.SetErr(&problems)
	if err := cmd.Execute(); err != nil {
		t.Fatal(err)
	}
	if out.String() != "cookie=0x1, table=0, priority=0 actions=drop\n" || problems.String() != "br-tun is left out: it is not connected\n" {
		t.Errorf("on stdout: %s\non stderr: %s", out.String(), problems.String())
	}
}

func TestFlowsAreTheSameWhoeverPrintsThem(t *testing.T) {
	dump := &controller.FlowDump{
		Flows: []controller.FlowRecord{
			{Host: "h1", Bridge: "br-int", Table: 10, TableName: "PortSecurity", Priority: 90, Match: "reg2=0x1", Actions: "goto_table:12", Cookie: "0x504c", Feature: "port-security",
				Resource: controller.Resource{Kind: "port", ID: "p1", Name: "web"}, Packets: 7, Bytes: 700, Age: 61.5, Desired: true, Names: []string{"src=web", "net=blue"}},
			{Host: "h2", Bridge: "br-ex", Actions: "NORMAL", Cookie: "0x0", Names: []string{}},
		},
		Problems: []controller.BridgeProblem{{Bridge: "br-tun", Problem: "it is not connected"}},
	}
	for _, format := range flowFormats {
		t.Run(format, func(t *testing.T) {
			var printed [2]string
			for i, handler := range []http.HandlerFunc{
				func(w http.ResponseWriter, r *http.Request) { writeFlows(w, r.URL.Query().Get("output"), true, dump) },
				func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, dump) }, // as an older controller
			} {
				api := httptest.NewServer(handler)
				defer api.Close()
				var out, problems strings.Builder
				if code := run([]string{"flows", "--drops", "--url", api.URL, "-o", format}, &out, &problems); code != 0 {
					t.Fatalf("exit code %d: %s", code, problems.String())
				}
				printed[i] = out.String() + problems.String()
			}
			if printed[0] != printed[1] || !strings.Contains(printed[0], "br-tun is left out: it is not connected") || !strings.Contains(printed[0], "reg2=0x1") {
				t.Errorf("the controller printed\n%s\nthe command line\n%s", printed[0], printed[1])
			}
		})
	}
}

func TestAnUnknownOutputOfFlowsIsRefused(t *testing.T) {
	var out, problems strings.Builder
	if code := run([]string{"flows", "h1", "-o", "xml"}, &out, &problems); code != 2 || !strings.Contains(problems.String(), `unknown output "xml"`) {
		t.Errorf("exit code %d: %s", code, problems.String())
	}
	answer := httptest.NewRecorder()
	writeFlows(answer, "xml", true, &controller.FlowDump{})
	if answer.Code != http.StatusBadRequest || !strings.Contains(answer.Body.String(), `unknown output \"xml\"`) {
		t.Errorf("%d %s", answer.Code, answer.Body)
	}
}

// answering is the operator's API with one answer to everything.
func answering(t *testing.T, answer any) (url string) {
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, answer) }))
	t.Cleanup(api.Close)
	return api.URL
}

func TestDiffTellsByItsExitCode(t *testing.T) {
	same := controller.HostDiff{Differences: []controller.Difference{}, Problems: []controller.BridgeProblem{}}
	differs := controller.HostDiff{Differences: []controller.Difference{
		{Bridge: "br-int", Kind: "flow", State: "changed", Table: 60, TableName: "L2Lookup", Feature: "l2",
			Resource: controller.Resource{Kind: "port", ID: "p1", Name: "web"}, Desired: "table=60, actions=goto_table:70", Installed: "table=60, actions=drop"},
		{Bridge: "br-tun", Kind: "group", State: "unexpected", Installed: "group_id=7,type=all"},
	}}
	partly := controller.HostDiff{Problems: []controller.BridgeProblem{{Bridge: "br-ex", Problem: "it is not connected"}}}
	for _, c := range []struct {
		answer controller.HostDiff
		code   int
		says   string
	}{
		{same, 0, ""},
		{differs, 1, "br-int changed: flow in 60(L2Lookup), l2 of port web p1\n  - table=60(L2Lookup), actions=drop\n  + table=60(L2Lookup), actions=goto_table:70(IngressCt)\n" +
			"br-tun unexpected: group\n  - group_id=7,type=all\n"},
		{partly, 2, "planck: br-ex is left out: it is not connected\n"},
	} {
		var out strings.Builder
		if code := run([]string{"diff", "host1", "--url", answering(t, c.answer)}, &out, &out); code != c.code || out.String() != c.says {
			t.Errorf("exit code %d, want %d:\n%swant\n%s", code, c.code, out.String(), c.says)
		}
	}
	gone := httptest.NewServer(nil)
	gone.Close()
	var out strings.Builder
	if code := run([]string{"diff", "host1", "--url", gone.URL}, &out, &out); code != 2 || !strings.Contains(out.String(), "does not answer") {
		t.Errorf("without a controller: exit code %d, %s", code, out.String())
	}
}

func TestAnAddressWithoutASchemeIsRefused(t *testing.T) {
	for _, url := range []string{"", "127.0.0.1:9696", "ftp://127.0.0.1", "controller"} {
		for _, words := range [][]string{{"hosts"}, {"support-bundle", "-o", "-"}, {"trace", "--from", "a", "--to", "b"}} {
			var out strings.Builder
			if code := run(append(words, "--url", url), &out, &out); code != 2 || !strings.Contains(out.String(), "--url must begin with http:// or https://") {
				t.Errorf("%s --url %q: exit code %d: %s", words[0], url, code, out.String())
			}
		}
	}
}

func TestExplainSaysWhatWouldMendAPort(t *testing.T) {
	e := controller.Explanation{
		Resource: controller.Resource{Kind: "port", ID: "p1", Name: "web"}, Status: "DOWN", Place: &controller.Place{
			Network: controller.Resource{Kind: "network", ID: "n1"},
			MAC:     "fa:16:3e:00:00:01", Addresses: []string{"10.0.0.3", "2001:db8::3"}, BoundTo: "host1", VIFType: "ovs",
		},
		Findings: []controller.Finding{{What: "it is not plugged", Mend: "plug it"}, {What: "it is late"}},
	}
	var out strings.Builder
	want := "port web p1 is DOWN\n  network n1, fa:16:3e:00:00:01, addresses 10.0.0.3, 2001:db8::3\n  bound to host1 (ovs), plugged on none\n" +
		"- it is not plugged\n    plug it\n- it is late\n"
	if code := run([]string{"explain", "web", "--url", answering(t, e)}, &out, &out); code != 0 || out.String() != want {
		t.Errorf("exit code %d:\n%swant\n%s", code, out.String(), want)
	}
}

func TestOnlyTextNamesTables(t *testing.T) {
	flow := controller.FlowRecord{Bridge: "br-int", Match: "in_port=1", Actions: "goto_table:10", Cookie: "0x504c"}
	for format, want := range map[string]string{"text": "actions=goto_table:10(PortSecurity)\n", "json": `"goto_table:10"`, "ovs-ofctl": "actions=goto_table:10\n"} {
		var out strings.Builder
		if err := printFlows(&out, format, false, []controller.FlowRecord{flow}); err != nil || !strings.Contains(out.String(), want) {
			t.Errorf("%s: %v\n%s", format, err, out.String())
		}
	}
}

func TestReasonsAreOneLineForEachRule(t *testing.T) {
	rule := func(id string) controller.Resource {
		return controller.Resource{Kind: "security_group_rule", ID: id, Name: "web: " + id}
	}
	flow := func(packets uint64, counts string, rules ...controller.Resource) controller.FlowRecord {
		return controller.FlowRecord{Packets: packets, Counts: counts, Rules: rules}
	}
	var out strings.Builder
	printReasons(&out, []controller.FlowRecord{
		flow(1, "this port", rule("http"), rule("https")), flow(3, "this port", rule("http")), flow(0, "this port", rule("ssh"), rule("http")),
		flow(5, "2 ports of the host", rule("dns")), {Packets: 7, Counts: "this port", TableName: "IngressCommit", Drops: "nobody allows it"},
	})
	want := `PACKETS  OF                   WHY                                         RULE
4        this port            web: http                                   http (counts with https)
1        this port            web: https                                  https (counts with http)
0        this port            web: ssh                                    ssh
5        2 ports of the host  web: dns                                    dns
7        this port            dropped in IngressCommit: nobody allows it  
` + whyLegend
	if out.String() != want {
		t.Errorf("printed\n%swant\n%s", out.String(), want)
	}
}

func TestWatchPrintsWhatCounts(t *testing.T) {
	packets := uint64(0)
	ctx, stop := context.WithCancel(t.Context())
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if packets++; packets > 3 {
			stop()
		}
		writeJSON(w, controller.FlowDump{Flows: []controller.FlowRecord{
			{Host: "h1", Bridge: "br-int", Match: "in_port=1", Actions: "drop", Cookie: "0x1", Packets: packets},
			{Host: "h1", Bridge: "br-int", Match: "in_port=2", Actions: "drop", Cookie: "0x1", Packets: 7},
		}})
	}))
	defer api.Close()
	cmd := flowsCommand()
	cmd.SetArgs([]string{"h1", "--url", api.URL, "--watch=1ms"})
	var out strings.Builder
	cmd.SetOut(&out)
	if err := cmd.ExecuteContext(ctx); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "n_packets=3") || strings.Contains(out.String(), "in_port=2") {
		t.Errorf("watched:\n%s", out.String())
	}
}

func TestWatchTakesItsIntervalAfterABlankToo(t *testing.T) {
	for _, test := range []struct {
		words, query string
	}{
		{"h1 --watch 1ms", "host=h1"},
		{"--watch 1ms h1", "host=h1"},
		{"h1 br-int --watch 1ms", "bridge=br-int&host=h1"},
		{"h1 --watch=1ms br-int", "bridge=br-int&host=h1"},
		{"--port web --watch 1ms", "port=web"},
	} {
		ctx, stop := context.WithCancel(t.Context())
		asked := 0
		api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.RawQuery != test.query {
				t.Errorf("%s: asked for %s", test.words, r.URL.RawQuery)
			}
			if asked++; asked == 3 { // which would be after 4 s if it were not understood
				stop()
			}
			writeJSON(w, controller.FlowDump{})
		}))
		cmd := flowsCommand()
		cmd.SetOut(io.Discard)
		cmd.SetArgs(append(strings.Fields(test.words), "--url", api.URL))
		if err := cmd.ExecuteContext(ctx); err != nil {
			t.Errorf("%s: %v", test.words, err)
		}
		api.Close()
		stop()
	}
	if code := run([]string{"flows", "h1", "br-int", "more", "--watch"}, io.Discard, io.Discard); code != 2 {
		t.Errorf("three arguments: exit code %d", code)
	}
}
