// Package verify proves what holds for all packets that a machine may send, by
// the flows of all hosts: that none crosses from one network to another where no
// router connects them, that none is sent from an address that is not its port's,
// that none goes round in a loop, that each port reaches its gateway and its DHCP
// server, and that no flow is in vain. It sends nothing and does no I/O.
//
// It follows sets of packets, not packets: docs/architecture.md says how. What it
// finds against a property it makes a packet of, and follows that by itself as
// planck trace does: there are no false alarms.
package verify

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"planck/flows"
	"planck/network"
	"planck/trace"
)

// Layout is what must be known of the pipelines.
type Layout struct {
	PortSecurity, Route, Dropped uint8 // tables of br-int
	// Merge is, for tables of br-int, what tells packets apart that fare alike from
	// there on, by and large: who sent them.
	Merge map[uint8][]flows.Field
	// Refused reports whether a flow drops what no security group allows.
	Refused func(*flows.Flow) bool
}

// Input is what is verified.
type Input struct {
	// Context ends it early.
	Context context.Context
	// MostStates bounds the sets of packets that are looked at; 0 for no bound.
	MostStates int
	View       *network.View
	Tables     trace.Tables
	// Desired is what the model wants, nil where Tables is just that.
	Desired trace.Tables
	// Permitted reports whether a switch may have a flow that it need not have.
	Permitted func(host, bridge string, f *flows.Flow) bool
	Layout    Layout
}

// Kind says which property a finding is against.
type Kind string

// The properties.
const (
	Crossing Kind = "crossing" // a packet gets to a port of a network that is not its sender's
	Spoofed  Kind = "spoofed"  // a port sends from an address that is not its own
	Loop     Kind = "loop"     // a packet goes in circles
	Gateway  Kind = "gateway"  // a port does not reach its gateway
	DHCP     Kind = "dhcp"     // a port does not reach the DHCP server
	InVain   Kind = "in vain"  // a flow that no packet meets
)

// Flow is a flow of a bridge. Missing says that the model wants it and the switch has it not.
type Flow struct {
	Host, Bridge string
	Flow         *flows.Flow
	Missing      bool
}

// Finding is a counterexample.
type Finding struct {
	Kind  Kind
	Text  string
	From  *network.Port // that sends the packet; nil where there is none
	To    *network.Port // that gets it
	Blame *Flow         // nil where no flow is known to be at fault
	By    *Flow         // that takes all packets of Blame, of InVain
	Sent  flows.Packet
	Way   *trace.Result // of the packet
	Like  int           // how many more pairs of ports, or ports, the same flow is the fault of; or flows in vain for the same reason
}

// Report is what was proven, and what not.
type Report struct {
	Findings []Finding
	// Unproven says what could be neither proven nor refuted.
	Unproven []string
	// Hosts, Ports and Flows are how many of them were looked at; States how many
	// sets of packets.
	Hosts, Ports, Flows, States int
	// InReserve is how many flows the model wants that no packet meets now.
	InReserve int
}

// Run verifies. The error says which tables could not be read.
func Run(in Input) (*Report, error) {
	v := &verifier{Input: in, report: &Report{}}
	fabric, err := newFabric(in.View, in.Tables)
	if err != nil {
		return nil, err
	}
	v.fabric, v.packets = fabric, trace.NewFabric(in.View, in.Tables, packetLength)
	if err := v.readDesired(); err != nil {
		return nil, err
	}
	v.report.Hosts = len(fabric.hosts)
	if v.explored, err = v.explore(fabric); err != nil {
		return nil, err
	}
	v.report.States = len(v.explored.nodes)
	v.crossings()
	v.loops()
	if err := v.ports(); err != nil {
		return nil, err
	}
	v.flowsInVain()
	order := []Kind{Crossing, Spoofed, Loop, Gateway, DHCP, InVain}
	slices.SortStableFunc(v.report.Findings, func(a, b Finding) int {
		return cmp.Compare(slices.Index(order, a.Kind), slices.Index(order, b.Kind))
	})
	return v.report, nil
}

// packetLength is that of all packets that are made up, with the Ethernet header.
const packetLength = 98

type verifier struct {
	Input
	fabric, wanted *fabric
	packets, sound *trace.Fabric // follow a packet by Tables and by Desired
	explored       *graph
	report         *Report
}

// readDesired reads what the model wants, if that is something else.
func (v *verifier) readDesired() (err error) {
	if v.Desired == nil {
		return nil
	}
	v.sound = trace.NewFabric(v.View, v.Desired, packetLength)
	v.wanted, err = newFabric(v.View, v.Desired)
	return err
}

// isWanted reports whether the model wants a flow, or permits it.
func (v *verifier) isWanted(b *bridge, f *flows.Flow) bool {
	if v.wanted == nil {
		return true
	}
	w := v.wanted.at[b.place]
	if w != nil && w.set.Flows[f.Key()] != nil && w.set.Flows[f.Key()].Instructions == f.Instructions {
		return true
	}
	return v.Permitted != nil && v.Permitted(b.host, b.bridge, f)
}

func (v *verifier) unproven(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if !slices.Contains(v.report.Unproven, text) {
		v.report.Unproven = append(v.report.Unproven, text)
	}
}

// where names a flow's place.
func where(b *bridge, f *flows.Flow) *Flow { return &Flow{Host: b.host, Bridge: b.bridge, Flow: f} }
