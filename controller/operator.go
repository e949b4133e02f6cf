package controller

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

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
	addresses := make(map[netip.Addr]int) // how many hosts have each
	for h := range view.Hosts() {
		addresses[h.TunnelIP]++
	}
	for h := range view.Hosts() {
		r := c.hostRecord(view, h)
		if addresses[h.TunnelIP] > 1 && h.TunnelIP.IsValid() {
			r.Problem = sharedTunnelIP(h, sharesTunnelIP(view, h))
		}
		records = append(records, r)
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

// resourceIn is what a cookie leads to in the first of some views that knows it.
func resourceIn(views []*network.View, c pipeline.Cookie) (r Resource) {
	for _, v := range views {
		if r = resourceOf(v, c); !gone(r) {
			return r
		}
	}
	return r
}

// gone reports whether a resource is not in the view that it was looked for in.
func gone(r Resource) bool { return strings.HasPrefix(r.ID, "key ") }

// BridgeProblem is why a bridge was not read.
type BridgeProblem struct {
	Host    string `json:"host"`
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
		return nil, nil, hostNotKnown(host)
	}
	return view, done, nil
}

func hostNotKnown(name string) error {
	return network.Errorf(network.NotFound, "HostNotFound", "host %q is not known", name)
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

// Reads reports whether all bridges of a host can be read here.
func (c *Controller) Reads(host string) bool {
	targets, err := c.targetsOf(host, "")
	return err == nil && len(targets) > 0 && !slices.ContainsFunc(targets, func(t *target) bool { return t.readable() == nil })
}

// Live reports whether a host is connected.
func (c *Controller) Live(host string) bool { return c.hostLive(host) }
