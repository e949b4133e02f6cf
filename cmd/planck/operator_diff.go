package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"planck/controller"
)

// errDiffers says that a host differs from the model; it is exit code 1.
var errDiffers = errors.New("differences")

// notCompared is why planck diff does not know whether there are differences; it
// is exit code 2.
type notCompared struct{ error }

func (e *notCompared) Unwrap() error { return e.error }

func diffCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "diff HOST [BRIDGE]",
		Short: "Compare the flows, groups and meters of a host with those that the model wants; exit code 1 when they differ",
		Args:  cobra.RangeArgs(1, 2),
	}
	client := operatorFlags(cmd)
	output := cmd.Flags().StringP("output", "o", "text", "text or json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *output != "text" && *output != "json" {
			return usagef("unknown output %q: text or json", *output)
		}
		query := url.Values{"host": {args[0]}}
		if len(args) > 1 {
			query.Set("bridge", args[1])
		}
		var answer controller.HostDiff
		if err := client.call(http.MethodGet, "diff", query, nil, &answer); err != nil {
			return &notCompared{err}
		}
		if *output == "json" {
			if err := printJSON(cmd.OutOrStdout(), answer); err != nil {
				return err
			}
		} else {
			printDiff(cmd.OutOrStdout(), &answer)
		}
		if len(answer.Problems) > 0 {
			return &notCompared{leftOut(answer.Problems)}
		}
		if len(answer.Differences) > 0 {
			return errDiffers
		}
		return nil
	}
	return cmd
}

// leftOut says which bridges were not compared, and why.
func leftOut(problems []controller.BridgeProblem) error {
	texts := make([]string, len(problems))
	for i, p := range problems {
		texts[i] = fmt.Sprintf("%s is left out: %s", p.Bridge, p.Problem)
	}
	return errors.New(strings.Join(texts, "; "))
}

func printDiff(w io.Writer, d *controller.HostDiff) {
	for _, x := range d.Differences {
		what := x.Kind
		if x.Kind == "flow" {
			owner := "not ours"
			if x.Feature != "" {
				owner = describe(controller.FlowRecord{Feature: x.Feature, Resource: x.Resource})
			}
			what = fmt.Sprintf("flow in %d(%s), %s", x.Table, x.TableName, owner)
		}
		fmt.Fprintf(w, "%s %s: %s\n", x.Bridge, x.State, what)
		for _, line := range []struct{ mark, text string }{{"-", x.Installed}, {"+", x.Desired}} {
			if line.text != "" {
				fmt.Fprintf(w, "  %s %s\n", line.mark, nameTables(x.Bridge, line.text))
			}
		}
	}
}

func explainCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "explain PORT",
		Short: "Say why a port, given by id or name, is DOWN or out of reach, and what would mend it",
		Args:  cobra.ExactArgs(1),
	}
	client := operatorFlags(cmd)
	output := cmd.Flags().StringP("output", "o", "text", "text or json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *output != "text" && *output != "json" {
			return usagef("unknown output %q: text or json", *output)
		}
		var answer explanationView
		if err := client.call(http.MethodGet, "explain", url.Values{"port": {args[0]}}, nil, &answer); err != nil {
			return err
		}
		if *output == "json" {
			return printJSON(cmd.OutOrStdout(), answer)
		}
		printExplanation(cmd.OutOrStdout(), answer.Explanation)
		if answer.Elsewhere != "" {
			fmt.Fprintln(cmd.OutOrStdout(), answer.Elsewhere)
		}
		return nil
	}
	return cmd
}

func printExplanation(w io.Writer, e *controller.Explanation) {
	fmt.Fprintf(w, "port %s is %s\n", title(e.Resource), e.Status)
	fmt.Fprintf(w, "  network %s, %s, addresses %s\n", title(e.Network), e.MAC, list(e.Addresses))
	fmt.Fprintf(w, "  bound to %s (%s), plugged on %s\n", cmp.Or(e.BoundTo, "no host"), e.VIFType, list(e.PluggedOn))
	if len(e.Findings) == 0 {
		fmt.Fprintln(w, "nothing is wrong with it that the model or its host tells; planck diff HOST compares what the switches have")
	}
	for _, f := range e.Findings {
		fmt.Fprintf(w, "- %s\n", f.What)
		if f.Mend != "" {
			fmt.Fprintf(w, "    %s\n", f.Mend)
		}
	}
}

func title(r controller.Resource) string {
	return strings.TrimSpace(r.Name + " " + r.ID)
}

func list(items []string) string { return cmp.Or(strings.Join(items, ", "), "none") }
