package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"planck/cluster"
	"planck/controller"
	"planck/network"
	"planck/northbound"
)

// changesView is what `planck changes` shows.
type changesView struct {
	*controller.Changes
	// Silent are members of the cluster whose flow changes may be missing.
	Silent []silentMember `json:"silent"`
}

// changesAPI serves GET /planck/v1/changes.
func changesAPI(mux *http.ServeMux, p *parts) {
	mux.HandleFunc("GET /planck/v1/changes", func(w http.ResponseWriter, r *http.Request) {
		q, err := changesQuery(r.URL.Query())
		if err != nil {
			northbound.WriteError(w, err)
			return
		}
		changes, silent, err := p.changes(r, q)
		if err != nil {
			northbound.WriteError(w, err)
			return
		}
		writeJSON(w, changesView{changes, silent})
	})
}

// changes are those that all members know.
func (p *parts) changes(r *http.Request, q controller.ChangesQuery) (*controller.Changes, []silentMember, error) {
	own, err := p.controller.Changes(r.Context(), q)
	var e *network.Error
	if err != nil && !(errors.As(err, &e) && e.Class == network.NotFound) {
		return nil, nil, err
	}
	var answers []*controller.Changes
	if own != nil {
		answers = append(answers, own)
	}
	silent := p.gatherAll(r, decoded(func(_ cluster.Member, other *changesView) {
		if other.Changes != nil {
			answers = append(answers, other.Changes)
		}
	}))
	if len(answers) == 0 {
		return nil, nil, err
	}
	merged, err := controller.MergeChanges(q, answers)
	return merged, silent, err
}

// changesQuery reads the query of GET /planck/v1/changes.
func changesQuery(values url.Values) (q controller.ChangesQuery, err error) {
	q = controller.ChangesQuery{
		Port: values.Get("port"), Network: values.Get("network"), Router: values.Get("router"), Group: values.Get("group"),
		Host: values.Get("host"), Flow: values.Get("flow"), Request: values.Get("request"), Project: values.Get("project"),
	}
	if q.Revision, err = revisionIn(values, "revision"); err != nil {
		return q, err
	}
	for name, into := range map[string]*int{"limit": &q.Most, "flows": &q.MostFlows} {
		text := values.Get(name)
		if text == "" {
			continue
		}
		if *into, err = strconv.Atoi(text); err != nil || *into < 1 {
			return q, network.Errorf(network.Invalid, "HTTPBadRequest", "%s is %q, not a number above 0", name, text)
		}
	}
	if text := values.Get("before"); text != "" {
		if q.Before, err = controller.ParsePosition(text); err != nil {
			return q, network.Errorf(network.Invalid, "HTTPBadRequest", "before is %q, not a revision or the next of an answer", text)
		}
	}
	if text := values.Get("since"); text != "" {
		if q.Since, err = sinceTime(text, time.Now()); err != nil {
			return q, network.Errorf(network.Invalid, "HTTPBadRequest", "since is %q, neither how long ago, such as 10m, nor a time, such as 2026-01-31T18:00:00Z", text)
		}
	}
	return q, nil
}

// sinceTime reads a time, or how long before now.
func sinceTime(text string, now time.Time) (time.Time, error) {
	if ago, err := time.ParseDuration(text); err == nil {
		return now.Add(-ago), nil
	}
	return time.Parse(time.RFC3339, text)
}

// revisionIn is a revision in a query, 0 when there is none.
func revisionIn(values url.Values, name string) (uint64, error) {
	text := values.Get(name)
	if text == "" {
		return 0, nil
	}
	revision, err := strconv.ParseUint(text, 10, 63)
	if err != nil || revision == 0 {
		return 0, network.Errorf(network.Invalid, "HTTPBadRequest", "%s is %q, not a revision", name, text)
	}
	return revision, nil
}

func changesCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "changes",
		Short: "Tell which requests changed the model, and which flows on which hosts changed because of them",
		Long: `Tell which API requests, and which hosts, changed the model, and which flows on which hosts
changed because of them; the newest first. Also what was sent to a switch for another reason:
because somebody had changed its flows (audit), or because it connected. Filters that are given
must all hold. With --flow it goes from a flow to the request that made it.`,
		Args: cobra.NoArgs,
	}
	client := operatorFlags(cmd)
	flags := cmd.Flags()
	filters := map[string]*string{
		"port":     flags.String("port", "", "what concerns this port (id or name; id of one that is gone)"),
		"network":  flags.String("network", "", "what concerns this network, its subnets and ports (id or name)"),
		"router":   flags.String("router", "", "what concerns this router and its interfaces (id or name)"),
		"group":    flags.String("group", "", "what concerns this security group and its rules (id or name)"),
		"host":     flags.String("host", "", "what changed flows on this host, or the host itself"),
		"request":  flags.String("request", "", "the request with this id (X-Openstack-Request-Id)"),
		"project":  flags.String("project", "", "requests of this project (id)"),
		"revision": flags.String("revision", "", "this revision of the model"),
		"flow":     flags.String("flow", "", "what changed a flow: its cookie, its line of ovs-ofctl dump-flows, or a part of that"),
		"since":    flags.String("since", "", "not what is older: 10m, or 2026-01-31T18:00:00Z"),
		"before":   flags.String("before", "", "only what is older than this revision, or the position that ended the last page"),
	}
	number := flags.IntP("number", "n", controller.DefaultChanges, "how many")
	flowsShown := flags.Int("flows", 0, "how many changed flows to show of each (10; of one request, revision or flow 1000)")
	follow := flags.BoolP("watch", "f", false, "go on with what happens, until interrupted")
	output := flags.StringP("output", "o", "text", "text or json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *output != "text" && *output != "json" {
			return usagef("unknown output %q: text or json", *output)
		}
		if *number < 1 || *flowsShown < 0 {
			return usagef("-n and --flows are numbers above 0")
		}
		query := url.Values{"limit": {strconv.Itoa(*number)}}
		for name, value := range filters {
			if *value != "" {
				query.Set(name, *value)
			}
		}
		shown := 10
		if *output == "json" || query.Has("request") || query.Has("revision") || query.Has("flow") {
			shown = 1000
		}
		query.Set("flows", strconv.Itoa(cmp.Or(*flowsShown, shown)))
		p := changesPrinter{out: cmd.OutOrStdout(), problems: cmd.ErrOrStderr(), json: *output == "json"}
		if *follow {
			return p.follow(cmd.Context(), client, query)
		}
		var answer changesView
		if err := client.call(http.MethodGet, "changes", query, nil, &answer); err != nil {
			return err
		}
		return p.print(&answer)
	}
	return cmd
}

// changesPrinter prints answers of GET /planck/v1/changes.
type changesPrinter struct {
	out, problems io.Writer
	json          bool
}

func (p *changesPrinter) print(answer *changesView) error {
	if p.json {
		return printJSON(p.out, answer)
	}
	p.notes(answer)
	for i := range answer.Changes.Changes {
		printChange(p.out, &answer.Changes.Changes[i])
	}
	if answer.Next != "" {
		fmt.Fprintf(p.problems, "there is more: --before %s\n", answer.Next)
	}
	return nil
}

// notes say what the answer can't have.
func (p *changesPrinter) notes(answer *changesView) {
	if answer.Note != "" {
		fmt.Fprintln(p.problems, answer.Note)
	}
	p.silent(answer)
	if len(answer.Changes.Changes) == 0 {
		fmt.Fprintf(p.problems, "nothing; what was sent to switches is known since %s, what requests changed since revision %d\n",
			answer.FlowsSince.Format(time.DateTime), answer.ModelSince)
	}
}

// silent says which members did not answer.
func (p *changesPrinter) silent(answer *changesView) {
	for i := range answer.Silent {
		fmt.Fprintln(p.problems, answer.Silent[i].lacks("flow changes"))
	}
}

const (
	followPause = time.Second
	// followBack is how long after a revision its flows may still come.
	followBack = 30 * time.Second
)

// follow prints what there is, the oldest first, then what comes. Flows that come
// later than their revision are printed under it once more.
func (p *changesPrinter) follow(ctx context.Context, client *operatorClient, query url.Values) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt)
	defer stop()
	seen := map[string]newestFlows{} // by position
	said := ""
	for first := true; ; first = false {
		var answer changesView
		if err := client.call(http.MethodGet, "changes", query, nil, &answer); err != nil {
			return err
		}
		if first && !p.json {
			p.notes(&answer)
		}
		if lacks := fmt.Sprint(answer.Silent); lacks != said {
			if said = lacks; !first {
				p.silent(&answer)
			}
		}
		var newest time.Time
		printed := seen
		seen = map[string]newestFlows{} // of those that may get more
		for _, r := range slices.Backward(answer.Changes.Changes) {
			if r.At.After(newest) {
				newest = r.At
			}
			last, known := printed[r.Position]
			if seen[r.Position] = last.unseen(&r); known && len(r.Flows) == 0 {
				continue
			}
			if p.json {
				if err := printJSON(p.out, r); err != nil {
					return err
				}
				continue
			}
			printChange(p.out, &r)
		}
		if !newest.IsZero() {
			query.Set("since", newest.Add(-followBack).Format(time.RFC3339Nano))
		}
		query.Set("limit", strconv.Itoa(controller.MostChanges))
		if wait(ctx, followPause) != nil {
			return nil
		}
	}
}

