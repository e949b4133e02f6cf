package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"planck/cluster"
	"planck/controller"
	"planck/network"
	"planck/northbound"
	"planck/ovsdb"
)

// leaveTime bounds how long SIGTERM waits for others to take over the switches.
const leaveTime = 5 * time.Second

var clusterOptions = []*option{
	{Sections: []string{"cluster"}, Names: []string{"name"}, Computed: "the name of the machine with a random part, kept in `STATE_DIR/member`",
		Doc:   "Name of this controller among those that share a PostgreSQL database. It must be another one for each, and the same after a restart.",
		Into:  func(c *Config) any { return &c.ClusterName },
		Check: func(c *Config) error { return checkMemberName(c.ClusterName) }},
	{Sections: []string{"cluster"}, Names: []string{"advertise"}, Computed: "`bind_host`, or for every address that of `[openflow] advertise`, or the one by which the database is reached",
		Doc:  "Address at which the other members, and operators, find the API of this one; with TLS its certificate must name it.",
		Into: func(c *Config) any { return &c.ClusterAdvertise }},
}

var memberNames = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$`)

func checkMemberName(name string) error {
	if name != "" && !memberNames.MatchString(name) {
		return fmt.Errorf("%q: letters, digits, and . - _ inside, at most 63 in all", name)
	}
	return nil
}

// memberName is the configured name, or one that is made at the first start.
func memberName(cfg *Config) (string, error) {
	if cfg.ClusterName != "" {
		return cfg.ClusterName, nil
	}
	file := filepath.Join(cfg.StateDir, "member")
	kept, err := os.ReadFile(file)
	if name := strings.TrimSpace(string(kept)); err == nil && checkMemberName(name) == nil && name != "" {
		return name, nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("name of this controller: %w", err)
	}
	machine, _ := os.Hostname()
	machine, _, _ = strings.Cut(machine, ".")
	name := machine + "-" + strings.ToLower(rand.Text()[:6])
	if checkMemberName(name) != nil {
		name = "planck-" + strings.ToLower(rand.Text()[:6])
	}
	if err := os.WriteFile(file, []byte(name+"\n"), 0o640); err != nil {
		return "", fmt.Errorf("name of this controller: %w", err)
	}
	return name, nil
}

// newCluster is the membership of this controller, nil where the database can't
// be shared.
func newCluster(cfg *Config, log *slog.Logger, store *network.Store, l *listeners, registry prometheus.Registerer) (*cluster.Cluster, error) {
	shared := store.Shared()
	if shared == nil {
		return nil, nil
	}
	name, err := memberName(cfg)
	if err != nil {
		return nil, err
	}
	return cluster.New(cluster.Options{
		Database: shared, Name: name, API: apiAddress(cfg, l.api.Addr()), Version: version, Schema: network.SchemaVersion(), Logger: log, Registry: registry,
	})
}

// switchCluster is what the controller needs of the cluster.
func (p *parts) switchCluster() controller.Cluster {
	if p.cluster == nil {
		return nil
	}
	return p.cluster
}

// shareHosts lets the members of the cluster share the hosts.
func (p *parts) shareHosts(o *ovsdb.Options) {
	if p.cluster == nil {
		return
	}
	status := p.cluster.Status()
	o.Name, o.Owns = status.Member, p.cluster.Owns
	o.Certain = p.cluster.Certain
	o.Members = func() []string {
		var names []string
		for _, m := range p.cluster.Status().Members {
			names = append(names, m.Name)
		}
		return names
	}
}

// ready is nil when this controller can serve.
func (p *parts) ready() error {
	if p.cluster != nil {
		if err := p.cluster.Current(); err != nil {
			return err
		}
		if _, revision := p.cluster.Generation(); p.revision() < revision {
			return errors.New("catching up with the database")
		}
	}
	return p.controller.Ready()
}

// readiness is ready as a metric.
func (p *parts) readiness() float64 {
	if p.controller == nil || p.ready() != nil {
		return 0
	}
	return 1
}

// runCluster is a member of the cluster until ctx ends.
func (p *parts) runCluster(ctx context.Context) error {
	if p.cluster == nil {
		return nil
	}
	p.cluster.Report(func() cluster.Progress {
		revision, behind := p.controller.Behind()
		return cluster.Progress{Revision: revision, Behind: behind}
	}, p.controller.OthersProgressed)
	p.cluster.Watch(p.controller)
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		for changed := p.cluster.Changed(); ; changed = p.cluster.Changed() {
			p.ovsdb.LookAgain()
			select {
			case <-ctx.Done():
				return
			case <-changed:
			}
		}
	}()
	defer func() { <-watching }()
	return p.cluster.Run(ctx)
}

// leaveCluster gives the switches to the other members, if there are any, and
// waits until they have them.
func (p *parts) leaveCluster(ctx context.Context) {
	if p.cluster == nil || p.cluster.Status().Alive() < 2 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, leaveTime)
	defer cancel()
	p.cluster.Leave()
	p.controller.HandedOver(ctx)
}

// clusterView is what /planck/v1/cluster tells.
type clusterView struct {
	Member     string           `json:"member"` // who says this
	Generation uint64           `json:"generation"`
	Members    []cluster.Member `json:"members"` // by name, the dead ones too
	// BeatAgeSeconds is how old the last sign of life of Member is that reached the database.
	BeatAgeSeconds float64 `json:"beat_age_seconds"`
	Problem        string  `json:"problem,omitempty"` // why Member has no lease
	// Alone says why there are no members; "" in a cluster.
	Alone string `json:"alone,omitempty"`
	// Hosts are the numbers of hosts of each member, by name; 0 for one that has none.
	Hosts map[string]int `json:"hosts"`
	// Owners are the members by host.
	Owners map[string]string `json:"owners"`
	// Revisions are how far the members have compiled the model, as far as they
	// told this one: one that has just started is not there.
	Revisions map[string]uint64 `json:"revisions"`
}

// onlyOne is what there is to say of a cluster where there is none.
const onlyOne = "This controller is the only one: its database is SQLite."

func viewCluster(p *parts) clusterView {
	if p.cluster == nil {
		return clusterView{
			Members: []cluster.Member{}, Alone: onlyOne,
			Hosts: map[string]int{}, Owners: map[string]string{}, Revisions: map[string]uint64{},
		}
	}
	s := p.cluster.Status()
	v := clusterView{
		Member: s.Member, Generation: s.Generation, Members: s.Members, BeatAgeSeconds: s.BeatAge.Seconds(), Problem: s.Problem,
		Hosts: map[string]int{}, Owners: map[string]string{},
	}
	for _, m := range s.Members {
		v.Hosts[m.Name] = 0
	}
	for _, h := range p.controller.Hosts() {
		owner := p.cluster.OwnerOf(h.Name)
		v.Owners[h.Name] = owner
		v.Hosts[owner]++
	}
	v.Revisions = p.cluster.Revisions()
	v.Revisions[v.Member], _ = p.controller.Behind()
	maps.DeleteFunc(v.Revisions, func(_ string, revision uint64) bool { return revision == 0 })
	return v
}

// clusterAPI serves /planck/v1/cluster.
func clusterAPI(mux *http.ServeMux, p *parts) {
	mux.HandleFunc("GET /planck/v1/cluster", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, map[string]any{"cluster": viewCluster(p)})
	})
	mux.HandleFunc("DELETE /planck/v1/cluster/{name}", func(w http.ResponseWriter, r *http.Request) {
		if p.cluster == nil {
			northbound.WriteError(w, network.Errorf(network.NotFound, "ClusterNotFound", "%s", onlyOne))
			return
		}
		err := p.cluster.Forget(r.Context(), r.PathValue("name"))
		if errors.Is(err, cluster.ErrNotDead) {
			err = network.Errorf(network.Conflict, "ClusterMemberInUse", "The cluster has no dead member %s.", r.PathValue("name"))
		}
		if err != nil {
			northbound.WriteError(w, err)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
}

func clusterCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cluster",
		Short: "List the controllers that share the switches, and how many hosts each programs",
		Args:  cobra.NoArgs,
	}
	client := operatorFlags(cmd)
	output := cmd.Flags().StringP("output", "o", "text", "text or json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *output != "text" && *output != "json" {
			return usagef("unknown output %q: text or json", *output)
		}
		var answer struct{ Cluster clusterView }
		if err := client.call(http.MethodGet, "cluster", nil, nil, &answer); err != nil {
			return err
		}
		if *output == "json" {
			return printJSON(cmd.OutOrStdout(), answer.Cluster)
		}
		printCluster(cmd.OutOrStdout(), answer.Cluster)
		return nil
	}
	cmd.AddCommand(client.forgetCommand("cluster", "member"))
	return cmd
}

func printCluster(w io.Writer, c clusterView) {
	if c.Alone != "" {
		fmt.Fprintln(w, c.Alone)
		return
	}
	t := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	fmt.Fprintln(t, "MEMBER\tSTATE\tHOSTS\tREVISION\tLAG\tAPI\tVERSION\tSCHEMA\tSINCE")
	newest := uint64(0)
	for _, revision := range c.Revisions {
		newest = max(newest, revision)
	}
	for _, m := range c.Members {
		known := "-\t-"
		if revision, told := c.Revisions[m.Name]; told {
			known = fmt.Sprintf("%d\t%d", revision, newest-revision)
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%s\t%s\t%s\t%s\n", m.Name, memberState(m), c.Hosts[m.Name], known, m.API, m.Version, schemaOf(m), m.Joined.UTC().Format(time.DateTime))
	}
	t.Flush()
	fmt.Fprintf(w, "Generation %d, as %s knew it %v ago.\n", c.Generation, c.Member, time.Duration(c.BeatAgeSeconds*float64(time.Second)).Round(time.Millisecond))
	for _, m := range c.Members {
		if m.Alive && len(m.Blind) > 0 {
			fmt.Fprintf(w, "%s does not hear the switches of %s.\n", m.Name, strings.Join(m.Blind, ", "))
		}
	}
	if c.Problem != "" {
		fmt.Fprintln(w, "It has no lease now:", c.Problem)
	}
}

// schemaOf is the version of the database that a member knows.
func schemaOf(m cluster.Member) string {
	if m.Schema == 0 {
		return "-"
	}
	return strconv.Itoa(m.Schema)
}

func memberState(m cluster.Member) string {
	switch {
	case !m.Alive:
		return "dead"
	case m.Arriving:
		return "arriving"
	case m.Leaving:
		return "leaving"
	}
	return "alive"
}
