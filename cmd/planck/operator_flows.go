package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"planck/controller"
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
	}
	o := flowOptions{query: url.Values{}}
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		_, args = intervalIn(cmd, args)
		return cobra.MaximumNArgs(2)(cmd, args)
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
	drops := flags.Bool("drops", false, "only flows that drop")
	flags.BoolVar(&o.why, "why", false, "with --port: why its packets pass or not: the rules of its security groups and its drops, with their packets")
	flags.StringVar(&o.file, "file", "", "explain what ovs-ofctl dump-flows BRIDGE printed on HOST, instead of asking the switch; - is standard input")
	flags.DurationVar(&o.watch, "watch", 0, "every so often (--watch 5s), print the flows that counted packets since")
	flags.Lookup("watch").NoOptDefVal = "2s"
	flags.StringVarP(&o.output, "output", "o", "text", "text, wide, json or ovs-ofctl")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		interval, args := intervalIn(cmd, args)
		o.watch = cmp.Or(interval, o.watch)
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
		if o.output != "json" && !o.why {
			o.query.Set("output", o.output)
		}
		return o.printAnswer(cmd, client)
	}
	return cmd
}

// intervalIn takes the interval out of the arguments where it stands there, as in
// --watch 5s: without a = it is none of the flag's, which needs no value.
func intervalIn(cmd *cobra.Command, args []string) (interval time.Duration, others []string) {
	watch := cmd.Flags().Lookup("watch")
	if !watch.Changed || watch.Value.String() != watch.NoOptDefVal {
		return 0, args
	}
	for i, arg := range args {
		if d, err := time.ParseDuration(arg); err == nil && d > 0 {
			return d, slices.Concat(args[:i], args[i+1:])
		}
	}
	return 0, args
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
	if !slices.Contains(flowFormats, o.output) {
		return usagef("unknown output %q: text, wide, json or ovs-ofctl", o.output)
	}
	return nil
}

// ask gets the flows from the switches, or from a file what they stand for.
func (o *flowOptions) ask(ctx context.Context, client *operatorClient) (*http.Response, error) {
	switch o.file {
	case "":
		return client.send(ctx, http.MethodGet, "flows", o.query, nil)
	case "-":
		return client.send(ctx, http.MethodPost, "flows", o.query, os.Stdin)
	}
	f, err := os.Open(o.file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return client.send(ctx, http.MethodPost, "flows", o.query, f)
}

// printAnswer prints what the controller says, which is printed already where it
// was asked for text: 20,000 flows are read in half the time so. A controller of
// an older version sends JSON all the same.
func (o *flowOptions) printAnswer(cmd *cobra.Command, client *operatorClient) error {
	resp, err := o.ask(cmd.Context(), client)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain") {
		for _, problem := range resp.Header.Values(leftOutHeader) {
			fmt.Fprintln(cmd.ErrOrStderr(), problem)
		}
		_, err := io.Copy(cmd.OutOrStdout(), resp.Body)
		return err
	}
	var answer controller.FlowDump
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return err
	}
	for _, p := range answer.Problems {
		fmt.Fprintln(cmd.ErrOrStderr(), bridgeLeftOut(p))
	}
	if o.why && o.output == "text" {
		printReasons(cmd.OutOrStdout(), answer.Flows)
		return nil
	}
	return printFlows(cmd.OutOrStdout(), o.output, !o.query.Has("host"), answer.Flows)
}

// watchFlows prints what counts, until it is interrupted.
func (o *flowOptions) watchFlows(cmd *cobra.Command, client *operatorClient) error {
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt)
	defer stop()
	before := map[string]uint64{}
	for first := true; ; first = false {
		var answer controller.FlowDump
		if err := client.call(http.MethodGet, "flows", o.query, nil, &answer); err != nil {
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
