package controller

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"planck/network"
	"planck/pipeline"
)

// Fact is something of a host that an explanation asks for. What is not of its
// kind is empty.
type Fact struct {
	Ask       string     `json:"ask"`
	Host      string     `json:"host"`
	PortID    string     `json:"port_id,omitempty"`
	PortKey   uint32     `json:"port_key,omitempty"`
	NetworkID string     `json:"network_id,omitempty"`
	Bridge    string     `json:"bridge,omitempty"`
	IP        netip.Addr `json:"ip,omitzero"`
}

// FactAnswer is what is known of a fact; its kind says which fields count.
type FactAnswer struct {
	Yes        bool                      `json:"yes,omitempty"`
	Number     int                       `json:"number,omitempty"`
	Text       string                    `json:"text,omitempty"`
	At         time.Time                 `json:"at,omitzero"`
	Interfaces []network.InterfaceReport `json:"interfaces,omitempty"`
	Drops      []Dropped                 `json:"drops,omitempty"`
	// Forged, ForgedRecent and ForgedWhy are what forged has.
	Forged       uint64   `json:"forged,omitempty"`
	ForgedRecent *uint64  `json:"forged_recent,omitempty"`
	ForgedWhy    []string `json:"forged_why,omitempty"`
}

// Kinds of facts: the methods of a witness, and the drops of a port.
const (
	factLive       = "live"
	factReports    = "reports"
	factSilenced   = "silenced"
	factRefused    = "refused"
	factInterfaces = "interfaces"
	factWire       = "wire"
	factNextHop    = "next hop"
	factDrops      = "drops"
)

// Elsewhere asks the owners of hosts for facts, and leaves out what it gets no
// answer to. It is nil where what is known here shall do.
type Elsewhere func(ctx context.Context, facts []Fact) map[Fact]FactAnswer

// Facts answers what the controller of another part of the hosts asks, one
// answer for each fact.
func (c *Controller) Facts(ctx context.Context, facts []Fact) []FactAnswer {
	answers := make([]FactAnswer, len(facts))
	v := c.view.Load()
	if v == nil {
		return answers
	}
	for i, f := range facts {
		answers[i] = c.fact(ctx, v, f)
	}
	return answers
}

func (c *Controller) fact(ctx context.Context, v *network.View, f Fact) (a FactAnswer) {
	switch f.Ask {
	case factLive:
		a.Yes = c.hostLive(f.Host)
	case factReports:
		a.Yes = c.reports(f.Host)
	case factSilenced:
		if s := c.silenced(f.Host, f.PortKey); s != nil {
			a.Yes, a.Number, a.At = true, int(s.feature), s.at
		}
	case factRefused:
		h, n := v.Host(f.Host), v.Network(f.NetworkID)
		if h == nil || n == nil {
			return a
		}
		if err := c.hostRefused(h, n, f.PortKey); err != nil {
			a.Text = err.Error()
		}
	case factInterfaces:
		a.Interfaces = c.interfaces(f.Host, f.PortID)
	case factWire:
		a.Number, a.Text = c.wireMTU(f.Host, f.Bridge)
	case factNextHop:
		a.Yes = c.silentNextHop(f.Host, f.NetworkID, f.IP)
	case factDrops:
		if p := v.Port(f.PortID); p != nil {
			d := c.dropsOf(ctx, v, p)
			a.Drops, a.Forged, a.ForgedRecent, a.ForgedWhy = d.drops, d.packets, d.recent, d.why
		}
	}
	return a
}

// elsewhereWitness is a witness that knows of hosts of other controllers what
// these answered. What it was asked besides is open.
type elsewhereWitness struct {
	*Controller
	known map[Fact]FactAnswer
	mute  map[Fact]bool // that nobody answered
	open  []Fact
}

// maxFactRounds bounds how often others are asked: an answer leads to other questions.
const maxFactRounds = 5

