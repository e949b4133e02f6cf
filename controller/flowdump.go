package controller

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"planck/flows"
	"planck/network"
	"planck/pipeline"
)

// FlowRecord is an installed flow as `planck flows` shows it.
type FlowRecord struct {
	Host      string   `json:"host"`
	Bridge    string   `json:"bridge"`
	Table     uint8    `json:"table"`
	TableName string   `json:"table_name"`
	Priority  uint16   `json:"priority"`
	Match     string   `json:"match"`   // as ovs-ofctl writes it
	Actions   string   `json:"actions"` // as ovs-ofctl writes it
	Packets   uint64   `json:"packets"`
	Bytes     uint64   `json:"bytes"`
	Age       float64  `json:"age"` // seconds since the switch has it
	Cookie    string   `json:"cookie"`
	Feature   string   `json:"feature"` // "" when the flow is not ours
	Resource  Resource `json:"resource"`
	Desired   bool     `json:"desired"` // the model wants it or permits it
	// Names says what registers and metadata of the match and the actions hold:
	// "src=web", "net=blue".
	Names []string `json:"names"`
	// Drops says why, when the flow drops what it matches.
	Drops string `json:"drops,omitempty"`
	// Counts says, of a flow that is a reason why packets pass or not, whose packets it counts.
	Counts string `json:"counts,omitempty"`
	// Rules are the rules of security groups that the flow, as such a reason, stands for.
	Rules []Resource `json:"rules,omitempty"`
}

// FlowQuery selects flows. Resources are named by id or name; a flow must stand
// for all of those that are given.
type FlowQuery struct {
	Host   string // "" for the hosts that the resources are on
	Bridge string // "" for all bridges
	Port   string
	// Network also selects the flows of its ports, Router those of its interfaces
	// and Group, a security group, those of its rules.
	Network, Router, Group string
	Feature                string // as docs/pipelines.md names it
	Drops                  bool   // only what drops
	// Why selects, for a port, what says why its packets pass or not: the rules of
	// its security groups, and where they are dropped.
	Why bool
}

// FlowDump is what was read of the bridges of hosts.
type FlowDump struct {
	Flows    []FlowRecord    `json:"flows"`    // by host, bridge, table and priority
	Problems []BridgeProblem `json:"problems"` // of the bridges that were not read
}

// flowFilter says whether a flow is asked for.
type flowFilter func(*FlowRecord, *flows.Flow) bool

// Flows reads flows from the switches. It fails when there is nothing to read:
// with a *network.Error that says what is not there, or not connected.
func (c *Controller) Flows(ctx context.Context, q FlowQuery) (*FlowDump, error) {
	if (q == FlowQuery{Bridge: q.Bridge}) {
		return nil, network.Errorf(network.Invalid, "HTTPBadRequest", "the query has no host, and nothing that the flows shall stand for")
	}
	view := c.view.Load()
	if q.Host != "" && (view == nil || view.Host(q.Host) == nil) {
		return nil, hostNotKnown(q.Host)
	}
	if view == nil {
		return nil, network.Errorf(network.Unavailable, "NotReady", "the model is not read yet")
	}
	filter, hosts, err := selectFlows(view, q)
	if err != nil {
		return nil, err
	}
	dump := &FlowDump{Flows: []FlowRecord{}, Problems: []BridgeProblem{}}
	read := 0
	var last error
	for _, host := range hosts {
		n, err := c.hostFlows(ctx, host, q, filter, dump)
		if err != nil {
			last = err
		}
		read += n
	}
	if last != nil && read == 0 {
		return nil, last
	}
	return dump, nil
}

// hostFlows adds the flows of a host's bridges to a dump, and tells how many
// bridges could be read.
func (c *Controller) hostFlows(ctx context.Context, host string, q FlowQuery, filter flowFilter, dump *FlowDump) (read int, last error) {
	view, done, err := c.beginRead(ctx, host)
	if err != nil {
		return 0, err
	}
	defer done()
	keep := filter
	if q.Why {
		p, err := findPort(view, q.Port)
		if err != nil {
			return 0, err
		}
		keep = reasonsOf(view, p, host).keep
	}
	targets, err := c.targetsOf(host, q.Bridge)
	if err != nil {
		return 0, err
	}
	for _, t := range targets {
		records, err := c.bridgeFlows(ctx, view, t, keep)
		if err != nil {
			last = err
			dump.Problems = append(dump.Problems, BridgeProblem{t.name.Host, t.name.Bridge, err.Error()})
			continue
		}
		read++
		dump.Flows = append(dump.Flows, records...)
	}
	return read, last
}

