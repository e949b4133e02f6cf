package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"planck/flows"
	"planck/network"
	"planck/pipeline"
	"planck/trace"
)

// PingQuery asks for packets that are really sent.
type PingQuery struct {
	From     string // id or name of a port that is plugged
	To       string // id or name of a port, or an address
	Protocol string // tcp, udp or icmp; "" for icmp
	DstPort  uint16
	Count    int // of packets; 0 for 3
	// Size is that of the IP packets in bytes, which nobody may fragment; 0 for
	// small ones.
	Size int
}

// PingRecord is where packets got to, by what flows have counted.
type PingRecord struct {
	Verdict string `json:"verdict"` // of the way: delivered, answered, outside, punted, local, dropped or lost
	Summary string `json:"summary"`
	Sent    int    `json:"sent"`
	Size    int    `json:"size,omitempty"` // in bytes, where it was asked for
	// Passes is the largest size that was seen to pass where that of Size is lost, 0
	// for none; without it nothing is known.
	Passes *int   `json:"passes,omitempty"`
	Seen   bool   `json:"seen"`   // the flows of the whole way have counted all packets
	Answer string `json:"answer"` // seen, none or unknown: something came back to the sender
	// Hops are those of the way, as planck trace --installed has it.
	Packet string    `json:"packet"`
	Hops   []PingHop `json:"hops"`
	// Findings are what is wrong with the ports at both ends, where nobody gets the packets.
	Findings []Finding `json:"findings"`
}

// PingHop is the way through a bridge, with what its flows have counted meanwhile.
type PingHop struct {
	TraceHop
	// Counted is, for each step, how many packets its flow has counted; of Busy ones
	// that were counting before, it tells nothing.
	Counted []uint64 `json:"counted"`
	Busy    []bool   `json:"busy"`
	Seen    bool     `json:"seen"`
	Problem string   `json:"problem,omitempty"` // why its flows could not be read
}

// Answers that a ping may have.
const (
	AnswerSeen    = "seen"
	AnswerNone    = "none"
	AnswerUnknown = "unknown"
)

const (
	maxPings = 20
	// pingQuiet is how long counters are watched before anything is sent.
	pingQuiet = 1200 * time.Millisecond
	// pingPatience is how long counters are waited for: switches update those of
	// packets in the datapath each half second or so.
	pingPatience = 5 * time.Second
	pingPoll     = 300 * time.Millisecond
)

// Ping sends packets as a port's machine would, through all tables, and tells by
// counters of the flows on their way where they got to. One runs at a time.
func (c *Controller) Ping(ctx context.Context, q PingQuery) (*PingRecord, error) {
	if q.Count < 0 || q.Count > maxPings {
		return nil, network.Errorf(network.Invalid, "PingInvalid", "%d packets are not from 1 to %d", q.Count, maxPings)
	}
	select {
	case c.pings <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-c.pings }()
	begun, outcome := time.Now(), ""
	record, err := c.ping(ctx, q)
	if err == nil {
		outcome = record.outcome()
	}
	count(c.metrics.pings, c.metrics.pingSeconds, begun, outcome, err)
	return record, err
}

// outcome is the verdict, where flows have counted that it is true.
func (r *PingRecord) outcome() string {
	if !r.Seen {
		return "unseen"
	}
	return r.Verdict
}

func (c *Controller) ping(ctx context.Context, q PingQuery) (*PingRecord, error) {
	p, err := c.preparePing(ctx, q)
	if err != nil {
		return nil, err
	}
	if _, _, _, ok := p.first.Packet(); ok { // else it does not leave the machine: the way says why
		p.findBack()
		if err := p.round(ctx, slices.Repeat([]int{q.Size}, cmp.Or(q.Count, 3))); err != nil {
			return nil, err
		}
	}
	r := p.record()
	r.Size = q.Size
	if !r.Seen {
		err = p.narrow(ctx, r, q.Size)
	}
	return r, err
}

