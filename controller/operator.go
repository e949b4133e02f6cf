package controller

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"planck/flows"
	"planck/network"
	"planck/pipeline"
)

// HostRecord is a host as `planck hosts` shows it.
type HostRecord struct {
	Name       string         `json:"name"`
	SystemID   string         `json:"system_id"`
	TunnelIP   string         `json:"tunnel_ip"`
	OVSVersion string         `json:"ovs_version"`
	Connected  bool           `json:"connected"` // all bridges are
	VIFs       int            `json:"vifs"`
	Revision   uint64         `json:"revision"` // that all bridges are known to have
	Bridges    []BridgeRecord `json:"bridges"`
	Gateway    *GatewayRecord `json:"gateway,omitempty"` // nil for a host that carries none
	// Problem is what is wrong with the host beside others, "" for nothing.
	Problem string `json:"problem,omitempty"`
}

// GatewayRecord is the part of a host in carrying the gateways of routers.
type GatewayRecord struct {
	Active  int    `json:"active"`  // routers whose gateway is here
	Standby int    `json:"standby"` // routers that it would take over
	Health  string `json:"health"`  // up, down, returning or unknown
	Reason  string `json:"reason,omitempty"`
}

// BridgeRecord is a bridge of a host.
type BridgeRecord struct {
	Name         string     `json:"name"`
	DatapathID   string     `json:"datapath_id"`
	Connected    bool       `json:"connected"`
	Standby      bool       `json:"standby"` // another controller of the cluster programs it
	Remote       string     `json:"remote,omitempty"`
	Since        *time.Time `json:"since,omitempty"`
	Synced       bool       `json:"synced"` // compared as a whole since it connected
	Revision     uint64     `json:"revision"`
	Flows        int        `json:"flows"`
	Groups       int        `json:"groups"`
	Meters       int        `json:"meters"`
	ForeignFlows int        `json:"foreign_flows"`
	FlowMods     uint64     `json:"flow_mods"` // sent since it connected
	Refused      int        `json:"refused_flows"`
	LastError    string     `json:"last_error,omitempty"`
	LastErrorAt  *time.Time `json:"last_error_at,omitempty"`
}

// Hosts tells about every host of the model, alive or not, by name.
func (c *Controller) Hosts() []HostRecord {
	view := c.view.Load()
	records := []HostRecord{}
	if view == nil {
		return records
	}
	for h := range view.Hosts() {
		records = append(records, c.hostRecord(view, h))
	}
	return records
}

func (c *Controller) hostRecord(view *network.View, h *network.Host) HostRecord {
	r := HostRecord{
		Name: h.Name, SystemID: h.SystemID, OVSVersion: h.OVSVersion,
		Connected: len(h.Bridges) > 0, Revision: view.Revision(), Bridges: []BridgeRecord{},
	}
	if h.TunnelIP.IsValid() {
		r.TunnelIP = h.TunnelIP.String()
	}
	for range view.VIFsOn(h.Name) {
		r.VIFs++
	}
	r.Gateway = c.gatewayRecord(view, h.Name)
	if others := sharesTunnelIP(view, h); len(others) > 0 {
		r.Problem = sharedTunnelIP(h, others)
	}
	for name, b := range h.Bridges {
		br := BridgeRecord{Name: name, DatapathID: dpidText(b.DatapathID)}
		if t := c.bridge(h.Name, name); t != nil {
			t.describe(&br, view.Revision())
		}
		r.Connected = r.Connected && br.Connected
		r.Revision = min(r.Revision, br.Revision)
		r.Bridges = append(r.Bridges, br)
	}
	slices.SortFunc(r.Bridges, func(a, b BridgeRecord) int { return cmp.Compare(a.Name, b.Name) })
	return r
}

// sharesTunnelIP lists the other hosts that have a host's tunnel address.
func sharesTunnelIP(v *network.View, h *network.Host) (others []string) {
	for o := range v.Hosts() {
		if h.TunnelIP.IsValid() && o.TunnelIP == h.TunnelIP && o.Name != h.Name {
			others = append(others, o.Name)
		}
	}
	return others
}

func sharedTunnelIP(h *network.Host, others []string) string {
	return fmt.Sprintf("its tunnel address %s is also that of %s: tunnels lead to one of them at the most", h.TunnelIP, strings.Join(others, ", "))
}

