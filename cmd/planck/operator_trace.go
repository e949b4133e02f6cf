package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"planck/controller"
	"planck/network"
	"planck/trace"
)

// errNotReached says that a traced packet does not arrive; it is exit code 1.
var errNotReached = errors.New("not reached")

func traceCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "trace --from PORT --to PORT",
		Short: "Follow a packet through the tables of every bridge and host on its way, to a machine or to the flow that drops it",
		Long: `Follow a packet through the tables of every bridge and host on its way, to a machine or to the
flow that drops it. PORT is the id or the name of a port, or an address; an address that no port has
is outside. Nothing is sent. The packet is the first of a connection: what has been tracked before,
and answers, may pass where it does not. Exit code 1 says that nobody gets it.`,
		Args: cobra.NoArgs,
	}
	client := operatorFlags(cmd)
	flags := cmd.Flags()
	from, to := flags.String("from", "", "who sends it: a port by id or name, or an address"), flags.String("to", "", "where to: the same")
	protocol := flags.String("proto", "icmp", "tcp, udp, sctp, icmp or a number")
	dport := flags.Uint16("dport", 0, "destination port, or the type of ICMP")
	sport := flags.Uint16("sport", 0, "source port (49152)")
	size := flags.Uint16("size", 0, "bytes of the IP packet (84)")
	installed := flags.Bool("installed", false, "by the flows that the switches have now, instead of those that the model wants")
	output := flags.StringP("output", "o", "text", "text, wide (with each flow) or json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *from == "" || *to == "" {
			return usagef("planck trace needs --from and --to")
		}
		if *output != "text" && *output != "wide" && *output != "json" {
			return usagef("unknown output %q: text, wide or json", *output)
		}
		query := url.Values{"from": {*from}, "to": {*to}, "protocol": {*protocol}}
		for name, v := range map[string]uint16{"sport": *sport, "dport": *dport, "size": *size} {
			if v != 0 {
				query.Set(name, strconv.Itoa(int(v)))
			}
		}
		if *installed {
			query.Set("installed", "1")
		}
		var answer controller.TraceRecord
		if err := client.call(http.MethodGet, "trace", query, nil, &answer); err != nil {
			return &notCompared{err}
		}
		if *output == "json" {
			if err := printJSON(cmd.OutOrStdout(), answer); err != nil {
				return err
			}
		} else {
			printTrace(cmd.OutOrStdout(), &answer, *output == "wide")
		}
		if answer.Verdict == trace.Dropped || answer.Verdict == trace.Lost {
			return errNotReached
		}
		return nil
	}
	return cmd
}

// traceQuery reads the query of GET /planck/v1/trace.
func traceQuery(values url.Values) (controller.TraceQuery, error) {
	q := controller.TraceQuery{From: values.Get("from"), To: values.Get("to"), Protocol: values.Get("protocol"), Installed: values.Get("installed") != ""}
	for _, name := range []string{"from", "to"} {
		if values.Get(name) == "" {
			return q, missing(name)
		}
	}
	for name, into := range map[string]*uint16{"sport": &q.SrcPort, "dport": &q.DstPort, "size": &q.Size} {
		text := values.Get(name)
		if text == "" {
			continue
		}
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			return q, network.Errorf(network.Invalid, "HTTPBadRequest", "%s is %q, not a number up to 65535", name, text)
		}
		*into = uint16(n)
	}
	return q, nil
}

func printTrace(w io.Writer, r *controller.TraceRecord, wide bool) {
	fmt.Fprintf(w, "%s\n%s\n", r.Packet, r.Summary)
	printFindings(w, r.Findings)
	for _, h := range r.Hops {
		fmt.Fprintf(w, "\n%s %s, %s\n    %s\n", h.Host, h.Bridge, arrival(&h), h.Packet)
		for _, s := range h.Steps {
			fmt.Fprintf(w, "  %3d %-14s %s\n", s.Table, s.TableName, s.Text)
			if wide && s.Flow != "" {
				fmt.Fprintf(w, "      %s\n", nameTables(h.Bridge, s.Flow))
			}
		}
	}
}

// arrival says how a packet comes to a bridge.
func arrival(h *controller.TraceHop) string {
	switch trace.Via(h.Via) {
	case trace.ViaVIF:
		return "from the machine"
	case trace.ViaPatch:
		return "from " + h.From
	case trace.ViaTunnel:
		return "through the tunnel from " + h.From
	}
	return strings.TrimSpace("from the wire " + h.From)
}

func printFindings(w io.Writer, findings []controller.Finding) {
	for _, f := range findings {
		fmt.Fprintf(w, "- %s\n", f.What)
		if f.Mend != "" {
			fmt.Fprintf(w, "    %s\n", f.Mend)
		}
	}
}