// ping is packets on their way.
type ping struct {
	c       *Controller
	tracer  tracer
	result  *trace.Result
	first   *trace.First
	traced  *TraceRecord
	back    *flows.Flow // that leads to the sender
	backOn  pipeline.Target
	sent    int
	quiet   counters // how much was counted before
	counted counters // since then
	failed  map[pipeline.Target]error
}

type counters map[pipeline.Target]map[flows.Key]uint64

// preparePing finds the way that packets should take.
func (c *Controller) preparePing(ctx context.Context, q PingQuery) (*ping, error) {
	view := c.view.Load()
	if view == nil {
		return nil, network.Errorf(network.Unavailable, "NotReady", "the model is not read yet")
	}
	question, to, err := traced(view, TraceQuery{From: q.From, To: q.To, Protocol: q.Protocol, DstPort: q.DstPort})
	if err != nil {
		return nil, err
	}
	switch {
	case question.From == nil:
		return nil, network.Errorf(network.Invalid, "PingInvalid", "%s is no port: packets are sent by a port that is plugged", q.From)
	case question.Protocol != trace.ICMP && question.Protocol != trace.ICMPv6 && question.Protocol != trace.TCP && question.Protocol != trace.UDP:
		return nil, network.Errorf(network.Invalid, "PingInvalid", "packets of protocol %q are not sent: tcp, udp or icmp", q.Protocol)
	}
	first, err := trace.Begin(view, question)
	if err != nil {
		return nil, network.Errorf(network.Invalid, "PingInvalid", "%s", err)
	}
	if err := checkSize(view, question, q.Size); err != nil {
		return nil, err
	}
	result, err := trace.Run(view, c.installedTables(ctx), first, uint16(cmp.Or(q.Size, pingSize)+ethernetHeader))
	if err != nil {
		return nil, asNetworkError(err)
	}
	p := &ping{c: c, tracer: tracer{view, question, to, c}, result: result, first: first, failed: map[pipeline.Target]error{}}
	p.traced = p.tracer.explained(result)
	p.traced.Packet = p.tracer.question(first.Src)
	return p, nil
}