func (c *Controller) gatewayRecord(view *network.View, host string) *GatewayRecord {
	g := &GatewayRecord{}
	for p := range view.GatewayPlacementsOn(host) {
		if view.GatewayHost(p.RouterID) == host {
			g.Active++
		} else {
			g.Standby++
		}
	}
	if g.Active+g.Standby == 0 {
		return nil
	}
	g.Health, g.Reason = c.health.describe(view, host)
	return g
}

func (t *target) describe(r *BridgeRecord, current uint64) {
	r.Revision = t.revision(current)
	t.mu.Lock()
	defer t.mu.Unlock()
	r.Synced, r.Refused, r.LastError = t.synced, len(t.refused), t.lastError
	r.Flows, r.Groups, r.Meters, r.ForeignFlows = t.counts.flows, t.counts.groups, t.counts.meters, t.counts.foreign
	if !t.lastErrorAt.IsZero() {
		at := t.lastErrorAt
		r.LastErrorAt = &at
	}
	s := t.session
	if s == nil {
		s, r.Standby = t.waiting, t.waiting != nil
	}
	if s != nil {
		r.Connected, r.Remote, r.Since, r.FlowMods = true, s.conn.RemoteAddr().String(), &s.started, s.flowMods.Load()
	}
}

// Resource is what a cookie leads to.
type Resource struct {
	Kind string `json:"kind"` // network, port, router, host, security_group, security_group_rule, or "" for none
	ID   string `json:"id"`
	Name string `json:"name"`
}

// resourceOf finds the resource of a cookie. One that is gone has the kind and
// its key as the id.
func resourceOf(v *network.View, c pipeline.Cookie) Resource {
	key := c.Object()
	switch {
	case !c.Ours() || key == 0 || c.Feature() == pipeline.FeatureCanary:
		return Resource{}
	case c.Flags()&pipeline.FlagSecurityGroup != 0:
		if g := v.SecurityGroupByKey(key); g != nil {
			return Resource{"security_group", g.ID, g.Name}
		}
		return Resource{"security_group", fmt.Sprintf("key %d", key), ""}
	case c.Flags()&pipeline.FlagSecurityGroupRule != 0:
		if r := v.SecurityGroupRuleByKey(key); r != nil {
			return Resource{"security_group_rule", r.ID, ruleText(v, r)}
		}
		return Resource{"security_group_rule", fmt.Sprintf("key %d", key), ""}
	case c.Flags()&pipeline.FlagNetwork != 0:
		if n := v.NetworkByKey(key); n != nil {
			return Resource{"network", n.ID, n.Name}
		}
		return Resource{"network", fmt.Sprintf("key %d", key), ""}
	case c.Flags()&pipeline.FlagRouter != 0:
		if r := v.RouterByKey(key); r != nil {
			return Resource{"router", r.ID, r.Name}
		}
		return Resource{"router", fmt.Sprintf("key %d", key), ""}
	case c.Flags()&pipeline.FlagHost != 0:
		if h := v.HostByKey(key); h != nil {
			return Resource{"host", h.Name, h.Name}
		}
		return Resource{"host", fmt.Sprintf("key %d", key), ""}
	}
	if p := v.PortByKey(key); p != nil {
		return Resource{"port", p.ID, p.Name}
	}
	return Resource{"port", fmt.Sprintf("key %d", key), ""}
}

// FlowRecord is an installed flow as `planck flows` shows it.
type FlowRecord struct {
	Bridge    string   `json:"bridge"`
	Table     uint8    `json:"table"`
	TableName string   `json:"table_name"`
	Priority  uint16   `json:"priority"`
	Match     string   `json:"match"`   // as ovs-ofctl writes it
	Actions   string   `json:"actions"` // as ovs-ofctl writes it
	Packets   uint64   `json:"packets"`
	Bytes     uint64   `json:"bytes"`
	Cookie    string   `json:"cookie"`
	Feature   string   `json:"feature"` // "" when the flow is not ours
	Resource  Resource `json:"resource"`
	Desired   bool     `json:"desired"` // the model wants it or permits it
	// Drops says why, when the flow drops what it matches.
	Drops string `json:"drops,omitempty"`
	// Counts says, of a flow that is a reason why packets pass or not, whose packets it counts.
	Counts string `json:"counts,omitempty"`
	// Rules are the rules of security groups that the flow, as such a reason, stands for.
	Rules []Resource `json:"rules,omitempty"`
}

// FlowQuery selects flows.
type FlowQuery struct {
	Host   string // must be given
	Bridge string // "" for all bridges of the host
	Port   string // id of a port: only its flows
	// Why selects, for a port, what says why its packets pass or not: the rules of
	// its security groups, and where they are dropped.
	Why bool
}

