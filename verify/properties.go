package verify

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	"planck/flows"
	"planck/network"
	"planck/trace"
)

// maxSearches is how many pairs of ports are tried for a fault until a packet is found.
const maxSearches = 20

// crossings looks for packets that cross from network to network, one for each
// flow that may be at fault.
func (v *verifier) crossings() {
	byFault := map[*rule][]*crossing{}
	var faults []*rule
	for _, c := range v.explored.crossed {
		r := v.fault(c)
		if byFault[r] == nil {
			faults = append(faults, r)
		}
		byFault[r] = append(byFault[r], c)
	}
	for _, r := range faults {
		v.crossingsOf(r, byFault[r])
	}
	for _, text := range slices.Sorted(maps.Keys(v.explored.odd)) {
		v.unproven("%s", text)
	}
}

// fault is the rule on the way of a crossing that is likely at fault: one that the
// model does not want, else the one that delivers.
func (v *verifier) fault(c *crossing) *rule {
	at, by := c.from, c.by
	for range 4096 {
		if by != nil && !v.isWanted(at.at, by.flow) {
			return by
		}
		if len(at.into) == 0 {
			break
		}
		by, at = at.into[0].by, at.into[0].from
	}
	return c.by
}

func (v *verifier) crossingsOf(r *rule, all []*crossing) {
	short := ""
	for i, c := range all {
		if i == maxSearches {
			short = fmt.Sprintf("%d more ways by it were not looked at", len(all)-i)
			break
		}
		found, why := v.confirmCrossing(c)
		if found != nil {
			found.Like = len(all) - 1
			v.report.Findings = append(v.report.Findings, *found)
			return
		}
		short = why
	}
	if short != "" {
		by := "what goes on after a resubmit"
		if r != nil {
			by = r.flow.String()
		}
		v.unproven("that no packet crosses to port %s by %s: %s", all[0].to.ID, by, short)
	}
}

// backwards is the rules that lead to some vertices, and the machines that they lead from.
func backwards(to []*vertex) (only map[*rule]bool, roots []*vertex) {
	only = map[*rule]bool{}
	seen := map[*vertex]bool{}
	for work := slices.Clone(to); len(work) > 0; {
		at := work[len(work)-1]
		work = work[:len(work)-1]
		if seen[at] {
			continue
		}
		seen[at] = true
		if at.root != nil && at.root.vif != nil {
			roots = append(roots, at)
		}
		for _, e := range at.into {
			only[e.by] = true
			work = append(work, e.from)
		}
	}
	slices.SortFunc(roots, func(a, b *vertex) int { return a.index - b.index })
	return only, roots
}

// attempt is one way to look for a packet: from a machine by some rules, which may
// be all that lead there.
type attempt struct {
	root *vertex
	only map[*rule]bool
	all  bool
}

// maxChains is how many single ways are tried before all at once.
const maxChains = 150

// maxWalks is how often a single way is looked for.
const maxWalks = 1500

// maxRoots is how many machines are tried with all ways at once.
const maxRoots = 4

// attempts are ways to look for a packet that gets to one of some vertices, and goes
// on from there by some rules: single ways first, which are quick, by chance and
// each time the same.
func attempts(to []*vertex, by map[*rule]bool) (all []attempt) {
	only, roots := backwards(to)
	maps.Copy(only, by)
	random := rand.New(rand.NewPCG(1, 1))
	for i := range maxWalks {
		root, chain := walkBack(to[i%len(to)], by, random)
		if root != nil {
			all = append(all, attempt{root, chain, false})
		}
		if len(all) == maxChains {
			break
		}
	}
	for _, root := range roots[:min(len(roots), maxRoots)] {
		all = append(all, attempt{root, only, true})
	}
	return all
}

// lasting are header fields that hardly any flow writes: rules that differ in them
// are on no way together.
var lasting = []flows.Field{flows.EthType, flows.IPProto, flows.UDPSrc, flows.UDPDst, flows.TCPDst, flows.ICMPv6Type}

// walkBack goes back from a vertex to where packets may come from, nil when it ends
// elsewhere, by rules that one packet may meet.
func walkBack(at *vertex, by map[*rule]bool, random *rand.Rand) (root *vertex, chain map[*rule]bool) {
	chain = maps.Clone(by)
	has, met := map[flows.Field]flows.Term{}, map[*vertex]bool{}
	for r := range by {
		keep(has, r)
	}
	for at.root == nil && len(at.into) > 0 {
		start := random.IntN(len(at.into))
		next := -1
		for i := range at.into {
			e := at.into[(start+i)%len(at.into)]
			if !met[e.from] && fits(has, e.by) {
				next = (start + i) % len(at.into)
				break
			}
		}
		if next < 0 {
			return nil, nil
		}
		e := at.into[next]
		met[e.from] = true
		chain[e.by] = true
		keep(has, e.by)
		at = e.from
	}
	if at.root == nil || at.root.vif == nil {
		return nil, nil
	}
	return at, chain
}

