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
	at := cmd.Flags().Uint64("at", 0, "compare with what the model wanted at this revision: one of the last, see planck changes")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *output != "text" && *output != "json" {
			return usagef("unknown output %q: text or json", *output)
		}
		query := url.Values{"host": {args[0]}}
		if cmd.Flags().Changed("at") {
			query.Set("at", strconv.FormatUint(*at, 10))
		}
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
				owner = describe(&controller.FlowRecord{Feature: x.Feature, Resource: x.Resource})
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
