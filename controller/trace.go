package controller

import (
	"cmp"
	"context"
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
	icmpv6Echo      = 128
	icmpv6EchoReply = 129
	ethernetHeader  = 14
)

// Trace follows a packet through the flows of all hosts. Errors are a
// *network.Error that says what about the query can't be, or which switch could not be read.
func (c *Controller) Trace(ctx context.Context, q TraceQuery) (*TraceRecord, error) {
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
	if err != nil {
		return nil, asNetworkError(err)
	}
	t := tracer{view, question, to}
	record := t.record(result)
	record.Packet = t.question(first.Src)
	if record.Verdict != trace.Delivered && record.Verdict != verdictAnswered {
		for _, p := range []*network.Port{question.From, to} {
			if p != nil {
				record.Findings = append(record.Findings, explainPort(view, p, c).Findings...)
			}
		}
	}
	return record, nil
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
	}
	return question, to, nil
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
		ids[i] = p.ID
	}
	slices.Sort(ids)
	return nil, ip, network.Errorf(network.Conflict, "AddressNotUnique", "several ports have the address %s: name one of %s", ip, strings.Join(ids, ", "))
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
		return n, nil
	}
	n, err := strconv.ParseUint(name, 10, 8)
	if err != nil {
		return 0, network.Errorf(network.Invalid, "TraceInvalid", "%q is no protocol: tcp, udp, sctp, icmp or a number", name)
	}
	return uint8(n), nil
}

// tracer puts a packet's way into words.
type tracer struct {
	view  *network.View
	asked trace.Question
	to    *network.Port // that the packet shall reach, nil for an address
}

func (t *tracer) record(result *trace.Result) *TraceRecord {
	r := &TraceRecord{Hops: []TraceHop{}, Findings: []Finding{}, Revision: t.view.Revision()}
	for _, h := range result.Hops {
		hop := TraceHop{h.Host, h.Bridge, string(h.Via), h.From, packetText(&h.Packet), []TraceStep{}}
		for _, s := range h.Steps {
			hop.Steps = append(hop.Steps, t.step(h.Bridge, s))
		}
		r.Hops = append(r.Hops, hop)
	}
	end := t.best(result.Ends)
	r.Verdict, r.Summary = t.verdict(&end, result)
	return r
}

func (t *tracer) step(bridge string, s flows.Step) TraceStep {
	step := TraceStep{Table: s.Table, TableName: pipeline.TableName(bridge, s.Table)}
	if s.Flow == nil {
		step.Text = "nothing matches: " + cmp.Or(pipeline.TableMiss(bridge, s.Table), "drop")
		return step
	}
	step.Flow = s.Flow.String()
	cookie := pipeline.Cookie(s.Flow.Cookie)
	if cookie.Ours() {
		step.Feature, step.Resource = pipeline.FeatureName(cookie.Feature()), resourceOf(t.view, cookie)
		step.Text = step.Feature
	} else {
		step.Text = "not ours"
	}
	if step.Resource.Kind != "" {
		step.Text += " of " + t.resource(step.Resource)
	}
	if reason, ok := pipeline.ReasonOf(s.Flow); ok {
		step.Text += ": dropped, " + pipeline.DropReasons[reason]
	}
	return step
}

// resource names what a flow stands for: a port of a router by its router.
func (t *tracer) resource(r Resource) string {
	p := t.view.Port(r.ID)
	if r.Kind != "port" || p == nil || !p.Service() || len(p.FixedIPs) == 0 {
		return strings.ReplaceAll(r.Kind, "_", " ") + " " + cmp.Or(r.Name, r.ID)
	}
	if router := t.view.Router(p.DeviceID); router != nil {
		return fmt.Sprintf("router %s, its address %s", cmp.Or(router.Name, router.ID), p.FixedIPs[0].IP)
	}
	return fmt.Sprintf("%s %s", p.DeviceOwner, p.FixedIPs[0].IP)
}

// best is the end that says most: where copies ended differently, the farthest.
func (t *tracer) best(ends []trace.End) trace.End {
	order := []string{trace.Delivered, trace.Outside, trace.Local, trace.Punted, trace.Dropped, trace.Lost}
	rank := func(e trace.End) int {
		if e.How == trace.Delivered && t.to != nil && e.Port.ID == t.to.ID {
			return -1
		}
		return slices.Index(order, e.How)
	}
	if len(ends) == 0 {
		return trace.End{How: trace.Lost, Why: "nobody takes it from the wire"}
	}
	return slices.MinFunc(ends, func(a, b trace.End) int { return cmp.Compare(rank(a), rank(b)) })
}

func (t *tracer) verdict(e *trace.End, result *trace.Result) (verdict, summary string) {
	as := ", as " + packetText(&e.Packet)
	switch e.How {
	case trace.Delivered:
		if t.asked.From != nil && e.Port.ID == t.asked.From.ID && repliesToPing(&e.Packet) {
			return verdictAnswered, fmt.Sprintf("answered on host %s, by %s, for %s", e.Host, t.lastFeature(result), t.asked.Dst)
		}
		summary = fmt.Sprintf("delivered to port %s on host %s%s", t.title(e.Port), e.Host, as)
		if t.to != nil && t.to.ID != e.Port.ID {
			summary += fmt.Sprintf(": not to port %s", t.title(t.to))
		}
		return e.How, summary
	case trace.Outside:
		return e.How, fmt.Sprintf("leaves host %s by %s to the physical network %s%s, for the MAC %s", e.Host, e.Bridge, e.Physical, as, network.MAC(e.Packet.MAC(flows.EthDst)))
	case trace.Punted:
		return e.How, fmt.Sprintf("goes to the controller from table %s of host %s: %s answers", pipeline.TableName(e.Bridge, e.Table), e.Host, t.lastFeature(result))
	case trace.Local:
		return e.How, fmt.Sprintf("delivered to host %s itself (LOCAL of %s)%s", e.Host, e.Bridge, as)
	case trace.Dropped:
		return e.How, t.dropped(e, result)
	}
	return e.How, "lost: " + e.Why
}