// newestFlows are when the newest flows of a record were sent, by host: the
// clocks of members differ.
type newestFlows map[string]time.Time

// unseen leaves the flows in a record that came after these, and returns the
// newest then.
func (last newestFlows) unseen(r *controller.ChangeRecord) newestFlows {
	newest := newestFlows{}
	maps.Copy(newest, last)
	r.Flows = slices.DeleteFunc(r.Flows, func(f controller.FlowChange) bool {
		if f.At.After(newest[f.Host]) {
			newest[f.Host] = f.At
		}
		return !f.At.After(last[f.Host])
	})
	return newest
}

// causesText says why a switch was sent something that no revision is known for.
var causesText = map[string]string{
	"audit":    "put right what somebody else had changed",
	"connect":  "brought up to date when it connected",
	"unknown":  "brought up to date after it had not answered",
	"restored": "put right after flows of the operator were put back",
	"change":   "followed the model",
}

func printChange(w io.Writer, r *controller.ChangeRecord) {
	at := r.At.Local().Format("2006-01-02 15:04:05.000")
	if text, ok := causesText[r.Cause]; ok {
		fmt.Fprintf(w, "%s %s %s: %s, at revision %d%s\n", at, r.Host, r.Bridge, text, r.Revision, sinceText(r))
	} else {
		fmt.Fprintf(w, "%s revision %d: %s%s\n", at, r.Revision, r.Operation, requestText(r))
	}
	for i := range r.Objects {
		printObject(w, &r.Objects[i])
	}
	for i := range r.Flows {
		printFlowChange(w, &r.Flows[i])
	}
	if r.MoreFlows > 0 {
		fmt.Fprintf(w, "  and %d more flows\n", r.MoreFlows)
	}
}

func sinceText(r *controller.ChangeRecord) string {
	if r.Since == 0 || r.Cause == "audit" {
		return ""
	}
	return fmt.Sprintf(" (it had %d)", r.Since)
}

func requestText(r *controller.ChangeRecord) string {
	text := ""
	for _, x := range []struct{ what, value string }{{"request", r.RequestID}, {"project", r.ProjectID}, {"user", r.UserID}} {
		if x.value != "" {
			text += ", " + x.what + " " + x.value
		}
	}
	return text
}

func printObject(w io.Writer, o *controller.ObjectChange) {
	fmt.Fprintf(w, "    %s %s %s\n", o.Kind, title(o.Resource), cmp.Or(o.Change, "written"))
	for _, a := range o.Attributes {
		fmt.Fprintf(w, "        %s: %s → %s\n", a.Name, valueText(a.Before), valueText(a.After))
	}
}

// valueText is a value of an attribute, - for none.
func valueText(v []byte) string {
	if text := string(v); text != "null" && text != "" {
		return text
	}
	return "-"
}

func printFlowChange(w io.Writer, f *controller.FlowChange) {
	mark := map[string]string{"added": "+", "deleted": "-"}[f.Change]
	what := f.Kind
	if f.Kind == "flow" {
		what = fmt.Sprintf("%d(%s), %s", f.Table, f.TableName, describe(&controller.FlowRecord{Feature: f.Feature, Resource: f.Resource, Cookie: f.Cookie}))
	}
	fmt.Fprintf(w, "  %s %s %s %s%s\n", cmp.Or(mark, "~"), f.Host, f.Bridge, what, doubtText(f))
	if f.Was != "" {
		fmt.Fprintf(w, "      was %s\n", nameTables(f.Bridge, f.Was))
	}
	fmt.Fprintf(w, "      %s\n", nameTables(f.Bridge, f.Text))
}

// doubtText is what is not certain of a change.
func doubtText(f *controller.FlowChange) string {
	text := ""
	if len(f.Revisions) > 1 {
		numbers := make([]string, len(f.Revisions))
		for i, r := range f.Revisions {
			numbers[i] = strconv.FormatUint(r, 10)
		}
		text += ", for one or more of the revisions " + strings.Join(numbers, ", ")
	}
	if f.Refused != "" {
		text += ", refused: " + f.Refused
	}
	if f.Unknown {
		text += ", without an answer"
	}
	return text
}
