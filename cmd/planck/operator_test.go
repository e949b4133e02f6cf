package main

import (
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

func TestOnlyTextNamesTables(t *testing.T) {
	flow := controller.FlowRecord{Bridge: "br-int", Match: "in_port=1", Actions: "goto_table:10", Cookie: "0x504c"}
	for format, want := range map[string]string{"text": "actions=goto_table:10(PortSecurity)\n", "json": `"goto_table:10"`, "ovs-ofctl": "actions=goto_table:10\n"} {
		var out strings.Builder
		if err := printFlows(&out, format, []controller.FlowRecord{flow}); err != nil || !strings.Contains(out.String(), want) {
			t.Errorf("%s: %v\n%s", format, err, out.String())
		}
	}
}
