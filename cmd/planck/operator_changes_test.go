package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"planck/controller"
)

// toldChanges are a request with its flows, a plug, and a repair.
func toldChanges() changesView {
	at := time.Date(2026, 1, 31, 18, 0, 0, 123e6, time.Local)
	port := controller.Resource{Kind: "port", ID: "p1", Name: "web"}
	flow := controller.FlowChange{
		At: at, Host: "host1", Bridge: "br-int", Kind: "flow", Change: "added", Table: 10, TableName: "PortSecurity", Cookie: "0x504c020000000001",
		Feature: "port-security", Resource: port, Text: "table=10, priority=90,reg2=0x1,ip,nw_src=10.0.0.9 actions=goto_table:12", Revisions: []uint64{12},
	}
	changed, group, repaired := flow, flow, flow
	changed.Change, changed.Revisions = "changed", []uint64{11, 12}
	changed.Was, changed.Refused = "table=10, priority=90,reg2=0x1,ip,nw_src=10.0.0.9 actions=drop", "BadAction"
	group.Kind, group.Change, group.Text, group.Unknown = "group", "deleted", "group_id=7,type=all", true
	repaired.Revisions = nil
	return changesView{&controller.Changes{Next: "11", FlowsSince: at, ModelSince: 3, Changes: []controller.ChangeRecord{
		{Position: "12:4", At: at, Cause: "audit", Revision: 12, Since: 12, Host: "host1", Bridge: "br-int", Flows: []controller.FlowChange{repaired}},
		{Position: "12:3", At: at, Cause: "connect", Revision: 12, Since: 9, Host: "host2", Bridge: "br-tun", MoreFlows: 7},
		{Position: "12", At: at, Cause: "request", Revision: 12, Operation: "update_port", RequestID: "req-1", ProjectID: "blue", UserID: "ann",
			Objects: []controller.ObjectChange{{Resource: port, Change: "changed", Attributes: []controller.AttributeChange{
				{Name: "name", Before: json.RawMessage(`"web"`), After: json.RawMessage(`"www"`)}, {Name: "dns_name", After: json.RawMessage(`"www"`)},
			}}},
			Flows: []controller.FlowChange{flow, changed, group}},
		{Position: "11", At: at, Cause: "event", Revision: 11, Operation: "host host1", Objects: []controller.ObjectChange{
			{Resource: controller.Resource{Kind: "vif", ID: "p1@host1"}, Change: "added"}, {Resource: controller.Resource{Kind: "host", ID: "host1"}},
		}},
	}}, []silentMember{{Member: "b", API: "10.0.0.2:9696", Hosts: []string{"host2", "host3"}, Problem: "no answer within 5s"}}}
}

const toldText = `flow changes may be missing: member b (10.0.0.2:9696) could not be asked: no answer within 5s; it programs host2, host3
2026-01-31 18:00:00.123 host1 br-int: put right what somebody else had changed, at revision 12
  + host1 br-int 10(PortSecurity), port-security of port web p1
      table=10(PortSecurity), priority=90,reg2=0x1,ip,nw_src=10.0.0.9 actions=goto_table:12(Services)
2026-01-31 18:00:00.123 host2 br-tun: brought up to date when it connected, at revision 12 (it had 9)
  and 7 more flows
2026-01-31 18:00:00.123 revision 12: update_port, request req-1, project blue, user ann
    port web p1 changed
        name: "web" → "www"
        dns_name: - → "www"
  + host1 br-int 10(PortSecurity), port-security of port web p1
      table=10(PortSecurity), priority=90,reg2=0x1,ip,nw_src=10.0.0.9 actions=goto_table:12(Services)
  ~ host1 br-int 10(PortSecurity), port-security of port web p1, for one or more of the revisions 11, 12, refused: BadAction
      was table=10(PortSecurity), priority=90,reg2=0x1,ip,nw_src=10.0.0.9 actions=drop
      table=10(PortSecurity), priority=90,reg2=0x1,ip,nw_src=10.0.0.9 actions=goto_table:12(Services)
  - host1 br-int group, without an answer
      group_id=7,type=all
2026-01-31 18:00:00.123 revision 11: host host1
    vif p1@host1 added
    host host1 written
there is more: --before 11
`

