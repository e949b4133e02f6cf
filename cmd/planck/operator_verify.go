package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"planck/controller"
	"planck/network"
	"planck/northbound"
)

// errRefuted says that there is a counterexample; it is exit code 1. errOpen says
// that something could be neither proven nor refuted; that is exit code 2.
// errAssumed says that bridges were taken for what the model wants; exit code 3.
var (
	errRefuted = errors.New("refuted")
	errOpen    = errors.New("not proven")
	errAssumed = errors.New("proven only where bridges could be read")
)

// verifyPatience is for a cloud of many hosts.
const verifyPatience = 10 * time.Minute

func verifyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Prove by the flows of all hosts that no packet crosses tenants, that every port reaches its gateway, that nothing loops",
		Long: `Prove by the flows of all hosts, for every packet that a machine may send: that none gets to a
network that no router connects with the sender's, that none leaves a port with port security from
an address that is not the port's, that none goes in circles; that every ACTIVE port reaches its
gateway and its DHCP server; and that no flow is in vain. What does not hold is shown with a packet,
its way as planck trace shows it, and the flow that is at fault. Nothing is sent. Exit code 0 says
that all is proven, 1 that there is a counterexample, 2 that it could not be done, 3 that bridges
could not be read: what is proven holds if they are as the model wants them.`,
		Args: cobra.NoArgs,
	}
	client := operatorFlags(cmd)
	client.patience = verifyPatience
	desired := cmd.Flags().Bool("desired", false, "by the flows that the model wants, instead of those that the switches have now")
	output := cmd.Flags().StringP("output", "o", "text", "text, wide (with each flow of the ways) or json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *output != "text" && *output != "wide" && *output != "json" {
			return usagef("unknown output %q: text, wide or json", *output)
		}
		query := url.Values{}
		if *desired {
			query.Set("desired", "1")
		}
		var answer controller.VerifyRecord
		if err := client.call(http.MethodGet, "verify", query, nil, &answer); err != nil {
			return &notCompared{err}
		}
		if *output == "json" {
			if err := printJSON(cmd.OutOrStdout(), answer); err != nil {
				return err
			}
		} else {
			printVerify(cmd.OutOrStdout(), &answer, *output == "wide")
		}
		switch answer.Verdict {
		case controller.Refuted:
			return errRefuted
		case controller.Open:
			return &notCompared{errOpen}
		case controller.Assumed:
			return errAssumed
		}
		return nil
	}
	return cmd
}

func printVerify(w io.Writer, r *controller.VerifyRecord, wide bool) {
	for _, text := range r.Assumed {
		fmt.Fprintf(w, "assumed to be as the model wants it: %s\n", text)
	}
	for i := range r.Findings {
		printFinding(w, &r.Findings[i], wide)
	}
	for _, text := range r.Unproven {
		fmt.Fprintf(w, "not proven: %s\n", text)
	}
	fmt.Fprintf(w, "%s: %d hosts, %d ports, %d flows, %d sets of packets; %d flows in reserve\n", r.Verdict, r.Hosts, r.Ports, r.Flows, r.Sets, r.InReserve)
}

func printFinding(w io.Writer, f *controller.VerifyFinding, wide bool) {
	fmt.Fprintf(w, "%s: %s\n", f.Kind, f.Summary)
	for _, named := range []struct {
		as   string
		flow *controller.VerifyFlow
	}{{"at fault", f.Blame}, {"taken by", f.By}} {
		if named.flow != nil {
			fmt.Fprintf(w, "  %s: %s\n    %s\n", named.as, named.flow.Line(), nameTables(named.flow.Bridge, named.flow.Step.Flow))
		}
	}
	if f.Like > 0 {
		fmt.Fprintf(w, "  and %d more like it\n", f.Like)
	}
	if f.Way != nil {
		printTrace(w, f.Way, wide)
	} else if f.Packet != "" {
		fmt.Fprintf(w, "  packet: %s\n", f.Packet)
	}
	fmt.Fprintln(w)
}

// verifyAPI serves what is proven of all packets, and what is tried with real ones.
func verifyAPI(mux *http.ServeMux, p *parts) {
	mux.HandleFunc("POST /planck/v1/ping", func(w http.ResponseWriter, r *http.Request) {
		q, err := pingQuery(r.URL.Query())
		if err != nil {
			northbound.WriteError(w, err)
			return
		}
		answered, lacks := p.askOwner(w, r, p.controller.HostOf(q.From), peerTimeout)
		if answered {
			return
		}
		record, err := p.controller.Ping(r.Context(), q)
		if err != nil && lacks != "" {
			err = network.Errorf(network.Unavailable, "ServiceUnavailable", "%s", lacks)
		}
		if err != nil {
			northbound.WriteError(w, err)
			return
		}
		writeJSON(w, record)
	})
	mux.HandleFunc("GET /planck/v1/verify", func(w http.ResponseWriter, r *http.Request) {
		if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(verifyPatience)); err != nil {
			slog.Debug("a proof has the time of other requests", "error", err)
		}
		desired := r.URL.Query().Get("desired") != ""
		if !desired && p.readElsewhere(w, r, p.controller.HostNames(), verifyPatience) {
			return
		}
		record, err := p.controller.Verify(r.Context(), desired)
		if err != nil {
			northbound.WriteError(w, err)
			return
		}
		writeJSON(w, record)
	})
}
