package ovsdb

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"planck/network"
	"planck/ovsdb/vswitch"
)

const (
	// unplugGrace is how long an iface-id must be absent before that counts as
	// an unplug: an interface that is deleted and made anew is a move.
	unplugGrace = 200 * time.Millisecond
	// settleGrace is how long ports without an OpenFlow number may hold back the
	// facts of their bridge: a restarted vswitchd needs a moment to number them.
	settleGrace = 3 * time.Second
)

const (
	keyIfaceID     = "iface-id"
	keyIfaceStatus = "iface-status"
	maxIfaceID     = 255
	maxOFPort      = 0xff00 // OpenFlow 1.0's OFPP_MAX; the reserved numbers are above
)

// facts reads what the model wants to know from the database of one host, and
// remembers since when something has been missing.
type facts struct {
	missing map[string]time.Time // bridges and ports without a number, by bridge/port
	absent  map[string]time.Time // plugged interfaces that are gone, by iface-id
}

// reading is the outcome of one look.
type reading struct {
	host     *network.Host // nil: not yet complete
	vifs     []network.VIF // by port id
	problems []string
	again    time.Duration // when to look again without any change; 0 for never
}

func (r *reading) problem(format string, args ...any) {
	r.problems = append(r.problems, fmt.Sprintf(format, args...))
}

func (r *reading) lookAgain(after time.Duration) {
	after = max(after, time.Millisecond)
	if r.again == 0 || after < r.again {
		r.again = after
	}
}

// read makes the facts of a host from a snapshot and from the ones before.
func (f *facts) read(now time.Time, c *contract, s *snapshot, before *network.Host, plugged []network.VIF) *reading {
	r := &reading{}
	r.host = f.readHost(now, c, s, before, r)
	r.vifs = f.readVIFs(now, c.host, s, plugged, r)
	return r
}

func (f *facts) readHost(now time.Time, c *contract, s *snapshot, before *network.Host, r *reading) *network.Host {
	if before != nil && before.SystemID != c.systemID {
		before = nil
	}
	h, waiting := readBridges(c, s, r)
	since := make(map[string]time.Time, len(waiting))
	var hold []missing
	for _, w := range waiting {
		key := w.bridge + "/" + w.port
		first, known := f.missing[key]
		if !known {
			first = now
		}
		since[key] = first
		left := settleGrace - now.Sub(first)
		if left > 0 {
			r.lookAgain(left)
		} else {
			r.problem("%s: %s", w.bridge, w.what)
		}
		if left > 0 || w.essential {
			hold = append(hold, w)
		}
	}
	f.missing = since
	return keepBefore(h, before, hold)
}

// missing is a number that the switch has not given yet.
type missing struct {
	bridge    string
	port      string // "" for the bridge itself
	essential bool   // without it the bridge is of no use
	what      string
}

// keepBefore has, for bridges that miss something, what was known before. A
// new host is not told until br-int and br-tun are there.
func keepBefore(h, before *network.Host, waiting []missing) *network.Host {
	for _, w := range waiting {
		if own := w.bridge == network.BridgeIntegration || w.bridge == network.BridgeTunnel; own {
			return before
		}
		onIntegration := h.Bridges[network.BridgeIntegration].Patches
		delete(h.Bridges, w.bridge)
		delete(onIntegration, w.bridge)
		if before == nil {
			continue
		}
		old, known := before.Bridges[w.bridge]
		patch := before.Bridges[network.BridgeIntegration].Patches[w.bridge]
		if known && patch != 0 {
			h.Bridges[w.bridge] = old
			onIntegration[w.bridge] = patch
		}
	}
	return h
}

// readBridges has everything that the database tells now, and what is missing.
func readBridges(c *contract, s *snapshot, r *reading) (*network.Host, []missing) {
	h := &network.Host{
		Name:         c.host,
		SystemID:     c.systemID,
		TunnelIP:     c.tunnelIP,
		DatapathType: c.datapathType,
		OVSVersion:   c.ovsVersion,
		Bridges:      map[string]network.Bridge{},
	}
	if len(c.mappings) > 0 {
		h.BridgeMappings = maps.Clone(c.mappings)
	}
	var waiting []missing
	wait := func(m missing) { waiting = append(waiting, m) }
	for _, name := range ourBridges {
		b := s.bridges[name]
		id, ok := datapath(b)
		if !ok || id != datapathID(c.host, c.systemID, name) {
			wait(missing{bridge: name, essential: true, what: noDatapathID})
		}
		dpid, _ := strconv.ParseUint(id, 16, 64)
		h.Bridges[name] = network.Bridge{DatapathID: dpid, Patches: map[string]uint32{}}
	}
	patch := func(bridge, name, peer string) {
		n, why := number(s, bridge, name)
		if n == 0 {
			wait(missing{bridge, name, true, why})
			return
		}
		h.Bridges[bridge].Patches[peer] = n
	}
	patch(network.BridgeIntegration, patchToTunnel, network.BridgeTunnel)
	patch(network.BridgeTunnel, patchToIntegration, network.BridgeIntegration)
	readTunnels(c, s, h, wait)
	for _, name := range c.mapped() {
		b := s.bridges[name]
		if b == nil || !c.controlled(b) {
			r.problem("%s"+notYet, name)
			continue
		}
		readMapped(s, b, h, wait)
	}
	return h, waiting
}

