package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"planck/flows"
	"planck/network"
	"planck/pipeline"
	"planck/trace"
)

// TraceQuery asks for the way of a packet.
type TraceQuery struct {
	From, To string // id or name of a port, or an address
	Protocol string // tcp, udp, sctp, icmp or a number; "" for icmp
	SrcPort  uint16 // 0 for one like those of clients
	DstPort  uint16 // or the type of ICMP, for which 0 is a request
	// Size is that of the IP packet in bytes; 0 for that of a ping.
	Size uint16
	// Installed follows the flows that the switches have, instead of those that
	// the model wants.
	Installed bool
}

// TraceRecord is a packet's way as `planck trace` shows it.
type TraceRecord struct {
	Verdict  string     `json:"verdict"` // delivered, answered, outside, punted, local, dropped or lost
	Summary  string     `json:"summary"` // the same in words, with who and why
	Packet   string     `json:"packet"`
	Hops     []TraceHop `json:"hops"`
	Findings []Finding  `json:"findings"` // what is wrong with the ports at both ends, where it was not delivered
	Revision uint64     `json:"revision"`
}

// TraceHop is the way through one bridge.
type TraceHop struct {
	Host   string      `json:"host"`
	Bridge string      `json:"bridge"`
	Via    string      `json:"via"`  // vif, patch, tunnel or wire
	From   string      `json:"from"` // host or bridge that it comes from
	Packet string      `json:"packet"`
	Steps  []TraceStep `json:"steps"`
}

// TraceStep is a look-up in a table.
type TraceStep struct {
	Table     uint8    `json:"table"`
	TableName string   `json:"table_name"`
	Text      string   `json:"text"` // what the flow stands for, or what happens when none matches
	Feature   string   `json:"feature,omitempty"`
	Resource  Resource `json:"resource"`
	Flow      string   `json:"flow,omitempty"` // as ovs-ofctl writes it
}

const (
	verdictAnswered = "answered"
	clientPort      = 49152 // the first of the dynamic ones, RFC 6335
	pingSize        = 84    // of Linux' ping, by IPv4
	icmpEcho        = 8
	maxICMPType     = 255
	icmpv6Echo      = 128
	icmpv6EchoReply = 129
	ethernetHeader  = 14
)