// selectFlows finds what a query names, and the hosts to read.
func selectFlows(v *network.View, q FlowQuery) (keep flowFilter, hosts []string, err error) {
	var filters []flowFilter
	if q.Host != "" {
		hosts = []string{q.Host}
	}
	if q.Port != "" {
		p, err := findPort(v, q.Port)
		if err != nil {
			return nil, nil, err
		}
		filters = append(filters, ofResources(func(r Resource) bool { return r.Kind == "port" && r.ID == p.ID }))
		if at := v.WiredHost(p); hosts == nil && at != "" {
			hosts = []string{at}
		}
	}
	for _, named := range []struct {
		name   string
		filter func(*network.View, string) (flowFilter, error)
	}{{q.Network, ofNetwork}, {q.Router, ofRouter}, {q.Group, ofGroup}} {
		if named.name == "" {
			continue
		}
		filter, err := named.filter(v, named.name)
		if err != nil {
			return nil, nil, err
		}
		filters = append(filters, filter)
	}
	if q.Feature != "" {
		if !slices.ContainsFunc(pipeline.Features, func(f pipeline.Feature) bool { return f.Name() == q.Feature }) {
			return nil, nil, network.Errorf(network.NotFound, "FeatureNotFound", "there is no feature %q", q.Feature)
		}
		filters = append(filters, func(r *FlowRecord, _ *flows.Flow) bool { return r.Feature == q.Feature })
	}
	if q.Drops {
		filters = append(filters, func(r *FlowRecord, _ *flows.Flow) bool { return r.Drops != "" })
	}
	if hosts == nil {
		for h := range v.Hosts() {
			hosts = append(hosts, h.Name)
		}
		slices.Sort(hosts)
	}
	return func(r *FlowRecord, f *flows.Flow) bool {
		return !slices.ContainsFunc(filters, func(keep flowFilter) bool { return !keep(r, f) })
	}, hosts, nil
}

func ofResources(is func(Resource) bool) flowFilter {
	return func(r *FlowRecord, _ *flows.Flow) bool { return is(r.Resource) }
}

// ofNetwork keeps the flows of a network and of its ports.
func ofNetwork(v *network.View, name string) (flowFilter, error) {
	n, err := findNamed(v.Network(name), v.Networks(), name, "Network")
	if err != nil {
		return nil, err
	}
	return ofResources(func(r Resource) bool {
		p := v.Port(r.ID)
		return r.Kind == "network" && r.ID == n.ID || r.Kind == "port" && p != nil && p.NetworkID == n.ID
	}), nil
}

// ofRouter keeps the flows of a router and of its ports.
func ofRouter(v *network.View, name string) (flowFilter, error) {
	router, err := findNamed(v.Router(name), v.Routers(), name, "Router")
	if err != nil {
		return nil, err
	}
	return ofResources(func(r Resource) bool {
		p := v.Port(r.ID)
		return r.Kind == "router" && r.ID == router.ID || r.Kind == "port" && p != nil && p.DeviceID == router.ID
	}), nil
}

// ofGroup keeps the flows of a security group and of its rules.
func ofGroup(v *network.View, name string) (flowFilter, error) {
	g, err := findNamed(v.SecurityGroup(name), v.SecurityGroups(), name, "SecurityGroup")
	if err != nil {
		return nil, err
	}
	return ofResources(func(r Resource) bool {
		if r.Kind == "security_group_rule" {
			rule := v.SecurityGroupRule(r.ID)
			return rule != nil && rule.GroupID == g.ID
		}
		return r.Kind == "security_group" && r.ID == g.ID
	}), nil
}