// watch waits until counters show all packets on the whole way, or for long enough.
func (p *ping) watch(ctx context.Context, start counters) error {
	for end := time.Now().Add(pingPatience); ; {
		if err := wait(ctx, pingPoll); err != nil {
			return err
		}
		p.counted = p.read(ctx).since(start)
		if time.Now().After(end) || p.seen() && p.answer() != AnswerNone {
			return nil
		}
	}
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// findBack finds the flow by which all comes to the sender.
func (p *ping) findBack() {
	from := p.tracer.asked.From
	p.backOn = pipeline.Target{Host: p.tracer.view.WiredHost(from), Bridge: network.BridgeIntegration}
	set, err := p.c.desiredTables(p.backOn.Host, p.backOn.Bridge)
	if err != nil {
		return
	}
	for _, f := range set.Flows {
		_, _, matched := f.Match.Get(flows.EthDst)
		if cookie := pipeline.Cookie(f.Cookie); f.Table == pipeline.L2Lookup.ID && matched && cookie.Feature() == pipeline.FeatureL2 && cookie.Flags() == 0 && cookie.Object() == from.Key {
			p.back = f
		}
	}
}

// read is what the flows of all bridges on the way have counted.
func (p *ping) read(ctx context.Context) counters {
	all := counters{}
	targets := []pipeline.Target{p.backOn}
	for _, h := range p.result.Hops {
		targets = append(targets, pipeline.Target{Host: h.Host, Bridge: h.Bridge})
	}
	for _, of := range targets {
		if all[of] != nil || ctx.Err() != nil {
			continue
		}
		stats, err := p.c.flowStats(of)
		if err != nil {
			p.failed[of] = err
			continue
		}
		all[of] = map[flows.Key]uint64{}
		for i := range stats {
			all[of][stats[i].Flow.Key()] = stats[i].Packets
		}
	}
	return all
}

func (c *Controller) flowStats(of pipeline.Target) ([]flows.FlowStats, error) {
	var s *session
	if t := c.bridge(of.Host, of.Bridge); t != nil {
		s = t.readable()
	}
	if s == nil {
		return nil, errors.New("it is not connected")
	}
	return s.dumpFlows()
}

func (c counters) since(before counters) counters {
	all := counters{}
	for of, now := range c {
		if before[of] == nil {
			continue // it was not read then
		}
		all[of] = map[flows.Key]uint64{}
		for key, n := range now {
			all[of][key] = n - min(n, before[of][key])
		}
	}
	return all
}

// send sends the i-th packet from the sender's own interface into the tables. Each
// begins a connection of its own.
func (p *ping) send(i, size int) error {
	packet, host, port, _ := p.first.Packet()
	frame, err := frameOf(&packet, p.tracer.asked, i, size)
	if err != nil {
		return fmt.Errorf("the packet can't be made: %w", err)
	}
	t := p.c.bridge(host, network.BridgeIntegration)
	if t != nil {
		if s := t.connected(); s != nil && s.out.trySend(flows.AppendPacketOut(nil, xidUnmatched, port, flows.ActionList(flows.Output(flows.PortTable)), frame)) {
			return nil
		}
	}
	return network.Errorf(network.Unavailable, "BridgeNotConnected", "host %q is not connected to this controller: it sends nothing there", host)
}

// frameOf is a packet as bytes. One of a size must not be fragmented.
func frameOf(p *flows.Packet, q trace.Question, i, size int) ([]byte, error) {
	src, dst := p.MAC(flows.EthSrc), p.MAC(flows.EthDst)
	eth := &layers.Ethernet{SrcMAC: src[:], DstMAC: dst[:], EthernetType: layers.EthernetTypeIPv4}
	var parts []gopacket.SerializableLayer
	var ip gopacket.NetworkLayer
	if q.Dst.Is4() {
		v4 := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocol(q.Protocol), SrcIP: net.IP(p.IP(flows.IPv4Src).AsSlice()), DstIP: net.IP(q.Dst.AsSlice())}
		if size > 0 {
			v4.Flags = layers.IPv4DontFragment
		}
		parts, ip = append(parts, eth, v4), v4
	} else {
		v6 := &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: layers.IPProtocol(q.Protocol), SrcIP: net.IP(p.IP(flows.IPv6Src).AsSlice()), DstIP: net.IP(q.Dst.AsSlice())}
		eth.EthernetType = layers.EthernetTypeIPv6
		parts, ip = append(parts, eth, v6), v6
	}
	id := uint16(rand.Uint32()) + uint16(i)
	switch q.Protocol {
	case trace.ICMP:
		parts = append(parts, &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(uint8(q.DstPort), 0), Id: id, Seq: 1})
	case trace.ICMPv6:
		icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(uint8(q.DstPort), 0)}
		parts = append(parts, icmp, &layers.ICMPv6Echo{Identifier: id, SeqNumber: 1})
		if err := icmp.SetNetworkLayerForChecksum(ip); err != nil {
			return nil, err
		}
	case trace.TCP:
		tcp := &layers.TCP{SrcPort: layers.TCPPort(clientPort + id%16384), DstPort: layers.TCPPort(q.DstPort), SYN: true, Window: 1024}
		parts = append(parts, tcp)
		if err := tcp.SetNetworkLayerForChecksum(ip); err != nil {
			return nil, err
		}
	case trace.UDP:
		udp := &layers.UDP{SrcPort: layers.UDPPort(clientPort + id%16384), DstPort: layers.UDPPort(q.DstPort)}
		parts = append(parts, udp)
		if err := udp.SetNetworkLayerForChecksum(ip); err != nil {
			return nil, err
		}
	}
	parts = append(parts, gopacket.Payload(payloadOf(q, size)))
	b := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, parts...)
	return b.Bytes(), err
}