// witnessing calls look with a witness, again when others have answered what it
// asked for; the last time counts.
func (c *Controller) witnessing(ctx context.Context, elsewhere Elsewhere, look func(*elsewhereWitness)) {
	w := &elsewhereWitness{Controller: c, known: map[Fact]FactAnswer{}, mute: map[Fact]bool{}}
	for round := 0; ; round++ {
		w.open = nil
		look(w)
		if len(w.open) == 0 || elsewhere == nil || round == maxFactRounds {
			return
		}
		answers := elsewhere(ctx, w.open)
		for _, f := range w.open {
			a, answered := answers[f]
			if w.mute[f] = !answered; answered {
				w.known[f] = a
			}
		}
	}
}

// ask is what the owner of a host says; own is that this controller is it, or
// must do with what it knows itself: that is nothing of what an owner alone knows.
func (w *elsewhereWitness) ask(f Fact) (a FactAnswer, own bool) {
	a, known := w.known[f]
	if known || w.owns(f.Host) {
		return a, !known
	}
	if !w.mute[f] && !slices.Contains(w.open, f) {
		w.open = append(w.open, f)
	}
	return a, true
}

// hostLive implements hosts.
func (w *elsewhereWitness) hostLive(name string) bool {
	if a, own := w.ask(Fact{Ask: factLive, Host: name}); !own {
		return a.Yes
	}
	return w.Controller.hostLive(name)
}

// reports implements hosts.
func (w *elsewhereWitness) reports(name string) bool {
	if a, own := w.ask(Fact{Ask: factReports, Host: name}); !own {
		return a.Yes
	}
	return w.Controller.reports(name)
}

// silenced implements hosts.
func (w *elsewhereWitness) silenced(host string, portKey uint32) *silence {
	a, _ := w.ask(Fact{Ask: factSilenced, Host: host, PortKey: portKey})
	switch {
	case w.owns(host):
		return w.Controller.silenced(host, portKey)
	case a.Yes:
		return &silence{feature: pipeline.FeatureID(a.Number), at: a.At.Local()}
	}
	return nil
}

// hostRefused implements hosts.
func (w *elsewhereWitness) hostRefused(h *network.Host, n *network.Network, portKey uint32) error {
	a, _ := w.ask(Fact{Ask: factRefused, Host: h.Name, NetworkID: n.ID, PortKey: portKey})
	switch {
	case w.owns(h.Name):
		return w.Controller.hostRefused(h, n, portKey)
	case a.Text != "":
		return errors.New(a.Text)
	}
	return nil
}

// interfaces implements witness.
func (w *elsewhereWitness) interfaces(host, portID string) []network.InterfaceReport {
	if a, own := w.ask(Fact{Ask: factInterfaces, Host: host, PortID: portID}); !own {
		return a.Interfaces
	}
	return w.Controller.interfaces(host, portID)
}

// wireMTU implements witness.
func (w *elsewhereWitness) wireMTU(host, bridge string) (mtu int, wire string) {
	if a, own := w.ask(Fact{Ask: factWire, Host: host, Bridge: bridge}); !own {
		return a.Number, a.Text
	}
	return w.Controller.wireMTU(host, bridge)
}

// silentNextHop implements witness.
func (w *elsewhereWitness) silentNextHop(host, networkID string, ip netip.Addr) bool {
	a, _ := w.ask(Fact{Ask: factNextHop, Host: host, NetworkID: networkID, IP: ip})
	if w.owns(host) {
		return w.Controller.silentNextHop(host, networkID, ip)
	}
	return a.Yes
}

// drops are those of a port, as they are read from the switch where this
// controller is connected to it, or else by the owner of its host.
func (w *elsewhereWitness) drops(v *network.View, p *network.Port, read func() portDrops) portDrops {
	host := v.WiredHost(p)
	if host == "" || w.Controller.hostLive(host) {
		return read()
	}
	a, _ := w.ask(Fact{Ask: factDrops, Host: host, PortID: p.ID})
	return portDrops{a.Drops, forged{a.Forged, a.ForgedRecent, a.ForgedWhy}}
}