// FlowDump is what was read of the bridges of a host.
type FlowDump struct {
	Flows    []FlowRecord    `json:"flows"`    // by bridge, table and priority
	Problems []BridgeProblem `json:"problems"` // of the bridges that were not read
}

// BridgeProblem is why a bridge was not read.
type BridgeProblem struct {
	Bridge  string `json:"bridge"`
	Problem string `json:"problem"`
}

// maxFlowReads is how many callers may read switches at once: each costs a
// switch as much as an audit.
const maxFlowReads = 4

// beginRead waits for a turn to read the switches of a host, until done is called.
func (c *Controller) beginRead(ctx context.Context, host string) (view *network.View, done func(), err error) {
	select {
	case c.reads <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	done = func() { <-c.reads }
	if view = c.view.Load(); view == nil || view.Host(host) == nil {
		done()
		return nil, nil, network.Errorf(network.NotFound, "HostNotFound", "host %q is not known", host)
	}
	return view, done, nil
}

// Flows reads the flows of a host's bridges from the switches. It fails when
// there is nothing to read: with a *network.Error that says what is not there,
// or not connected.
func (c *Controller) Flows(ctx context.Context, q FlowQuery) (*FlowDump, error) {
	view, done, err := c.beginRead(ctx, q.Host)
	if err != nil {
		return nil, err
	}
	defer done()
	keep := func(*FlowRecord, *flows.Flow) bool { return true }
	if q.Port != "" {
		if view.Port(q.Port) == nil {
			return nil, network.Errorf(network.NotFound, "PortNotFound", "Port %s could not be found.", q.Port)
		}
		keep = func(r *FlowRecord, _ *flows.Flow) bool { return r.Resource.Kind == "port" && r.Resource.ID == q.Port }
		if q.Why {
			keep = reasonsOf(view, view.Port(q.Port), q.Host).keep
		}
	}
	targets, err := c.targetsOf(q.Host, q.Bridge)
	if err != nil {
		return nil, err
	}
	dump := &FlowDump{Flows: []FlowRecord{}, Problems: []BridgeProblem{}}
	var last error
	for _, t := range targets {
		records, err := c.bridgeFlows(ctx, view, t, keep)
		if err != nil {
			last = err
			dump.Problems = append(dump.Problems, BridgeProblem{t.name.Bridge, err.Error()})
			continue
		}
		dump.Flows = append(dump.Flows, records...)
	}
	if last != nil && len(dump.Problems) == len(targets) {
		return nil, last
	}
	return dump, nil
}

// targetsOf are the bridges of a host in the order of their names, or the one asked for.
func (c *Controller) targetsOf(host, bridge string) ([]*target, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var list []*target
	for name, t := range c.hosts[host] {
		if bridge == "" || name == bridge {
			list = append(list, t)
		}
	}
	if bridge != "" && len(list) == 0 {
		return nil, network.Errorf(network.NotFound, "BridgeNotFound", "host %q has no bridge %q", host, bridge)
	}
	slices.SortFunc(list, func(a, b *target) int { return cmp.Compare(a.name.Bridge, b.name.Bridge) })
	return list, nil
}

func (c *Controller) bridgeFlows(ctx context.Context, view *network.View, t *target, keep func(*FlowRecord, *flows.Flow) bool) (records []FlowRecord, err error) {
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
	slices.SortStableFunc(stats, func(a, b flows.FlowStats) int {
		return cmp.Or(cmp.Compare(a.Flow.Table, b.Flow.Table), cmp.Compare(b.Flow.Priority, a.Flow.Priority))
	})
	c.opt.Compiler.Read(t.name, func(state pipeline.State) {
		for i := range stats {
			r := flowRecord(view, t.name.Bridge, &stats[i], state)
			if keep(&r, &stats[i].Flow) {
				records = append(records, r)
			}
		}
	})
	return records, nil
}

func flowRecord(view *network.View, bridge string, s *flows.FlowStats, state pipeline.State) FlowRecord {
	f := &s.Flow
	cookie := pipeline.Cookie(f.Cookie)
	r := FlowRecord{
		Bridge: bridge, Table: f.Table, TableName: pipeline.TableName(bridge, f.Table), Priority: f.Priority,
		Match: f.Match.String(), Actions: f.Instructions.String(), Packets: s.Packets, Bytes: s.Bytes,
		Cookie: fmt.Sprintf("%#x", f.Cookie), Resource: resourceOf(view, cookie),
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

// Live reports whether a host is connected.
func (c *Controller) Live(host string) bool { return c.hostLive(host) }