func (c *Controller) bridgeFlows(ctx context.Context, view *network.View, t *target, keep flowFilter) (records []FlowRecord, err error) {
	s := t.readable()
	if s == nil {
		return nil, network.Errorf(network.Unavailable, "BridgeNotConnected", "host %q bridge %q is not connected", t.name.Host, t.name.Bridge)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	stats, err := s.dumpFlows()
	if err != nil {
		return nil, network.Errorf(network.Unavailable, "BridgeNotRead", "host %q bridge %q: %s", t.name.Host, t.name.Bridge, err)
	}
	return c.records(view, t.name, stats, keep), nil
}

// records are flows of a bridge by table and priority, with what they stand for.
func (c *Controller) records(view *network.View, of pipeline.Target, stats []flows.FlowStats, keep flowFilter) (records []FlowRecord) {
	order := make([]*flows.FlowStats, len(stats))
	for i := range stats {
		order[i] = &stats[i]
	}
	slices.SortStableFunc(order, func(a, b *flows.FlowStats) int {
		return cmp.Or(cmp.Compare(a.Flow.Table, b.Flow.Table), cmp.Compare(b.Flow.Priority, a.Flow.Priority))
	})
	c.opt.Compiler.Read(of, func(state pipeline.State) {
		all := make([]FlowRecord, len(order))
		parts := make([][]FlowRecord, runtime.GOMAXPROCS(0))
		each := len(order)/len(parts) + 1
		var work sync.WaitGroup
		for i := range parts {
			from, to := min(i*each, len(order)), min((i+1)*each, len(order))
			work.Go(func() { parts[i] = appendRecords(all[from:from:to], view, of, order[from:to], state, keep) })
		}
		work.Wait()
		records = all[:0]
		for _, part := range parts {
			records = append(records, part...)
		}
	})
	return records
}

// appendRecords appends what is asked for of some flows.
func appendRecords(records []FlowRecord, view *network.View, of pipeline.Target, stats []*flows.FlowStats, state pipeline.State, keep flowFilter) []FlowRecord {
	for _, s := range stats {
		r := flowRecord(view, of, s, state)
		if keep(&r, &s.Flow) {
			r.Names = namesOf(view, &r, &s.Flow)
			records = append(records, r)
		}
	}
	return records
}

func flowRecord(view *network.View, of pipeline.Target, s *flows.FlowStats, state pipeline.State) FlowRecord {
	f := &s.Flow
	cookie := pipeline.Cookie(f.Cookie)
	r := FlowRecord{
		Host: of.Host, Bridge: of.Bridge, Table: f.Table, TableName: pipeline.TableName(of.Bridge, f.Table), Priority: f.Priority,
		Match: f.Match.String(), Actions: f.Instructions.String(), Packets: s.Packets, Bytes: s.Bytes, Age: s.Duration.Seconds(),
		Cookie: "0x" + strconv.FormatUint(f.Cookie, 16), Resource: resourceOf(view, cookie),
	}
	if reason, ok := pipeline.ReasonOf(f); ok {
		r.Drops = pipeline.DropReasons[reason]
	}
	if cookie.Ours() {
		r.Feature = pipeline.FeatureName(cookie.Feature())
	}
	wanted, permitted := state.Desired.Flows[f.Key()], state.Permitted.Flows[f.Key()]
	r.Desired = wanted != nil && *wanted == *f || permitted != nil && *permitted == *f || leaveAlone(f)
	return r
}

// ReadFlows explains the flows of a text as ovs-ofctl dump-flows prints them, of
// a bridge of a host that is not connected, say. Lines that are no flows are left
// out; the error names the first that can't be read.
func (c *Controller) ReadFlows(q FlowQuery, text io.Reader) (*FlowDump, error) {
	view := c.view.Load()
	if view == nil || view.Host(q.Host) == nil {
		return nil, hostNotKnown(q.Host)
	}
	keep, _, err := selectFlows(view, q)
	if err != nil {
		return nil, err
	}
	var stats []flows.FlowStats
	lines := bufio.NewScanner(text)
	lines.Buffer(nil, maxFlowLine)
	for n := 1; lines.Scan(); n++ {
		if !strings.Contains(lines.Text(), "actions=") {
			continue
		}
		s, err := parseFlowStats(lines.Text())
		if err != nil {
			return nil, network.Errorf(network.Invalid, "FlowsNotReadable", "line %d: %s%s", n, err, namesHint(lines.Text()))
		}
		stats = append(stats, s)
	}
	if err := lines.Err(); err != nil {
		return nil, network.Errorf(network.Invalid, "FlowsNotReadable", "%s", err)
	}
	if len(stats) == 0 {
		return nil, network.Errorf(network.Invalid, "FlowsNotReadable", "the text has no flow in it: ovs-ofctl dump-flows --no-names -O OpenFlow13 BRIDGE prints one a line")
	}
	target := pipeline.Target{Host: q.Host, Bridge: cmp.Or(q.Bridge, network.BridgeIntegration)}
	return &FlowDump{Flows: append([]FlowRecord{}, c.records(view, target, stats, keep)...), Problems: []BridgeProblem{}}, nil
}

// withNames matches what ovs-ofctl prints on a terminal, where it has the bridge's
// names of ports and tables and the text has not their numbers.
var withNames = regexp.MustCompile(`"|\b(table|in_port|output|resubmit)[=:(],?[A-Za-z_]`)

// namesHint says how to dump flows without names, after the error of a line with some.
func namesHint(line string) string {
	if !withNames.MatchString(line) {
		return ""
	}
	return ": names of ports and tables can't be read, dump it with --no-names"
}

// maxFlowLine is more than any flow's text takes.
const maxFlowLine = 1 << 20

// statistic is one of those that ovs-ofctl prints with a flow.
var statistic = regexp.MustCompile(`\b(n_packets|n_bytes|duration)=([0-9.]+)`)

func parseFlowStats(line string) (s flows.FlowStats, err error) {
	if s.Flow, err = flows.ParseFlow(line); err != nil {
		return s, err
	}
	for _, found := range statistic.FindAllStringSubmatch(line, -1) {
		n, err := strconv.ParseFloat(found[2], 64)
		if err != nil {
			return s, fmt.Errorf("%s: %w", found[0], err)
		}
		switch found[1] {
		case "n_packets":
			s.Packets = uint64(n)
		case "n_bytes":
			s.Bytes = uint64(n)
		case "duration":
			s.Duration = time.Duration(n * float64(time.Second))
		}
	}
	return s, nil
}
