package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
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

// operatorClient talks to the operator's API of a controller.
type operatorClient struct {
	url, token string
}

// operatorFlags declares where the controller is.
func operatorFlags(cmd *cobra.Command) *operatorClient {
	c := &operatorClient{}
	cmd.PersistentFlags().StringVar(&c.url, "url", cmp.Or(os.Getenv("OS_URL"), "http://127.0.0.1:9696"), "the controller's API (OS_URL)")
	cmd.PersistentFlags().StringVar(&c.token, "token", os.Getenv("OS_TOKEN"), "an administrator's token, where the controller asks for one (OS_TOKEN)")
	return c
}

// call sends a request below /planck/v1/ and decodes the answer into out, unless that is nil.
func (c *operatorClient) call(method, path string, query url.Values, out any) error {
	target := strings.TrimSuffix(c.url, "/") + "/planck/v1/" + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	req, err := http.NewRequest(method, target, nil)
	if err != nil {
		return err
	}
	if c.token != "" {
		req.Header.Set("X-Auth-Token", c.token)
	}
	client := http.Client{Timeout: time.Minute}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("the controller at %s does not answer: %w", c.url, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return apiError(resp)
	}
	if out == nil {
		return nil
	}
	return json.NewDecoder(resp.Body).Decode(out)
}

func apiError(resp *http.Response) error {
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return err
	}
	var e struct {
		NeutronError, Error struct{ Message string } // Error is that of a 401
	}
	if json.Unmarshal(body, &e) == nil && e.NeutronError.Message+e.Error.Message != "" {
		return errors.New(e.NeutronError.Message + e.Error.Message)
	}
	return fmt.Errorf("%s: %s", resp.Status, strings.TrimSpace(string(body)))
}

func hostsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "hosts",
		Short: "List the hypervisors, with the state of their bridges",
		Args:  cobra.NoArgs,
	}
	client := operatorFlags(cmd)
	output := cmd.Flags().StringP("output", "o", "text", "text or json")
	asJSON := cmd.Flags().Bool("json", false, "the same as -o json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *output != "text" && *output != "json" {
			return usagef("unknown output %q: text or json", *output)
		}
		var answer struct{ Hosts []hostView }
		if err := client.call(http.MethodGet, "hosts", nil, &answer); err != nil {
			return err
		}
		if *asJSON || *output == "json" {
			return printJSON(cmd.OutOrStdout(), answer.Hosts)
		}
		printHosts(cmd.OutOrStdout(), answer.Hosts)
		return nil
	}
	cmd.AddCommand(client.forgetCommand("hosts", "host"))
	return cmd
}

// forgetCommand deletes one of a collection below /planck/v1/.
func (c *operatorClient) forgetCommand(collection, what string) *cobra.Command {
	return &cobra.Command{
		Use:   "forget NAME",
		Short: "Forget a " + what + " that is gone for good",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			return c.call(http.MethodDelete, collection+"/"+url.PathEscape(args[0]), nil, nil)
		},
	}
}

func printHosts(w io.Writer, hosts []hostView) {
	t := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	fmt.Fprintln(t, "HOST\tOVSDB\tTUNNEL IP\tVIFS\tGATEWAYS\tBRIDGE\tOPENFLOW\tFLOWS\tREVISION\tPROBLEM")
	for _, h := range hosts {
		state := "away"
		if h.OVSDB.Connected {
			state = "connected"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\t\t\t\t\t%s\n", h.Name, state, h.TunnelIP, h.VIFs, gatewayState(h.Gateway), problemOf(h))
		for _, b := range h.Bridges {
			fmt.Fprintf(t, "\t\t\t\t\t%s\t%s\t%d\t%d\t%s\n", b.Name, bridgeState(b), b.Flows, b.Revision, b.LastError)
		}
	}
	t.Flush()
}

// problemOf is what is wrong with a host, and which machine it is about where
// that is not the one that has the name.
func problemOf(h hostView) string {
	problem := h.OVSDB.Problem
	if problem != "" && !h.OVSDB.Connected && h.OVSDB.Remote != "" {
		problem = "refused from " + h.OVSDB.Remote + ": " + problem
	}
	if problem != "" && h.Problem != "" {
		problem += "; "
	}
	return problem + h.Problem
}

// gatewayState is how many routers have their gateway on a host, and how many
// it stands by for, with its health where that is not well.
func gatewayState(g *controller.GatewayRecord) string {
	if g == nil {
		return "-"
	}
	text := fmt.Sprintf("%d+%d %s", g.Active, g.Standby, g.Health)
	if g.Reason != "" {
		text += " (" + g.Reason + ")"
	}
	return text
}

func bridgeState(b controller.BridgeRecord) string {
	switch {
	case !b.Connected:
		return "away"
	case !b.Synced:
		return "connected"
	}
	return "live"
}

func flowsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "flows HOST [BRIDGE]",
		Short: "Dump the installed flows of a host, with tables by name and the resource behind each cookie",
		Args:  cobra.RangeArgs(1, 2),
	}
	client := operatorFlags(cmd)
	port := cmd.Flags().String("port", "", "only flows that stand for this port (id)")
	why := cmd.Flags().Bool("why", false, "with --port: why its packets pass or not: the rules of its security groups and its drops, with their packets")
	output := cmd.Flags().StringP("output", "o", "text", "text, json or ovs-ofctl")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		query := url.Values{"host": {args[0]}}
		if len(args) > 1 {
			query.Set("bridge", args[1])
		}
		if *port != "" {
			query.Set("port", *port)
		}
		if *why {
			if *port == "" {
				return usagef("--why needs --port")
			}
			query.Set("why", "1")
		}
		var answer controller.FlowDump
		if err := client.call(http.MethodGet, "flows", query, &answer); err != nil {
			return err
		}
		for _, p := range answer.Problems {
			fmt.Fprintf(cmd.ErrOrStderr(), "%s is left out: %s\n", p.Bridge, p.Problem)
		}
		if *why && *output == "text" {
			printReasons(cmd.OutOrStdout(), answer.Flows)
			return nil
		}
		return printFlows(cmd.OutOrStdout(), *output, answer.Flows)
	}
	return cmd
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

func printFlows(w io.Writer, format string, records []controller.FlowRecord) error {
	switch format {
	case "json":
		return printJSON(w, records)
	case "ovs-ofctl":
		for _, r := range records {
			fmt.Fprintf(w, "cookie=%s, table=%d, %s actions=%s\n", r.Cookie, r.Table, strings.Trim(fmt.Sprintf("priority=%d,%s", r.Priority, r.Match), ","), r.Actions)
		}
		return nil
	case "text":
	default:
		return usagef("unknown output %q: text, json or ovs-ofctl", format)
	}
	bridge := ""
	for _, r := range records {
		if r.Bridge != bridge {
			bridge = r.Bridge
			fmt.Fprintf(w, "%s\n", bridge)
		}
		fmt.Fprintf(w, "  %d(%s) priority=%d %s\n      actions=%s\n      n_packets=%d, %s\n",
			r.Table, r.TableName, r.Priority, cmp.Or(r.Match, "any"), nameTables(r.Bridge, r.Actions), r.Packets, describe(r))
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

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func pipelineDocCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "pipeline-doc",
		Short: "Print the document of the pipelines' tables, made from their declarations",
		Args:  cobra.NoArgs,
		Run:   func(cmd *cobra.Command, _ []string) { fmt.Fprint(cmd.OutOrStdout(), pipeline.Document()) },
	}
}