// repliesToPing: what else comes back to its sender is that by its own floating IP.
func repliesToPing(p *flows.Packet) bool {
	switch p.Get(flows.IPProto).Lo {
	case trace.ICMP:
		return p.Get(flows.ICMPType).Lo == 0
	case trace.ICMPv6:
		return p.Get(flows.ICMPv6Type).Lo == icmpv6EchoReply
	}
	return false
}

// lastFeature is the feature of the last flow that the packet met.
func (t *tracer) lastFeature(result *trace.Result) string {
	for _, h := range slices.Backward(result.Hops) {
		for _, s := range slices.Backward(h.Steps) {
			if s.Flow != nil && pipeline.Cookie(s.Flow.Cookie).Ours() {
				return t.step(h.Bridge, s).Text
			}
		}
	}
	return "the switch"
}

// dropped says by what and why a packet is dropped, in Neutron's words.
func (t *tracer) dropped(e *trace.End, result *trace.Result) string {
	at := fmt.Sprintf("dropped on host %s in table %s of %s", e.Host, pipeline.TableName(e.Bridge, e.Table), e.Bridge)
	for _, h := range slices.Backward(result.Hops) {
		if h.Host != e.Host || h.Bridge != e.Bridge {
			continue
		}
		for _, s := range slices.Backward(h.Steps) {
			if s.Flow == nil {
				continue
			}
			if reason, ok := pipeline.ReasonOf(s.Flow); ok {
				return t.droppedFor(e, reason, t.step(h.Bridge, s), &h.Packet)
			}
		}
	}
	if e.Flow == nil {
		return at + ": nothing matches there"
	}
	return at + " by " + e.Flow.String()
}

func (t *tracer) droppedFor(e *trace.End, reason pipeline.DropReason, s TraceStep, p *flows.Packet) string {
	at := fmt.Sprintf("dropped on host %s in %s: %s", e.Host, s.TableName, pipeline.DropReasons[reason])
	if s.Resource.Kind != "port" {
		return at
	}
	port := t.view.Port(s.Resource.ID)
	if port == nil {
		return at
	}
	switch reason {
	case pipeline.DropIngressRules:
		return fmt.Sprintf("dropped on host %s by %s: no rule allows %s from %s in", e.Host, t.groupsOf(port), t.service(), p.IP(sourceField(p)))
	case pipeline.DropEgressRules:
		return fmt.Sprintf("dropped on host %s by %s: no rule allows %s to %s out", e.Host, t.groupsOf(port), t.service(), t.asked.Dst)
	}
	return at + ", port " + t.title(port)
}

func sourceField(p *flows.Packet) flows.Field {
	if p.IP(flows.IPv4Src).IsValid() {
		return flows.IPv4Src
	}
	return flows.IPv6Src
}

// groupsOf names the security groups of a port, and the port.
func (t *tracer) groupsOf(p *network.Port) string {
	groups := groupsInWords(t.view, p)
	if groups == "" {
		return "port " + t.title(p) + ", which has no security group"
	}
	return groups + " of port " + t.title(p)
}

// service is what is asked for: tcp/80, icmp type 8, protocol 47.
func (t *tracer) service() string {
	name := strconv.Itoa(int(t.asked.Protocol))
	for n, number := range protocolNumbers {
		if number == t.asked.Protocol && n != "ipv6-icmp" {
			name = n
		}
	}
	switch t.asked.Protocol {
	case trace.TCP, trace.UDP, trace.SCTP:
		return fmt.Sprintf("%s/%d", name, t.asked.DstPort)
	case trace.ICMP, trace.ICMPv6:
		return fmt.Sprintf("%s type %d", name, t.asked.DstPort)
	}
	return "protocol " + name
}

func (t *tracer) question(src netip.Addr) string {
	sender := "outside"
	if t.asked.From != nil {
		sender = "port " + t.title(t.asked.From)
	}
	return fmt.Sprintf("%s from %s to %s, sent by %s", t.service(), src, t.asked.Dst, sender)
}

func (t *tracer) title(p *network.Port) string { return cmp.Or(p.Name, p.ID) }

// packetText is the addresses of a packet: "10.0.0.5 → 10.0.0.6 (fa:16:… → fa:16:…, VLAN 5)".
func packetText(p *flows.Packet) string {
	src, dst := p.IP(flows.IPv4Src), p.IP(flows.IPv4Dst)
	if !src.IsValid() {
		src, dst = p.IP(flows.IPv6Src), p.IP(flows.IPv6Dst)
	}
	ends := fmt.Sprintf("%s → %s", src, dst)
	if !src.IsValid() && !dst.IsValid() {
		ends = fmt.Sprintf("EtherType %#04x", p.Get(flows.EthType).Lo)
	}
	text := fmt.Sprintf("%s (%s → %s", ends, network.MAC(p.MAC(flows.EthSrc)), network.MAC(p.MAC(flows.EthDst)))
	if tag := p.Get(flows.VLANVID).Lo; tag != 0 {
		text += fmt.Sprintf(", VLAN %d", tag&^flows.VLANPresent)
	}
	if id := p.Get(flows.TunnelID).Lo; id != 0 {
		text += fmt.Sprintf(", key %d", id)
	}
	return text + ")"
}
