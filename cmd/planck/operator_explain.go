package main

import (
	"cmp"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"planck/controller"
	"planck/northbound"
)

// explanationView is what `planck explain` shows.
type explanationView struct {
	*controller.Explanation
	// Elsewhere says which other members of the cluster know more and did not say
	// it, one a line; "" for none.
	Elsewhere string `json:"elsewhere,omitempty"`
}

// explainAPI serves GET /planck/v1/explain.
func explainAPI(mux *http.ServeMux, p *parts) {
	mux.HandleFunc("GET /planck/v1/explain", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		kind, name := q.Get("kind"), q.Get("resource")
		if port := q.Get("port"); port != "" {
			kind, name = "port", port
		}
		if name == "" {
			northbound.WriteError(w, missing("resource"))
			return
		}
		owners, ask := p.askOwners(r)
		e, err := p.controller.Explain(r.Context(), kind, name, ask)
		if err != nil {
			northbound.WriteError(w, err)
			return
		}
		elsewhere := owners.lacks()
		if e.Resource.Kind == "host" {
			if answered, _ := p.askOwner(w, r, e.Resource.ID, gatherTimeout); elsewhere == "" && answered {
				return
			}
			p.tellDatabase(e)
		}
		writeJSON(w, explanationView{e, elsewhere})
	})
}

// tellDatabase adds to what is said of a host what its OVSDB connection tells.
func (p *parts) tellDatabase(e *controller.Explanation) {
	for _, s := range p.ovsdb.Hosts() {
		if s.Name == e.Resource.ID && s.Problem != "" {
			e.Findings = append(e.Findings, controller.Finding{What: "its database " + cmp.Or(s.Remote, "(not connected)") + ": " + s.Problem})
		}
	}
}

// kindNames are what the command line takes for kinds of resources besides their own names.
var kindNames = map[string]string{
	"net": "network", "floating-ip": "floatingip", "fip": "floatingip", "group": "security_group",
	"security-group": "security_group", "sg": "security_group", "hypervisor": "host",
}

func explainCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "explain [KIND] RESOURCE",
		Short: "Say why a port, network, router or other resource is DOWN or out of reach, and what would mend it",
		Long: `Say why a resource is DOWN, out of reach or of no use, and what would mend it. RESOURCE is the id
or name of a port, network, subnet, router, floating IP, security group or host, an address or a
MAC; KIND is needed where that means several things.`,
		Args: cobra.RangeArgs(1, 2),
	}
	client := operatorFlags(cmd)
	output := cmd.Flags().StringP("output", "o", "text", "text or json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *output != "text" && *output != "json" {
			return usagef("unknown output %q: text or json", *output)
		}
		query := url.Values{"resource": {args[len(args)-1]}}
		if len(args) == 2 {
			query.Set("kind", cmp.Or(kindNames[args[0]], args[0]))
		}
		var answer explanationView
		if err := client.call(http.MethodGet, "explain", query, nil, &answer); err != nil {
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
	fmt.Fprintf(w, "%s %s", strings.ReplaceAll(e.Resource.Kind, "_", " "), title(e.Resource))
	if e.Status != "" {
		fmt.Fprintf(w, " is %s", e.Status)
	}
	fmt.Fprintln(w)
	if e.Place != nil {
		fmt.Fprintf(w, "  network %s, %s, addresses %s\n", title(e.Network), e.MAC, list(e.Addresses))
		fmt.Fprintf(w, "  bound to %s (%s), plugged on %s\n", cmp.Or(e.BoundTo, "no host"), e.VIFType, list(e.PluggedOn))
	}
	for _, line := range e.About {
		fmt.Fprintf(w, "  %s\n", line)
	}
	if len(e.Findings) == 0 {
		fmt.Fprintln(w, "nothing is wrong with it that the model or its host tells; planck diff HOST compares what the switches have")
	}
	for _, f := range e.Findings {
		fmt.Fprintf(w, "- %s\n", f.What)
		if f.Mend != "" {
			fmt.Fprintf(w, "    %s\n", f.Mend)
		}
	}
	for _, d := range e.Drops {
		fmt.Fprintf(w, "  %d packets of %s dropped in %s of host %s: %s\n", d.Packets, d.Counts, d.TableName, d.Host, d.Why)
	}
}

func title(r controller.Resource) string {
	return strings.TrimSpace(r.Name + " " + r.ID)
}

func list(items []string) string { return cmp.Or(strings.Join(items, ", "), "none") }
