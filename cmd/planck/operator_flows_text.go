package main

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"planck/controller"
	"planck/network"
	"planck/northbound"
	"planck/pipeline"
)

// flowFormats are those of planck flows.
var flowFormats = []string{"text", "wide", "json", "ovs-ofctl"}

// leftOutHeader says of an answer in text which bridges are not in it.
const leftOutHeader = "Planck-Left-Out"

func bridgeLeftOut(p controller.BridgeProblem) string {
	return p.Bridge + " is left out: " + p.Problem
}

// writeFlows answers with flows in the format that is asked for, of several hosts
// under the name of each.
func writeFlows(w http.ResponseWriter, format string, hosts bool, dump *controller.FlowDump) {
	switch {
	case format == "" || format == "json":
		writeJSON(w, dump)
		return
	case !slices.Contains(flowFormats, format):
		northbound.WriteError(w, network.Errorf(network.Invalid, "HTTPBadRequest", "unknown output %q", format))
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	for _, p := range dump.Problems {
		w.Header().Add(leftOutHeader, bridgeLeftOut(p))
	}
	if err := printFlows(w, format, hosts, dump.Flows); err != nil {
		slog.Debug("the client went away", "error", err)
	}
}

// printFlows prints flows in a format, where they are of several hosts under the name of each.
func printFlows(w io.Writer, format string, hosts bool, records []controller.FlowRecord) error {
	if format == "json" {
		return printJSON(w, records)
	}
	out := bufio.NewWriterSize(w, 64<<10)
	if format == "ovs-ofctl" {
		printForOfctl(out, records)
		return out.Flush()
	}
	bridge, host := "", ""
	for i := range records {
		r := &records[i]
		if hosts && r.Host != host {
			out.WriteString("host " + r.Host + "\n")
		}
		if r.Bridge != bridge || r.Host != host {
			out.WriteString(r.Bridge + "\n")
		}
		bridge, host = r.Bridge, r.Host
		out.Write(appendFlow(out.AvailableBuffer(), r))
		if format == "wide" {
			fmt.Fprintf(out, "      n_bytes=%d, cookie=%s, as the model wants it: %t\n", r.Bytes, r.Cookie, r.Desired)
		}
	}
	return out.Flush()
}

// printForOfctl prints what ovs-ofctl add-flows reads; it takes no more than the
// flows of one bridge, so that those of several are told apart by a comment.
func printForOfctl(out *bufio.Writer, records []controller.FlowRecord) {
	several := slices.ContainsFunc(records, func(r controller.FlowRecord) bool { return r.Host != records[0].Host || r.Bridge != records[0].Bridge })
	for i, r := range records {
		if several && (i == 0 || r.Host != records[i-1].Host || r.Bridge != records[i-1].Bridge) {
			fmt.Fprintf(out, "# host %s bridge %s\n", r.Host, r.Bridge)
		}
		fmt.Fprintf(out, "cookie=%s, table=%d, %s actions=%s\n", r.Cookie, r.Table, strings.Trim(fmt.Sprintf("priority=%d,%s", r.Priority, r.Match), ","), r.Actions)
	}
}

// appendFlow is a flow with what it stands for, on some lines.
func appendFlow(b []byte, r *controller.FlowRecord) []byte {
	b = strconv.AppendUint(append(b, "  "...), uint64(r.Table), 10)
	b = append(append(append(b, '('), r.TableName...), ") priority="...)
	b = strconv.AppendUint(b, uint64(r.Priority), 10)
	b = append(append(b, ' '), cmp.Or(r.Match, "any")...)
	b = append(b, "\n      actions="...)
	b = append(b, nameTables(r.Bridge, r.Actions)...)
	b = strconv.AppendUint(append(b, "\n      n_packets="...), r.Packets, 10)
	b = append(append(append(b, ", "...), describe(r)...), ", age "...)
	b = append(b, (time.Duration(r.Age) * time.Second).String()...)
	b = append(b, '\n')
	if len(r.Names) == 0 {
		return b
	}
	b = append(append(b, "      "...), strings.Join(r.Names, ", ")...)
	return append(b, '\n')
}

// nameTables writes the name of each table behind its number, in actions or flows.
func nameTables(bridge, actions string) string {
	var b strings.Builder
	done := 0
	for i := 0; i < len(actions); i++ {
		if !isDigit(actions[i]) || !leadsToTable(actions[:i]) {
			continue
		}
		end := i
		for end < len(actions) && isDigit(actions[end]) {
			end++
		}
		id, err := strconv.ParseUint(actions[i:end], 10, 8)
		i = end - 1
		if name := pipeline.TableName(bridge, uint8(id)); err == nil && name != "" {
			b.WriteString(actions[done:end] + "(" + name + ")")
			done = end
		}
	}
	if done == 0 {
		return actions
	}
	b.WriteString(actions[done:])
	return b.String()
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// leadsToTable reports whether the number of a table follows a text: that of
// goto_table:10, resubmit(,70), ct(table=72,…), or the flow's own.
func leadsToTable(text string) bool {
	if strings.HasSuffix(text, "goto_table:") {
		return true
	}
	if before, ok := strings.CutSuffix(text, "table="); ok {
		return before == "" || strings.ContainsAny(before[len(before)-1:], " (,")
	}
	port, ok := strings.CutSuffix(text, ",")
	return ok && strings.HasSuffix(port[:strings.LastIndexAny(port, "(),")+1], "resubmit(")
}

// describe says what a flow stands for.
func describe(r *controller.FlowRecord) string {
	if r.Feature == "" {
		return "not ours, cookie=" + r.Cookie
	}
	s := r.Feature
	if r.Resource.Kind != "" {
		s += " of " + strings.Join(strings.Fields(r.Resource.Kind+" "+r.Resource.Name+" "+r.Resource.ID), " ")
	}
	return s
}