func keep(has map[flows.Field]flows.Term, r *rule) {
	if r == nil {
		return
	}
	for _, t := range r.terms {
		if slices.Contains(lasting, t.Field) {
			has[t.Field] = t
		}
	}
}

func fits(has map[flows.Field]flows.Term, r *rule) bool {
	return r == nil || !slices.ContainsFunc(r.terms, func(t flows.Term) bool {
		other, ok := has[t.Field]
		return ok && t.Covers(other.Mask) && other.Covers(t.Mask) && other.Value != t.Value
	})
}

// confirmCrossing makes a packet that crosses. Without one, why says what is not
// known; "" is that there is none.
func (v *verifier) confirmCrossing(c *crossing) (f *Finding, why string) {
	_, roots := backwards([]*vertex{c.from})
	for _, a := range attempts([]*vertex{c.from}, map[*rule]bool{c.by: true}) {
		s := newSearch(v.fabric)
		s.only = a.only
		s.arrived = func(p *packets, to *network.Port) bool {
			if to.ID != c.to.ID || v.View.Network(to.NetworkID).Key == p.ghost.network {
				return false
			}
			packet, ok, sure := p.in.Solve(natural(a.root.root)...)
			if !ok {
				s.short = s.short || !sure
				return false
			}
			if f = v.crosses(a.root.root, tidy(packet), to); f == nil {
				why = fmt.Sprintf("a packet that might, %s, did not when it was followed by itself", packet)
			}
			return f != nil
		}
		s.begin(a.root.root.vif, a.root.ghost())
		if f != nil {
			return f, ""
		}
		if a.all && s.short && why == "" {
			why = "there are too many ways"
		}
	}
	if len(roots) > maxRoots && why == "" {
		why = fmt.Sprintf("only %d of %d machines were tried", maxRoots, len(roots))
	}
	return nil, why
}

// natural is what a machine's packet has where it does not matter.
func natural(r *root) []flows.Term {
	terms := []flows.Term{flows.EthSrc.IsMAC(r.to.MAC), flows.IPTTL.Is(64), flows.VLANVID.Is(0)}
	if ip := r.to.FirstIPv4(); ip.IsValid() {
		terms = append(terms, flows.IPv4, flows.IPv4Src.IsIP(ip), flows.IPv4Dst.IsIP(ip.Next()), flows.EthDst.IsMAC([6]byte{2, 0, 0, 0, 0, 1}))
	}
	return terms
}

// crosses follows one packet by itself.
func (v *verifier) crosses(r *root, packet flows.Packet, to *network.Port) *Finding {
	for _, known := range []bool{false, true} {
		way, err := v.packets.Run(trace.Frame(r.vif, packet, known))
		if err != nil {
			continue
		}
		for _, e := range way.Ends {
			if e.How == trace.Delivered && e.Port != nil && e.Port.ID == to.ID {
				f := &Finding{Kind: Crossing, From: r.to, To: to, Sent: packet, Way: way}
				f.Text = fmt.Sprintf("a packet of port %s, on network %s, gets to port %s on network %s, which no router connects so",
					title(r.to), v.networkName(r.to.NetworkID), title(to), v.networkName(to.NetworkID))
				f.Blame = v.blame(r.vif, packet, known, way, way.Hops)
				return f
			}
		}
	}
	return nil
}

// tidy takes off a packet what only packets of another kind have.
func tidy(p flows.Packet) flows.Packet {
	var off []flows.Field
	switch p.Get(flows.EthType).Lo {
	case 0x0800:
		off = []flows.Field{flows.IPv6Label}
	case 0x86dd:
		off = []flows.Field{flows.IPv4Src, flows.IPv4Dst}
	default:
		off = []flows.Field{flows.IPv4Src, flows.IPv4Dst, flows.IPTTL, flows.IPProto, flows.TCPDst, flows.UDPSrc, flows.UDPDst}
	}
	for _, f := range off {
		p.Set(f.Is(0))
	}
	return p
}

func title(p *network.Port) string {
	if p.Name != "" {
		return p.Name
	}
	return p.ID
}

func (v *verifier) networkName(id string) string {
	if n := v.View.Network(id); n != nil && n.Name != "" {
		return n.Name
	}
	return id
}

