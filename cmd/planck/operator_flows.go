package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"planck/controller"
	"planck/pipeline"
)

// flowOptions are those of planck flows.
type flowOptions struct {
	query  url.Values
	file   string // of a dump, instead of the switches
	output string
	why    bool
	watch  time.Duration // 0 for once
}

func flowsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "flows [HOST [BRIDGE]]",
		Short: "Dump installed flows, with tables and registers by name and the resource behind each cookie",
		Long: `Dump the installed flows of a host, or of what a port, network, router, security group or feature
has on all hosts, with tables and registers by name and the resource behind each cookie.`,
		Args: cobra.MaximumNArgs(2),
	}
	client := operatorFlags(cmd)
	flags := cmd.Flags()
	of := map[string]*string{
		"port":    flags.String("port", "", "only flows that stand for this port (id or name)"),
		"network": flags.String("network", "", "only flows of this network and its ports (id or name)"),
		"router":  flags.String("router", "", "only flows of this router and its interfaces (id or name)"),
		"group":   flags.String("group", "", "only flows of this security group and its rules (id or name)"),
		"feature": flags.String("feature", "", "only flows of this feature, such as dhcp; planck pipeline-doc lists them"),
	}
	o := flowOptions{query: url.Values{}}
	drops := flags.Bool("drops", false, "only flows that drop")
	flags.BoolVar(&o.why, "why", false, "with --port: why its packets pass or not: the rules of its security groups and its drops, with their packets")
	flags.StringVar(&o.file, "file", "", "explain what ovs-ofctl dump-flows BRIDGE printed on HOST, instead of asking the switch; - is standard input")
	flags.DurationVar(&o.watch, "watch", 0, "every so often (--watch=5s), print the flows that counted packets since")
	flags.Lookup("watch").NoOptDefVal = "2s"
	flags.StringVarP(&o.output, "output", "o", "text", "text, wide, json or ovs-ofctl")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		for i, name := range []string{"host", "bridge"} {
			if len(args) > i {
				o.query.Set(name, args[i])
			}
		}
		for name, v := range of {
			if *v != "" {
				o.query.Set(name, *v)
			}
		}
		if *drops {
			o.query.Set("drops", "1")
		}
		if err := o.check(); err != nil {
			return err
		}
		if o.watch > 0 {
			return o.watchFlows(cmd, client)
		}
		answer, err := o.ask(client)
		if err != nil {
			return err
		}
		for _, p := range answer.Problems {
			fmt.Fprintf(cmd.ErrOrStderr(), "%s is left out: %s\n", p.Bridge, p.Problem)
		}
		if o.why && o.output == "text" {
			printReasons(cmd.OutOrStdout(), answer.Flows)
			return nil
		}
		return printFlows(cmd.OutOrStdout(), o.output, !o.query.Has("host"), answer.Flows)
	}
	return cmd
}

func (o *flowOptions) check() error {
	if o.why {
		if !o.query.Has("port") {
			return usagef("--why needs --port")
		}
		o.query.Set("why", "1")
	}
	if len(o.query) == 0 {
		return usagef("planck flows needs a host, or one of --port, --network, --router, --group, --feature and --drops")
	}
	if o.file != "" && (!o.query.Has("host") || !o.query.Has("bridge")) {
		return usagef("--file needs the host and the bridge that the dump is of")
	}
	if o.file != "" && (o.watch > 0 || o.why) {
		return usagef("--file does not go with --watch and --why")
	}
	if o.watch < 0 {
		return usagef("--watch is a time, such as 2s")
	}
	return nil
}

// ask gets the flows from the switches, or from a file what they stand for.
func (o *flowOptions) ask(client *operatorClient) (answer controller.FlowDump, err error) {
	if o.file == "" {
		return answer, client.call(http.MethodGet, "flows", o.query, nil, &answer)
	}
	text := io.Reader(os.Stdin)
	if o.file != "-" {
		f, err := os.Open(o.file)
		if err != nil {
			return answer, err
		}
		defer f.Close()
		text = f
	}
	return answer, client.call(http.MethodPost, "flows", o.query, text, &answer)
}