func readTunnels(c *contract, s *snapshot, h *network.Host, wait func(missing)) {
	if !c.tunnelIP.IsValid() {
		return
	}
	tunnels := map[string]uint32{}
	for _, t := range c.tunnelTypes {
		n, why := number(s, network.BridgeTunnel, tunnelPort(t))
		if n == 0 {
			wait(missing{network.BridgeTunnel, tunnelPort(t), false, why})
			continue
		}
		tunnels[t] = n
	}
	b := h.Bridges[network.BridgeTunnel]
	if len(tunnels) > 0 {
		b.Tunnels = tunnels
	}
	h.Bridges[network.BridgeTunnel] = b
}

// readMapped reads a mapped bridge, whose patch ports count on both sides.
func readMapped(s *snapshot, b *bridgeRows, h *network.Host, wait func(missing)) {
	here, there := patchNames(b.Name)
	id, ok := datapath(b)
	if !ok {
		wait(missing{bridge: b.Name, essential: true, what: noDatapathID})
	}
	dpid, _ := strconv.ParseUint(id, 16, 64)
	near, why := number(s, network.BridgeIntegration, here)
	if near == 0 {
		wait(missing{b.Name, here, true, why})
	}
	far, why := number(s, b.Name, there)
	if far == 0 {
		wait(missing{b.Name, there, true, why})
	}
	if dpid == 0 || near == 0 || far == 0 {
		return
	}
	h.Bridges[network.BridgeIntegration].Patches[b.Name] = near
	h.Bridges[b.Name] = network.Bridge{
		DatapathID: dpid,
		Patches:    map[string]uint32{network.BridgeIntegration: far},
	}
}

// datapath is the datapath id of a bridge, as 16 hex digits.
func datapath(b *bridgeRows) (string, bool) {
	if b == nil || b.DatapathID == nil {
		return "", false
	}
	id, err := strconv.ParseUint(*b.DatapathID, 16, 64)
	return *b.DatapathID, err == nil && id != 0
}

// What a host shows for a moment while it joins.
const (
	settingUp = "it is being set up"
	notYet    = " is not under control yet"
)

const noDatapathID = "vswitchd has not given the bridge its datapath id"

// number is the OpenFlow port of a port of ours, or 0 and why.
func number(s *snapshot, bridge, name string) (uint32, string) {
	b := s.bridges[bridge]
	if b == nil {
		return 0, "port " + name + " is not there"
	}
	i := b.ports[name].only()
	if i == nil {
		return 0, "port " + name + " is not there"
	}
	return ofport(i), noNumber(i)
}

func noNumber(i *vswitch.Interface) string {
	if i.Error == nil || *i.Error == "" {
		return "port " + i.Name + " has no OpenFlow port"
	}
	return "port " + i.Name + " has no OpenFlow port: " + *i.Error
}

// ofport is the OpenFlow port of an interface; 0 when it has none (yet).
func ofport(i *vswitch.Interface) uint32 {
	if i.Ofport == nil || *i.Ofport <= 0 || *i.Ofport >= maxOFPort {
		return 0
	}
	return uint32(*i.Ofport)
}

// readVIFs finds the interfaces that are plugged into br-int. One that is gone
// stays for unplugGrace, unless its OpenFlow port belongs to another by now.
func (f *facts) readVIFs(now time.Time, host string, s *snapshot, plugged []network.VIF, r *reading) []network.VIF {
	found := findVIFs(host, s.bridges[network.BridgeIntegration], r)
	used := make(map[uint32]bool, len(found))
	for _, v := range found {
		used[v.OFPort] = true
	}
	absent := map[string]time.Time{}
	for _, v := range plugged {
		if _, there := found[v.PortID]; there || used[v.OFPort] {
			continue
		}
		since, known := f.absent[v.PortID]
		if !known {
			since = now
		}
		left := unplugGrace - now.Sub(since)
		if left <= 0 {
			continue
		}
		absent[v.PortID] = since
		r.lookAgain(left)
		found[v.PortID] = v
	}
	f.absent = absent
	return slices.SortedFunc(maps.Values(found), func(a, b network.VIF) int { return strings.Compare(a.PortID, b.PortID) })
}

// findVIFs has one interface for each iface-id: an active one rather than one
// that is not, then the one with the newest OpenFlow port.
func findVIFs(host string, b *bridgeRows, r *reading) map[string]network.VIF {
	if b == nil {
		return map[string]network.VIF{}
	}
	found := make(map[string]network.VIF, len(b.ports))
	rank := make(map[string]int, len(b.ports))
	for _, port := range b.ports {
		for _, i := range port.interfaces {
			id := i.ExternalIDs[keyIfaceID]
			n := ofport(i)
			if id == "" || n == 0 {
				continue
			}
			if !validIfaceID(id) {
				r.problem("interface %s: iface-id %.40q can't be the id of a port", i.Name, id)
				continue
			}
			mine := 0
			if i.ExternalIDs[keyIfaceStatus] == "active" {
				mine = 1
			}
			old, there := found[id]
			if there && cmp.Or(cmp.Compare(rank[id], mine), cmp.Compare(old.OFPort, n), strings.Compare(old.Name, i.Name)) >= 0 {
				continue
			}
			found[id], rank[id] = network.VIF{PortID: id, Host: host, Name: i.Name, OFPort: n}, mine
		}
	}
	return found
}

func validIfaceID(id string) bool {
	return len(id) <= maxIfaceID && utf8.ValidString(id) && !strings.ContainsFunc(id, unicode.IsControl)
}
