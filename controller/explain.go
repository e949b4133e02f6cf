package controller

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"planck/network"
)

// Explanation is what `planck explain` says of a resource: where it stands, and
// what keeps it from being of use.
type Explanation struct {
	Resource Resource  `json:"resource"`
	Status   string    `json:"status"` // "" for a kind that has none
	*Place             // of a port
	About    []string  `json:"about"`           // what it is and where, in words
	Findings []Finding `json:"findings"`        // what is wrong, causes before what follows from them
	Drops    []Dropped `json:"drops,omitempty"` // what the switch dropped of a port's packets
}

// Place is where a port is.
type Place struct {
	Network   Resource `json:"network"`
	MAC       string   `json:"mac_address"`
	Addresses []string `json:"addresses"`
	BoundTo   string   `json:"bound_to"` // a host, "" for none
	VIFType   string   `json:"vif_type"`
	PluggedOn []string `json:"plugged_on"` // hosts
}

// Finding is something that is wrong.
type Finding struct {
	What string `json:"what"`
	Mend string `json:"mend,omitempty"` // what would mend it
}

// witness is what an explanation asks about switches, hosts and the configuration.
type witness interface {
	hosts
	// interfaces are those that the database of a host has with the id of a port.
	interfaces(host, portID string) []network.InterfaceReport
	// wireMTU is the least MTU of the wires of a mapped bridge, and which has it; 0 when it is not known.
	wireMTU(host, bridge string) (mtu int, wire string)
	// maxMTU is the largest that the configuration leaves networks of a type.
	maxMTU(networkType string) int
	// silentNextHop reports whether an address on an external network was asked
	// for as a next hop, from a host, and did not answer.
	silentNextHop(host, networkID string, ip netip.Addr) bool
}

// interfaces implements witness.
func (c *Controller) interfaces(host, portID string) []network.InterfaceReport {
	if c.health.watch == nil {
		return nil
	}
	return c.health.watch.Interfaces(host, portID)
}

// wireMTU implements witness.
func (c *Controller) wireMTU(host, bridge string) (mtu int, wire string) {
	if c.health.watch == nil {
		return 0, ""
	}
	return c.health.watch.WireMTU(host, bridge)
}

// maxMTU implements witness.
func (c *Controller) maxMTU(networkType string) int { return c.opt.Store.MaxMTU(networkType) }

// Explain tells about the resource with an id, a name, an address or a MAC; kind
// is that of Resource, or "" for any. What only the owners of hosts know it asks
// them. The error says that there is none, or
// which several there are.
func (c *Controller) Explain(ctx context.Context, kind, name string, elsewhere Elsewhere) (*Explanation, error) {
	view := c.view.Load()
	if view == nil {
		return nil, network.Errorf(network.Unavailable, "NotReady", "the model is not read yet")
	}
	found, err := findResource(view, kind, name)
	if err != nil {
		return nil, err
	}
	var e *Explanation
	read := sync.OnceValue(func() portDrops { return c.dropsOf(ctx, view, view.Port(found.ID)) })
	c.witnessing(ctx, elsewhere, func(w *elsewhereWitness) {
		e = explainResource(view, found, w)
		if found.Kind != kindPort {
			return
		}
		port := view.Port(found.ID)
		dropped := w.drops(view, port, read)
		e.Drops = dropped.drops
		for _, f := range [][]Finding{forgedBy(port, dropped.forged), droppedFor(view, port, e.Drops)} {
			e.found(f...)
		}
	})
	return e, nil
}

// explainResource tells about a resource by the model and by what is known of hosts.
func explainResource(v *network.View, r Resource, w witness) *Explanation {
	switch r.Kind {
	case kindNetwork:
		return explainNetwork(v, v.Network(r.ID), w)
	case kindSubnet:
		return explainSubnet(v, v.Subnet(r.ID))
	case kindRouter:
		return explainRouter(v, v.Router(r.ID), w)
	case kindFloatingIP:
		return explainFloatingIP(v, v.FloatingIP(r.ID), w)
	case kindGroup:
		return explainGroup(v, v.SecurityGroup(r.ID))
	case kindHost:
		return explainHost(v, v.Host(r.ID), w)
	}
	return explainPort(v, v.Port(r.ID), w)
}

func newExplanation(r Resource) *Explanation {
	return &Explanation{Resource: r, About: []string{}, Findings: []Finding{}}
}

func (e *Explanation) about(format string, args ...any) {
	e.About = append(e.About, fmt.Sprintf(format, args...))
}

func (e *Explanation) find(what, mend string) { e.found(Finding{what, mend}) }

// found adds what is not said already.
func (e *Explanation) found(all ...Finding) {
	for _, f := range all {
		if !slices.Contains(e.Findings, f) {
			e.Findings = append(e.Findings, f)
		}
	}
}

// called names a resource in a sentence.
func called(name, id string) string { return strings.TrimSpace(name + " " + id) }

// maxNamed is how many of many a sentence names.
const maxNamed = 5

// some names a few: "web, db and 3 more".
func some(names []string) string {
	slices.Sort(names)
	if len(names) <= maxNamed {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:maxNamed], ", "), len(names)-maxNamed)
}

func portName(p *network.Port) string { return cmp.Or(p.Name, p.ID) }