// watchFlows prints what counts, until it is interrupted.
func (o *flowOptions) watchFlows(cmd *cobra.Command, client *operatorClient) error {
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt)
	defer stop()
	before := map[string]uint64{}
	for first := true; ; first = false {
		answer, err := o.ask(client)
		if err != nil {
			return err
		}
		records := slices.DeleteFunc(answer.Flows, func(r controller.FlowRecord) bool {
			key := fmt.Sprint(r.Host, r.Bridge, r.Table, r.Priority, r.Match)
			was := before[key]
			before[key] = r.Packets
			return r.Packets <= was
		})
		if !first {
			fmt.Fprintf(cmd.OutOrStdout(), "--- %s\n", time.Now().Format(time.TimeOnly))
			if err := printFlows(cmd.OutOrStdout(), o.output, !o.query.Has("host"), records); err != nil {
				return err
			}
		}
		if wait(ctx, o.watch) != nil {
			return nil
		}
	}
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// printReasons lists what lets packets of a port pass and what drops them. The
// flows of a rule count together.
func printReasons(w io.Writer, records []controller.FlowRecord) {
	type reason struct{ what, id string }
	type count struct {
		packets uint64
		of      string
		shared  []string // rules that some of them may be of instead
	}
	counts := map[reason]*count{}
	var order []reason
	add := func(why reason, r *controller.FlowRecord, others []controller.Resource) {
		c := counts[why]
		if c == nil {
			c = &count{of: r.Counts}
			counts[why], order = c, append(order, why)
		}
		c.packets += r.Packets
		for _, o := range others {
			if r.Packets > 0 && o.ID != why.id && !slices.Contains(c.shared, o.ID) {
				c.shared = append(c.shared, o.ID)
			}
		}
	}
	for i := range records {
		r := &records[i]
		if r.Drops != "" {
			add(reason{"dropped in " + r.TableName + ": " + r.Drops, ""}, r, nil)
		}
		for _, rule := range r.Rules {
			add(reason{rule.Name, rule.ID}, r, r.Rules)
		}
	}
	t := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	fmt.Fprintln(t, "PACKETS\tOF\tWHY\tRULE")
	for _, why := range order {
		c := counts[why]
		if c.shared != nil {
			why.id += " (counts with " + strings.Join(c.shared, ", ") + ")"
		}
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\n", c.packets, c.of, why.what, why.id)
	}
	t.Flush()
	fmt.Fprint(w, whyLegend)
}

const whyLegend = `
A rule counts packets in both directions of the connections that it allows, of all
ports of the host with its group (OF); one that several rules allow counts for the
first that was asked. Rules that partly say the same count together where they do.
`

// printFlows prints flows in a format, where they are of several hosts under the name of each.
func printFlows(w io.Writer, format string, hosts bool, records []controller.FlowRecord) error {
	switch format {
	case "json":
		return printJSON(w, records)
	case "ovs-ofctl":
		several := slices.ContainsFunc(records, func(r controller.FlowRecord) bool { return r.Host != records[0].Host || r.Bridge != records[0].Bridge })
		for i, r := range records {
			if several && (i == 0 || r.Host != records[i-1].Host || r.Bridge != records[i-1].Bridge) {
				fmt.Fprintf(w, "# host %s bridge %s\n", r.Host, r.Bridge)
			}
			fmt.Fprintf(w, "cookie=%s, table=%d, %s actions=%s\n", r.Cookie, r.Table, strings.Trim(fmt.Sprintf("priority=%d,%s", r.Priority, r.Match), ","), r.Actions)
		}
		return nil
	case "text", "wide":
	default:
		return usagef("unknown output %q: text, wide, json or ovs-ofctl", format)
	}
	bridge, host := "", ""
	for _, r := range records {
		if hosts && r.Host != host {
			fmt.Fprintf(w, "host %s\n", r.Host)
		}
		if r.Bridge != bridge || r.Host != host {
			fmt.Fprintf(w, "%s\n", r.Bridge)
		}
		bridge, host = r.Bridge, r.Host
		fmt.Fprintf(w, "  %d(%s) priority=%d %s\n      actions=%s\n      n_packets=%d, %s, age %s\n",
			r.Table, r.TableName, r.Priority, cmp.Or(r.Match, "any"), nameTables(r.Bridge, r.Actions), r.Packets, describe(r), time.Duration(r.Age)*time.Second)
		if len(r.Names) > 0 {
			fmt.Fprintf(w, "      %s\n", strings.Join(r.Names, ", "))
		}
		if format == "wide" {
			fmt.Fprintf(w, "      n_bytes=%d, cookie=%s, as the model wants it: %t\n", r.Bytes, r.Cookie, r.Desired)
		}
	}
	return nil
}

// nextTable is where an action sends the packet: goto_table:10, resubmit(,70),
// ct(table=72,…).
var nextTable = regexp.MustCompile(`goto_table:(\d+)|resubmit\([^(),]*,(\d+)|\btable=(\d+)`)

// nameTables writes the name of each table behind its number.
func nameTables(bridge, actions string) string {
	return nextTable.ReplaceAllStringFunc(actions, func(found string) string {
		digits := found[strings.LastIndexAny(found, ":,=")+1:]
		id, err := strconv.ParseUint(digits, 10, 8)
		if err != nil {
			return found
		}
		name := pipeline.TableName(bridge, uint8(id))
		if name == "" {
			return found
		}
		return found + "(" + name + ")"
	})
}

// describe says what a flow stands for.
func describe(r controller.FlowRecord) string {
	if r.Feature == "" {
		return "not ours, cookie=" + r.Cookie
	}
	s := r.Feature
	if r.Resource.Kind != "" {
		s += " of " + strings.Join(strings.Fields(r.Resource.Kind+" "+r.Resource.Name+" "+r.Resource.ID), " ")
	}
	return s
}
