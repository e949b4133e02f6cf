package controller

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"planck/flows"
	"planck/network"
	"planck/pipeline"
	"planck/trace"
)

// tracer puts a packet's way into words.
type tracer struct {
	view  *network.View
	asked trace.Question
	to    *network.Port // that the packet shall reach, nil for an address
	of    witness       // nil for none
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
	if other := t.instead(&end); other != nil {
		r.Summary += fmt.Sprintf(": to this sender %s is port %s, and not port %s of network %s", t.asked.Dst, t.title(other), t.title(t.to), t.network(t.to.NetworkID))
		if r.Verdict == trace.Delivered {
			r.Verdict = trace.Lost
		}
	}
	return r
}

// explained also says what is wrong with the ports at both ends, where the packet
// does not arrive.
func (t *tracer) explained(result *trace.Result) *TraceRecord {
	r := t.record(result)
	r.Findings = append(r.Findings, t.doubtful(result)...)
	if r.Verdict == trace.Delivered || r.Verdict == verdictAnswered {
		return r
	}
	for _, p := range []*network.Port{t.asked.From, t.to} {
		if p == nil {
			continue
		}
		for _, f := range explainPort(t.view, p, t.of).Findings {
			if !slices.Contains(r.Findings, f) {
				r.Findings = append(r.Findings, f)
			}
		}
	}
	return r
}

// doubtful are the hosts on the way that may not do what their flows say.
func (t *tracer) doubtful(result *trace.Result) (found []Finding) {
	told := map[string]bool{}
	for _, h := range result.Hops {
		if told[h.Host] {
			continue
		}
		told[h.Host] = true
		if !t.of.hostLive(h.Host) {
			found = append(found, Finding{"host " + h.Host + " is not connected by OpenFlow: it may have other flows, or stand still", "planck explain host " + h.Host})
		}
		if down := t.view.HostDown(h.Host); down != nil && !down.Unwired {
			found = append(found, cutOff(h.Host, down))
		}
	}
	return found
}

// cutOff is that of a host that others do not hear.
func cutOff(host string, down *network.HostDown) Finding {
	return Finding{"host " + host + " seems to be cut off from other hosts: " + down.Reason, "is its link to them up, and its ovs-vswitchd running? planck ping shows how far packets come"}
}

// instead is the port that has the address of the one that the packet shall reach,
// where that is another's: networks that no router connects may have the same.
func (t *tracer) instead(e *trace.End) *network.Port {
	switch {
	case t.to == nil:
		return nil
	case e.Port != nil && e.Port.ID != t.to.ID:
		return e.Port
	case e.Port != nil || t.asked.From == nil:
		return nil
	}
	if p := t.view.PortByIP(t.asked.From.NetworkID, t.asked.Dst); p != nil && p.ID != t.to.ID {
		return p
	}
	return nil
}

// network is what a network is called.
func (t *tracer) network(id string) string {
	if n := t.view.Network(id); n != nil {
		return cmp.Or(n.Name, id)
	}
	return id
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
	miss := s.Flow.Priority == 0 && cookie.Feature() == pipeline.FeatureBase && cookie.Flags() == pipeline.FlagHost
	if cookie.Ours() && miss {
		step.Text = cmp.Or(pipeline.TableMiss(bridge, s.Table), step.Text)
	} else if step.Resource.Kind != "" {
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
		if ports := t.delivered(result.Ends); len(ports) > 1 {
			return e.How, fmt.Sprintf("delivered to %d ports: %s", len(ports), some(ports))
		}
		return e.How, fmt.Sprintf("delivered to port %s on host %s%s", t.title(e.Port), e.Host, as)
	case trace.Outside:
		mac := network.MAC(e.Packet.MAC(flows.EthDst))
		to := "for the MAC " + mac.String()
		if mac == trace.UnknownMAC {
			to = "for a machine there that Planck does not know, if there is one"
		}
		return e.How, fmt.Sprintf("leaves host %s by %s to the physical network %s%s, %s", e.Host, e.Bridge, e.Physical, as, to)
	case trace.Punted:
		return t.punted(e, result)
	case trace.Local:
		return e.How, fmt.Sprintf("delivered to host %s itself (LOCAL of %s)%s", e.Host, e.Bridge, as)
	case trace.Dropped:
		return e.How, t.dropped(e, result)
	}
	return e.How, "lost: " + e.Why
}

// delivered are the ports that got a copy, each once.
func (t *tracer) delivered(ends []trace.End) (names []string) {
	for _, e := range ends {
		if e.How == trace.Delivered {
			names = append(names, fmt.Sprintf("%s on %s", t.title(e.Port), e.Host))
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
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