func TestChangesInTextSayWhoDidWhatWhereItWasSent(t *testing.T) {
	var asked url.Values
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r.URL.Query()
		writeJSON(w, toldChanges())
	}))
	defer api.Close()
	var out strings.Builder
	if code := run([]string{"changes", "--port", "web", "--since", "10m", "-n", "4", "--url", api.URL}, &out, &out); code != 0 || out.String() != toldText {
		t.Errorf("exit code %d:\n%swant\n%s", code, out.String(), toldText)
	}
	if got, want := asked.Encode(), "flows=10&limit=4&port=web&since=10m"; got != want {
		t.Errorf("asked %s, want %s", got, want)
	}
	out.Reset()
	var answer changesView
	if code := run([]string{"changes", "-o", "json", "--url", api.URL}, &out, &out); code != 0 || json.Unmarshal([]byte(out.String()), &answer) != nil || len(answer.Changes.Changes) != 4 {
		t.Errorf("exit code %d:\n%s", code, out.String())
	}
	for _, wrong := range [][]string{{"-o", "xml"}, {"-n", "0"}, {"host1"}} {
		if code := run(append([]string{"changes", "--url", api.URL}, wrong...), &out, &out); code != 2 {
			t.Errorf("planck changes %v: exit code %d", wrong, code)
		}
	}
}

func TestNoChangesSaySinceWhenTheyAreKnown(t *testing.T) {
	var out strings.Builder
	told := changesView{&controller.Changes{Note: "a note", FlowsSince: time.Date(2026, 1, 31, 18, 0, 0, 0, time.UTC), ModelSince: 3}, nil}
	want := "a note\nnothing; what was sent to switches is known since 2026-01-31 18:00:00, what requests changed since revision 3\n"
	if code := run([]string{"changes", "--url", answering(t, told)}, &out, &out); code != 0 || out.String() != want {
		t.Errorf("exit code %d:\n%swant\n%s", code, out.String(), want)
	}
}

// TestFollowingPrintsWhatComesOnce: a revision whose flows come later is printed
// again with those alone.
func TestFollowingPrintsWhatComesOnce(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	polls := 0
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		view := toldChanges()
		told := view.Changes.Changes[2:] // the request and the plug
		switch polls++; polls {
		case 1:
			told[0].Flows = told[0].Flows[:1]
		case 2:
			if since := r.URL.Query().Get("since"); since != told[0].At.Add(-followBack).Format(time.RFC3339Nano) {
				t.Errorf("asked for what is newer than %s", since)
			}
			told[0].Flows[2].At = told[0].At.Add(time.Millisecond)
		default:
			told[0].Flows[2].At = told[0].At.Add(time.Millisecond)
			stop()
		}
		view.Changes.Changes = told
		writeJSON(w, view)
	}))
	defer api.Close()
	cmd := changesCommand()
	cmd.SetArgs([]string{"-f", "--url", api.URL})
	var out strings.Builder
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	if err := cmd.ExecuteContext(ctx); err != nil {
		t.Fatal(err)
	}
	text := out.String()
	if strings.Index(text, "revision 11:") > strings.Index(text, "revision 12:") {
		t.Errorf("the newest does not come last:\n%s", text)
	}
	for what, want := range map[string]int{"revision 11:": 1, "revision 12:": 2, "  + host1": 1, "  - host1": 1, "may be missing": 1} {
		if got := strings.Count(text, what); got != want {
			t.Errorf("%q is printed %d times, want %d:\n%s", what, got, want, text)
		}
	}
}

func TestQueryOfChangesIsChecked(t *testing.T) {
	for query, says := range map[string]string{
		"revision=x": `revision is "x"`, "limit=0": `limit is "0"`, "flows=-1": `flows is "-1"`, "before=1:x": `before is "1:x"`, "since=soon": `since is "soon"`,
	} {
		values, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := changesQuery(values); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", query, err)
		}
	}
	values := url.Values{"before": {"12:4"}, "since": {"2026-01-31T18:00:00Z"}, "revision": {"7"}, "limit": {"3"}, "host": {"h1"}}
	q, err := changesQuery(values)
	if err != nil || q.Before != (controller.Position{Revision: 12, Pass: 4}) || q.Since.Unix() != 1769882400 || q.Revision != 7 || q.Most != 3 || q.Host != "h1" {
		t.Errorf("%+v, %v", q, err)
	}
}