// Trace follows a packet through the flows of all hosts. What is wrong at its ends
// the owners of hosts are asked for. Errors are a
// *network.Error that says what about the query can't be, or which switch could not be read.
func (c *Controller) Trace(ctx context.Context, q TraceQuery, elsewhere Elsewhere) (*TraceRecord, error) {
	view := c.view.Load()
	if view == nil {
		return nil, network.Errorf(network.Unavailable, "NotReady", "the model is not read yet")
	}
	question, to, err := traced(view, q)
	if err != nil {
		return nil, err
	}
	first, err := trace.Begin(view, question)
	if err != nil {
		return nil, network.Errorf(network.Invalid, "TraceInvalid", "%s", err)
	}
	tables := c.desiredTables
	if q.Installed {
		select {
		case c.reads <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		defer func() { <-c.reads }()
		tables = c.installedTables(ctx)
	}
	result, err := trace.Run(view, tables, first, cmp.Or(q.Size, pingSize)+ethernetHeader)
	if errors.Is(err, trace.ErrCircles) || errors.Is(err, flows.ErrLoop) {
		result.Ends, err = []trace.End{{How: trace.Lost, Why: circle(result, err)}}, nil
	}
	if err != nil {
		return nil, asNetworkError(err)
	}
	var record *TraceRecord
	c.witnessing(ctx, elsewhere, func(w *elsewhereWitness) {
		t := tracer{view, question, to, w}
		record = t.explained(result)
		record.Packet = t.question(first.Src)
	})
	record.Findings = append(record.Findings, tooLong(view, question.From, q.Size)...)
	return record, nil
}

// circle says where a packet goes in circles, and keeps of its way what is new.
func circle(result *trace.Result, err error) string {
	places, fresh := result.Places()
	result.Hops = result.Hops[:fresh]
	return fmt.Sprintf("%s, over %s", err, strings.Join(places, ", "))
}

func asNetworkError(err error) error {
	if _, ok := err.(*network.Error); ok {
		return err
	}
	return network.Errorf(network.Conflict, "TraceFailed", "%s", err)
}

func (c *Controller) desiredTables(host, bridge string) (set *flows.Set, err error) {
	c.opt.Compiler.Read(pipeline.Target{Host: host, Bridge: bridge}, func(s pipeline.State) {
		set = &flows.Set{Flows: maps.Clone(s.Desired.Flows), Groups: maps.Clone(s.Desired.Groups)}
	})
	return set, nil
}

// installedTables reads each bridge from its switch.
func (c *Controller) installedTables(ctx context.Context) trace.Tables {
	return func(host, bridge string) (set *flows.Set, err error) {
		var s *session
		if t := c.bridge(host, bridge); t != nil {
			s = t.readable()
		}
		if s == nil {
			return nil, network.Errorf(network.Unavailable, "BridgeNotConnected", "host %q bridge %q is not connected", host, bridge)
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		d, err := s.dump()
		if err != nil {
			return nil, network.Errorf(network.Unavailable, "BridgeNotRead", "host %q bridge %q: %s", host, bridge, err)
		}
		set = flows.NewSet()
		for i := range d.flows {
			set.AddFlow(&d.flows[i].Flow)
		}
		for i := range d.groups {
			set.AddGroup(&d.groups[i])
		}
		return set, nil
	}
}

// traced finds what a query names.
func traced(v *network.View, q TraceQuery) (trace.Question, *network.Port, error) {
	var question trace.Question
	from, src, err := tracedSender(v, q.From)
	if err != nil {
		return question, nil, err
	}
	var to *network.Port
	dst, err := netip.ParseAddr(q.To)
	if err != nil {
		if to, err = findPort(v, q.To); err != nil {
			return question, nil, err
		}
		if dst = addressOf(to, from, src); !dst.IsValid() {
			return question, nil, network.Errorf(network.Invalid, "TraceInvalid", "port %s has no address of the family of the sender's", to.ID)
		}
	}
	if dst.IsUnspecified() || dst.IsLoopback() {
		return question, nil, network.Errorf(network.Invalid, "TraceInvalid", "%s leads to no other machine", dst)
	}
	question = trace.Question{From: from, Src: src, Dst: dst, SrcPort: cmp.Or(q.SrcPort, clientPort), DstPort: q.DstPort}
	if question.Protocol, err = protocolNumber(q.Protocol, dst.Is4()); err != nil {
		return question, nil, err
	}
	switch question.Protocol {
	case trace.TCP, trace.UDP, trace.SCTP:
		if q.DstPort == 0 {
			return question, nil, network.Errorf(network.Invalid, "TraceInvalid", "%s needs a destination port", q.Protocol)
		}
	case trace.ICMP:
		question.DstPort = cmp.Or(q.DstPort, icmpEcho)
	case trace.ICMPv6:
		question.DstPort = cmp.Or(q.DstPort, icmpv6Echo)
	default:
		if q.DstPort != 0 {
			return question, nil, network.Errorf(network.Invalid, "TraceInvalid", "protocol %s has no ports", q.Protocol)
		}
	}
	if icmp := question.Protocol == trace.ICMP || question.Protocol == trace.ICMPv6; icmp && question.DstPort > maxICMPType {
		return question, nil, network.Errorf(network.Invalid, "TraceInvalid", "ICMP has no type %d: 0 to %d", question.DstPort, maxICMPType)
	}
	return question, to, nil
}

// tooLong says that a machine has to split the packet before it sends it.
func tooLong(v *network.View, from *network.Port, size uint16) []Finding {
	if from == nil {
		return nil
	}
	n := v.Network(from.NetworkID)
	if n == nil || int(size) <= n.MTU {
		return nil
	}
	return []Finding{{
		fmt.Sprintf("%d bytes are more than the MTU of network %s, which is %d", size, cmp.Or(n.Name, n.ID), n.MTU),
		"a machine that has this MTU sends them in fragments; give it the MTU by DHCP",
	}}
}

// tracedSender is a port by id or name, or an address and the one port that has it,
// nil where there is none.
func tracedSender(v *network.View, name string) (*network.Port, netip.Addr, error) {
	ip, err := netip.ParseAddr(name)
	if err != nil {
		p, err := findPort(v, name)
		return p, netip.Addr{}, err
	}
	var found []*network.Port
	for p := range v.Ports() {
		if !p.Service() && slices.ContainsFunc(p.FixedIPs, func(f network.FixedIP) bool { return f.IP == ip }) {
			found = append(found, p)
		}
	}
	switch len(found) {
	case 0:
		return nil, ip, nil
	case 1:
		return found[0], ip, nil
	}
	ids := make([]string, len(found))
	for i, p := range found {
		ids[i] = called(p.Name, p.ID) + distinguished(v, Resource{kindPort, p.ID, p.Name})
	}
	slices.Sort(ids)
	return nil, ip, network.Errorf(network.Conflict, "AddressNotUnique", "several ports have the address %s, name one by its id: %s", ip, strings.Join(ids, "; "))
}

// addressOf is the address of a port that a sender would use: one of a
// network or at least a family that it has.
func addressOf(to, from *network.Port, src netip.Addr) (best netip.Addr) {
	has := func(like netip.Addr) bool {
		if from == nil {
			return src.Is4() == like.Is4()
		}
		return slices.ContainsFunc(from.FixedIPs, func(f network.FixedIP) bool {
			return f.IP.Is4() == like.Is4() && (!src.IsValid() || src.Is4() == like.Is4())
		})
	}
	for _, f := range to.FixedIPs {
		if has(f.IP) && (!best.IsValid() || f.IP.Is4() && !best.Is4()) {
			best = f.IP
		}
	}
	return best
}

var protocolNumbers = map[string]uint8{
	"tcp": trace.TCP, "udp": trace.UDP, "sctp": trace.SCTP, "icmp": trace.ICMP, "icmpv6": trace.ICMPv6, "ipv6-icmp": trace.ICMPv6,
}

func protocolNumber(name string, v4 bool) (uint8, error) {
	if name == "" || name == "icmp" {
		if v4 {
			return trace.ICMP, nil
		}
		return trace.ICMPv6, nil
	}
	if n, ok := protocolNumbers[strings.ToLower(name)]; ok {
		if n == trace.ICMPv6 && v4 {
			return 0, network.Errorf(network.Invalid, "TraceInvalid", "%s does not go over IPv4", name)
		}
		return n, nil
	}
	n, err := strconv.ParseUint(name, 10, 8)
	if err != nil {
		return 0, network.Errorf(network.Invalid, "TraceInvalid", "%q is no protocol: tcp, udp, sctp, icmp or a number", name)
	}
	return uint8(n), nil
}
