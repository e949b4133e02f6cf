package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"

	"planck/controller"
	"planck/network"
	"planck/trace"
)

func pingCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ping PORT PORT",
		Short: "Really send packets from a port through all tables, and tell by the counters of flows where they got to",
		Long: `Really send packets as the machine of the first port would, through all tables from its own
interface on, and tell by the counters of the flows on their way where they got to. The second PORT
may be an address. Each packet begins a connection of its own. Flows that count other packets too
are marked busy, and tell nothing. With --size, links that lose large packets are found, and what
still passes. Exit code 0 says that all packets were counted up to who gets
them, 1 that nobody gets them or not all flows have counted them, 2 that it could not be done.`,
		Args: cobra.ExactArgs(2),
	}
	client := operatorFlags(cmd)
	flags := cmd.Flags()
	protocol := flags.String("proto", "icmp", "tcp, udp or icmp")
	dport := flags.Uint16("dport", 0, "destination port")
	size := flags.Uint16("size", 0, "bytes of each IP packet, which nobody may fragment, up to the MTU of the network; where they are lost, smaller ones are tried")
	count := flags.Int("count", 3, "how many packets, up to 20")
	output := flags.StringP("output", "o", "text", "text or json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *output != "text" && *output != "json" {
			return usagef("unknown output %q: text or json", *output)
		}
		if *count < 1 {
			return usagef("--count is a number from 1 on")
		}
		query := url.Values{"from": {args[0]}, "to": {args[1]}, "protocol": {*protocol}, "count": {strconv.Itoa(*count)}}
		if *size != 0 {
			query.Set("size", strconv.Itoa(int(*size)))
		}
		if *dport != 0 {
			query.Set("dport", strconv.Itoa(int(*dport)))
		}
		var answer controller.PingRecord
		if err := client.call(http.MethodPost, "ping", query, nil, &answer); err != nil {
			return &notCompared{err}
		}
		if *output == "json" {
			if err := printJSON(cmd.OutOrStdout(), answer); err != nil {
				return err
			}
		} else {
			printPing(cmd.OutOrStdout(), &answer)
		}
		if !answer.Seen || answer.Verdict == trace.Dropped || answer.Verdict == trace.Lost {
			return errNotReached
		}
		return nil
	}
	return cmd
}

// pingQuery reads the query of POST /planck/v1/ping.
func pingQuery(values url.Values) (controller.PingQuery, error) {
	q := controller.PingQuery{From: values.Get("from"), To: values.Get("to"), Protocol: values.Get("protocol")}
	for _, name := range []string{"from", "to"} {
		if values.Get(name) == "" {
			return q, missing(name)
		}
	}
	for name, into := range map[string]func(uint64){"dport": func(n uint64) { q.DstPort = uint16(n) }, "count": func(n uint64) { q.Count = int(n) }, "size": func(n uint64) { q.Size = int(n) }} {
		text := values.Get(name)
		if text == "" {
			continue
		}
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			return q, network.Errorf(network.Invalid, "HTTPBadRequest", "%s is %q, not a number up to 65535", name, text)
		}
		into(n)
	}
	return q, nil
}

func printPing(w io.Writer, r *controller.PingRecord) {
	fmt.Fprintf(w, "%s\n%s\n", r.Packet, r.Summary)
	printFindings(w, r.Findings)
	for i := range r.Hops {
		h := &r.Hops[i]
		seen := "counted"
		if !h.Seen {
			seen = "not counted"
		}
		if h.Problem != "" {
			seen = "not read: " + h.Problem
		}
		fmt.Fprintf(w, "\n%s %s, %s: %s\n", h.Host, h.Bridge, arrival(&h.TraceHop), seen)
		for k, s := range h.Steps {
			counted := fmt.Sprintf("+%d", h.Counted[k])
			if h.Busy[k] {
				counted += " busy"
			}
			fmt.Fprintf(w, "  %3d %-14s %-9s %s\n", s.Table, s.TableName, counted, s.Text)
		}
	}
}
