package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"planck/controller"
	"planck/pipeline"
)

// operatorClient talks to the operator's API of a controller.
type operatorClient struct {
	url, token, cacert string
	cert, key          string // files of a certificate of one's own
	insecure           bool
	patience           time.Duration // for an answer; 0 for a minute
}

// operatorFlags declares where the controller is.
func operatorFlags(cmd *cobra.Command) *operatorClient {
	c := &operatorClient{}
	cmd.PersistentFlags().StringVar(&c.url, "url", cmp.Or(os.Getenv("OS_URL"), "http://127.0.0.1:9696"), "the controller's API (OS_URL)")
	cmd.PersistentFlags().StringVar(&c.token, "token", os.Getenv("OS_TOKEN"), "an administrator's token, where the controller asks for one (OS_TOKEN)")
	cmd.PersistentFlags().StringVar(&c.cacert, "cacert", os.Getenv("OS_CACERT"), "file of the certificates that sign the controller's (OS_CACERT)")
	cmd.PersistentFlags().StringVar(&c.cert, "cert", os.Getenv("OS_CERT"), "file of a certificate of one's own, where the controller asks for one (OS_CERT)")
	cmd.PersistentFlags().StringVar(&c.key, "key", os.Getenv("OS_KEY"), "file of its private key (OS_KEY)")
	cmd.PersistentFlags().BoolVar(&c.insecure, "insecure", false, "accept any certificate of the controller")
	return c
}

// http is how the controller is spoken to.
func (c *operatorClient) http() (*http.Client, error) {
	config := &tls.Config{InsecureSkipVerify: c.insecure, MinVersion: tls.VersionTLS12}
	if c.cacert != "" {
		var err error
		if config.RootCAs, err = certificates(c.cacert); err != nil {
			return nil, usagef("--cacert: %w", err)
		}
	}
	if c.cert != "" || c.key != "" {
		own, err := tls.LoadX509KeyPair(c.cert, c.key)
		if err != nil {
			return nil, usagef("--cert and --key: %w", err)
		}
		config.Certificates = []tls.Certificate{own}
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = config
	return &http.Client{Transport: transport, Timeout: cmp.Or(c.patience, time.Minute)}, nil
}

// call sends a request below /planck/v1/, with a body unless that is nil, and
// decodes the answer into out, unless that is nil.
func (c *operatorClient) call(method, path string, query url.Values, body io.Reader, out any) error {
	resp, err := c.send(context.Background(), method, path, query, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		return nil
	}
	return json.NewDecoder(resp.Body).Decode(out)
}

// send sends a request below /planck/v1/. An answer that is no success is an error.
func (c *operatorClient) send(ctx context.Context, method, path string, query url.Values, body io.Reader) (*http.Response, error) {
	if !strings.HasPrefix(c.url, "http://") && !strings.HasPrefix(c.url, "https://") {
		return nil, usagef("--url must begin with http:// or https://, and is %q", c.url)
	}
	target := strings.TrimSuffix(c.url, "/") + "/planck/v1/" + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return nil, err
	}
	if c.token != "" {
		req.Header.Set("X-Auth-Token", c.token)
	}
	client, err := c.http()
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("the controller at %s does not answer: %w", c.url, err)
	}
	if resp.StatusCode/100 != 2 {
		defer resp.Body.Close()
		return nil, apiError(resp)
	}
	return resp, nil
}

// apiError is what an answer says; a 400 is for a mistake in the command line.
func apiError(resp *http.Response) error {
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return err
	}
	var e struct {
		NeutronError, Error struct{ Message string } // Error is that of a 401
	}
	err = fmt.Errorf("%s: %s", resp.Status, strings.TrimSpace(string(body)))
	if json.Unmarshal(body, &e) == nil && e.NeutronError.Message+e.Error.Message != "" {
		err = errors.New(e.NeutronError.Message + e.Error.Message)
	}
	if resp.StatusCode == http.StatusBadRequest {
		return &configError{err}
	}
	return err
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
		var answer hostsAnswer
		if err := client.call(http.MethodGet, "hosts", nil, nil, &answer); err != nil {
			return err
		}
		for i := range answer.Silent {
			fmt.Fprintln(cmd.ErrOrStderr(), answer.Silent[i].lacks("flows and errors of bridges"))
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
			return c.call(http.MethodDelete, collection+"/"+url.PathEscape(args[0]), nil, nil, nil)
		},
	}
}

func printHosts(w io.Writer, hosts []hostView) {
	t := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	fmt.Fprintln(t, "HOST\tOVSDB\tTUNNEL IP\tVIFS\tGATEWAYS\tBRIDGE\tOPENFLOW\tFLOWS\tREVISION\tPROBLEM")
	for _, h := range hosts {
		state := "away"
		switch {
		case h.OVSDB.Connected:
			state = "connected"
		case h.AtOwner != nil && h.AtOwner.OVSDB:
			state = "away, connected to " + h.Owner
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\t\t\t\t\t%s\n", h.Name, state, h.TunnelIP, h.VIFs, gatewayState(h.Gateway), problemOf(h))
		for _, b := range h.Bridges {
			state, known := bridgeState(b, &h), fmt.Sprintf("%d\t%d", b.Flows, b.Revision)
			if b.Standby {
				known = "-\t-" // who programs it knows
			}
			fmt.Fprintf(t, "\t\t\t\t\t%s\t%s\t%s\t%s\n", b.Name, state, known, b.LastError)
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

// bridgeState is that of a bridge of a host.
func bridgeState(b controller.BridgeRecord, h *hostView) string {
	there := ""
	if h.AtOwner != nil {
		there = h.AtOwner.Bridges[b.Name]
	}
	switch {
	case !b.Connected && there != "" && there != bridgeAway:
		return fmt.Sprintf("away, %s at %s", there, h.Owner)
	case !b.Connected:
		return bridgeAway
	case b.Standby && h.Owner != "" && there != "" && there != bridgeLive:
		return fmt.Sprintf("standby of %s, there %s", h.Owner, there)
	case b.Standby && h.Owner != "":
		return "standby of " + h.Owner
	case !b.Synced:
		return bridgeConnected
	}
	return bridgeLive
}

// States of a bridge.
const (
	bridgeAway      = "away"
	bridgeConnected = "connected"
	bridgeLive      = "live"
)

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