// blame is the first flow on a packet's way where the packet would take another
// one if all were as the model wants: one too many, or one that is missing. If
// there is no such place, it is what wrote another network into metadata, or the
// last flow.
func (v *verifier) blame(vif *network.VIF, packet flows.Packet, known bool, way *trace.Result, hops []trace.Hop) *Flow {
	if v.sound != nil {
		right, err := v.sound.Run(trace.Frame(vif, packet, known))
		if err == nil || right != nil {
			if f := v.divergence(way, right); f != nil {
				return f
			}
		}
	}
	var last *Flow
	for _, h := range hops {
		for _, s := range h.Steps {
			if s.Flow == nil {
				continue
			}
			last = &Flow{Host: h.Host, Bridge: h.Bridge, Flow: s.Flow}
			if b := v.fabric.at[place{h.Host, h.Bridge}]; b != nil && !v.isWanted(b, s.Flow) {
				return last
			}
		}
	}
	return last
}

func (v *verifier) divergence(way, right *trace.Result) *Flow {
	for i, h := range way.Hops {
		b := v.fabric.at[place{h.Host, h.Bridge}]
		if i >= len(right.Hops) || right.Hops[i].Host != h.Host || right.Hops[i].Bridge != h.Bridge {
			return nil
		}
		for k, s := range h.Steps {
			if k >= len(right.Hops[i].Steps) {
				return nil
			}
			want := right.Hops[i].Steps[k]
			switch {
			case s.Flow != nil && !v.isWanted(b, s.Flow):
				return where(b, s.Flow)
			case want.Flow != nil && (s.Flow == nil || s.Flow.Key() != want.Flow.Key()):
				return &Flow{Host: h.Host, Bridge: h.Bridge, Flow: want.Flow, Missing: true}
			case want.Table != s.Table:
				return nil
			}
		}
	}
	return nil
}

// loops looks for packets that come back to where they were, other than by
// routers, which count the TTL.
func (v *verifier) loops() {
	rings := v.explored.rings()
	for _, deep := range v.explored.deep {
		rings = append(rings, []*vertex{deep})
	}
	for _, ring := range rings {
		if !v.blamed(ring) {
			v.loop(ring)
		}
	}
}

// blamed reports whether a ring has a flow that is the fault of another loop.
func (v *verifier) blamed(ring []*vertex) bool {
	for i := range v.report.Findings {
		f := &v.report.Findings[i]
		if f.Kind != Loop || f.Blame == nil {
			continue
		}
		for _, at := range ring {
			for _, e := range at.out {
				if e.by != nil && e.by.flow == f.Blame.Flow {
					f.Like++
					return true
				}
			}
		}
	}
	return false
}

func (v *verifier) loop(ring []*vertex) {
	round := map[*rule]bool{}
	for _, at := range ring {
		for _, e := range at.out {
			round[e.by] = true
		}
	}
	short := ""
	for _, a := range attempts(ring, round) {
		var found *Finding
		s := newSearch(v.fabric)
		s.only = a.only
		s.circles = func(p *packets) bool {
			packet, ok, sure := p.in.Solve(natural(a.root.root)...)
			if !ok {
				s.short = s.short || !sure
				return false
			}
			found = v.circles(a.root.root, tidy(packet))
			if found == nil {
				short = fmt.Sprintf("a packet that might, %s, did not when it was followed by itself", packet)
			}
			return found != nil
		}
		s.begin(a.root.root.vif, a.root.ghost())
		if found != nil {
			v.add(*found)
			return
		}
		if a.all && s.short && short == "" {
			short = "there are too many ways"
		}
	}
	if short != "" {
		at := ring[0].at
		v.unproven("that no packet goes in circles through table %d of host %s %s: %s", ring[0].table, at.host, at.bridge, short)
	}
}

func (v *verifier) circles(r *root, packet flows.Packet) *Finding {
	for _, known := range []bool{false, true} {
		way, err := v.packets.Run(trace.Frame(r.vif, packet, known))
		if err == nil || !errors.Is(err, trace.ErrCircles) && !errors.Is(err, flows.ErrLoop) {
			continue
		}
		f := &Finding{Kind: Loop, From: r.to, Sent: packet, Way: way}
		places, _ := way.Places()
		f.Text = fmt.Sprintf("a packet of port %s goes in circles, over %s", title(r.to), strings.Join(places, ", "))
		if !errors.Is(err, trace.ErrCircles) {
			f.Text += fmt.Sprintf(": %s", err)
		}
		f.Blame = v.blame(r.vif, packet, known, way, way.Hops)
		return f
	}
	return nil
}
