package pipeline

import (
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"planck/flows"
	"planck/network"
)

// end is a server that connections are made from and to.
type end struct {
	*network.Port
	host string
	at   uint32 // its OpenFlow port
}

// tuple is a connection between two ports.
type tuple struct {
	protocol         uint8
	src, dst         netip.Addr
	srcPort, dstPort uint16 // or type and code of ICMP
	later            bool   // its packets are later fragments, without ports
	sender, receiver end
	failure          [2]uint16 // type and code of the ICMP errors about its packets
}

// standing is what conntrack says of a packet.
type standing struct {
	state          uint64
	said           string // as ofproto/trace takes it
	reply, invalid bool
	related        bool // an ICMP error about a packet of the other direction
}

var standings = []standing{
	{state: ctTracked | ctNew, said: "trk,new"},
	{state: ctTracked | ctEstablished, said: "trk,est"},
	{state: ctTracked | ctEstablished | ctReply, said: "trk,est,rpl", reply: true},
	{state: ctTracked | ctInvalid, said: "trk,inv", invalid: true},
	{state: ctTracked | ctRelated, said: "trk,rel", related: true},
	{state: ctTracked | ctRelated | ctReply, said: "trk,rel,rpl", reply: true, related: true},
}

const (
	ctEstablished = 1 << 1
	ctRelated     = 1 << 2
)

// icmpReplies has the types that answer others.
var icmpReplies = map[uint8]map[uint16]uint16{network.ProtocolICMP: {8: 0, 13: 14, 15: 16}, network.ProtocolICMPv6: {128: 129}}

// reply is what answers the packet that began the connection, as a tuple of its own.
func (c tuple) reply() tuple {
	c.src, c.dst, c.sender, c.receiver = c.dst, c.src, c.receiver, c.sender
	if types, ok := icmpReplies[c.protocol]; ok {
		c.srcPort = types[c.srcPort]
	} else {
		c.srcPort, c.dstPort = c.dstPort, c.srcPort
	}
	return c
}

// packet is what has a standing in the connection, as a tuple of its own.
func (c tuple) packet(s standing) tuple {
	if s.reply {
		c = c.reply()
	}
	if !s.related {
		return c
	}
	c.protocol, c.srcPort, c.dstPort = network.ProtocolICMP, c.failure[0], c.failure[1]
	if c.src.Is6() {
		c.protocol = network.ProtocolICMPv6
	}
	return c
}

// passes is Neutron's semantics: a packet leaves its sender and enters its
// receiver where, at each, a rule of a stateful group admits the connection that
// it is of, or related to, in that one's direction, or a rule of a stateless one
// admits itself.
func passes(v *network.View, c tuple, s standing) bool {
	connection := func(p end) bool {
		switch {
		case s.invalid:
			return false
		case p.Port == c.sender.Port:
			return admits(v, p, network.Egress, false, c, c.dst)
		}
		return admits(v, p, network.Ingress, false, c, c.src)
	}
	p := c.packet(s)
	return (connection(p.sender) || admits(v, p.sender, network.Egress, true, p, p.dst)) &&
		(connection(p.receiver) || admits(v, p.receiver, network.Ingress, true, p, p.src))
}

// admits reports whether a rule for a direction, of one of the stateless or
// stateful groups of a port, fits what has remote as its other side.
func admits(v *network.View, p end, direction string, stateless bool, c tuple, remote netip.Addr) bool {
	for _, group := range p.SecurityGroups {
		if v.SecurityGroup(group).Stateless != stateless {
			continue
		}
		for r := range v.RulesOf(group) {
			if r.Direction == direction && (r.Ethertype == network.IPv4) == remote.Is4() && admitsProtocol(r, c, stateless) && admitsRemote(v, r, remote) {
				return true
			}
		}
	}
	return false
}

func admitsProtocol(r *network.SecurityGroupRule, c tuple, stateless bool) bool {
	protocol, some := r.ProtocolNumber()
	switch {
	case !some:
		return true
	case protocol != c.protocol:
		return false
	case r.PortMin == network.NoPort:
		return true
	case c.later:
		return !stateless
	case protocol == network.ProtocolICMP || protocol == network.ProtocolICMPv6:
		return int(c.srcPort) == r.PortMin && (r.PortMax == network.NoPort || int(c.dstPort) == r.PortMax)
	}
	return r.PortMin <= int(c.dstPort) && int(c.dstPort) <= r.PortMax
}

func admitsRemote(v *network.View, r *network.SecurityGroupRule, remote netip.Addr) bool {
	if r.RemotePrefix.IsValid() {
		return r.RemotePrefix.Contains(remote)
	}
	if r.RemoteGroupID == "" {
		return true
	}
	for p := range v.PortsOfGroup(r.RemoteGroupID) {
		for _, f := range p.FixedIPs {
			if f.IP == remote {
				return true
			}
		}
		for _, pair := range p.AllowedAddressPairs {
			if pair.IP.Contains(remote) {
				return true
			}
		}
	}
	return false
}

func pickOne[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

func randomRule(r *rand.Rand, groups []string) func(*network.SecurityGroupRule) {
	return func(rule *network.SecurityGroupRule) {
		rule.GroupID = pickOne(r, groups...)
		rule.Direction = pickOne(r, network.Ingress, network.Egress)
		rule.Ethertype = pickOne(r, network.IPv4, network.IPv4, network.IPv6)
		rule.Protocol = pickOne(r, "", "tcp", "6", "udp", "17", "icmp", "1", "sctp", "132", "gre", "47")
		n, _ := rule.ProtocolNumber()
		if rule.Ethertype == network.IPv6 && n == network.ProtocolICMP {
			rule.Protocol = pickOne(r, "ipv6-icmp", "icmpv6", "icmp", "58", "1")
		}
		switch n {
		case network.ProtocolTCP, network.ProtocolUDP, network.ProtocolSCTP:
			if r.IntN(4) > 0 {
				rule.PortMin = pickOne(r, 1, 1+r.IntN(100), 32768, 40000+r.IntN(100))
				rule.PortMax = pickOne(r, rule.PortMin, rule.PortMin+r.IntN(50), 65535)
			}
		case network.ProtocolICMP, network.ProtocolICMPv6:
			if r.IntN(2) > 0 {
				rule.PortMin = pickOne(r, 0, 1, 2, 3, 8, 11, 13, 14, 15, 128, 129)
				rule.PortMax = pickOne(r, network.NoPort, 0, 1)
			}
		}
		switch r.IntN(3) {
		case 0:
			rule.RemoteGroupID = pickOne(r, groups...)
		case 1:
			rule.RemotePrefix = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(r.IntN(3)), byte(10 + r.IntN(6))}), pickOne(r, 0, 22, 23, 24, 31, 32))
			if rule.Ethertype == network.IPv6 {
				rule.RemotePrefix = netip.MustParsePrefix(pickOne(r, "fd00::a/128", "fd00::/64", "::/0", "fd00::c/127"))
			}
		}
	}
}

var groupNames = []string{"g1", "g2", "g3", "g4"}

// randomCloud has six ports on two hosts, on two networks with a router between
// them, with random groups of random rules.
func randomCloud(t *testing.T, r *rand.Rand) (*world, []end) {
	t.Helper()
	w := newWorld(t, Options{})
	w.hosts(2)
	w.network(&network.Network{Standard: network.Standard{ID: "blue"}, NetworkType: "gre", SegmentationID: 5}, "10.0.0.0/24")
	w.network(&network.Network{Standard: network.Standard{ID: "green"}, NetworkType: "gre", SegmentationID: 6}, "10.0.2.0/24")
	w.router("r", netip.MustParseAddr("10.0.0.99"), "subnet-blue", "subnet-green")
	for _, g := range groupNames {
		if r.IntN(4) == 0 {
			w.statelessGroup(g)
		} else {
			w.group(g)
		}
	}
	for i := range 8 + r.IntN(32) {
		rule := &network.SecurityGroupRule{Standard: network.Standard{ID: fmt.Sprint("r", i)}, PortMin: network.NoPort, PortMax: network.NoPort}
		randomRule(r, groupNames)(rule)
		// Two that say the same are refused.
		_, err := w.store.Update(t.Context(), network.Cause{}, func(tx *network.Tx) error { return tx.CreateSecurityGroupRule(rule) })
		if err != nil && !strings.Contains(err.Error(), "already exists") {
			t.Fatal(err)
		}
	}
	var ends []end
	at := map[string]uint32{}
	for i, place := range []struct{ network, host string }{
		{"blue", "host1"}, {"blue", "host1"}, {"blue", "host2"}, {"green", "host1"}, {"green", "host2"}, {"green", "host2"},
	} {
		subnet := map[string]int{"blue": 0, "green": 2}[place.network]
		p := newPort(string(rune('a'+i)), place.network, fmt.Sprintf("fa:16:3e:00:00:%02x", 10+i), fmt.Sprintf("10.0.%d.%d", subnet, 10+i))
		p.AllowedAddressPairs = []network.AddressPair{{IP: netip.MustParsePrefix(fmt.Sprintf("fd00::%x/128", 10+i))}, {IP: netip.MustParsePrefix(fmt.Sprintf("10.0.1.%d/31", 2*i+10))}}
		for _, g := range groupNames {
			if r.IntN(5) < 2 {
				p.SecurityGroups = append(p.SecurityGroups, g)
			}
		}
		w.port(p, place.host)
		at[place.host]++
		ends = append(ends, end{p, place.host, at[place.host]})
	}
	return w, ends
}

func randomTuple(r *rand.Rand, ends []end) tuple {
	from := r.IntN(len(ends))
	to := (from + 1 + r.IntN(len(ends)-1)) % len(ends)
	c := tuple{sender: ends[from], receiver: ends[to]}
	v6 := r.IntN(3) == 0 && !c.routed()
	address := func(e end) netip.Addr {
		switch {
		case v6:
			return e.AllowedAddressPairs[0].IP.Addr()
		case r.IntN(3) == 0 && !c.routed():
			return e.AllowedAddressPairs[1].IP.Addr().Next()
		}
		return e.FixedIPs[0].IP
	}
	c.src, c.dst = address(c.sender), address(c.receiver)
	c.protocol = pickOne[uint8](r, network.ProtocolTCP, network.ProtocolUDP, network.ProtocolICMP, network.ProtocolSCTP, 47)
	c.later = r.IntN(10) == 0
	c.srcPort, c.dstPort = uint16(40000+r.IntN(150)), pickOne(r, uint16(1+r.IntN(160)), uint16(40000+r.IntN(150)), 65535)
	switch {
	case c.protocol == network.ProtocolICMP && v6:
		c.protocol, c.srcPort, c.dstPort = network.ProtocolICMPv6, 128, pickOne[uint16](r, 0, 1)
	case c.protocol == network.ProtocolICMP:
		c.srcPort, c.dstPort = pickOne[uint16](r, 8, 13, 15), pickOne[uint16](r, 0, 1)
	}
	if c.later || c.protocol == 47 {
		c.srcPort, c.dstPort = 0, 0
	}
	c.failure = [2]uint16{pickOne[uint16](r, 3, 11), pickOne[uint16](r, 0, 1)}
	if v6 {
		c.failure[0] = pickOne[uint16](r, 1, 2, 3)
	}
	return c
}

// routed reports whether the ends are on two networks.
func (c tuple) routed() bool { return c.sender.NetworkID != c.receiver.NetworkID }

// leg is what comes to a host, and the port by which it has to leave it.
type leg struct {
	host   string
	packet []flows.Term
	out    uint32
	gates  []end // the ports whose groups look at it there
}

// first is the packet as its sender sends it.
func (c tuple) first(v *network.View) leg {
	next := c.receiver.MAC
	if c.routed() {
		for p := range v.InterfacesOf("r") {
			if p.NetworkID == c.sender.NetworkID {
				next = p.MAC
			}
		}
	}
	h := leg{c.sender.host, c.terms(flows.InPort.Is(uint64(c.sender.at)), flows.EthSrc.IsMAC(c.sender.MAC), flows.EthDst.IsMAC(next)), c.receiver.at, []end{c.sender, c.receiver}}
	if c.sender.host != c.receiver.host {
		h.out, h.gates = patchToTunnel, h.gates[:1]
	}
	return h
}

// second is the packet as it comes to the host of its receiver: of what the first
// host knew of it, its headers are left.
func (c tuple) second(v *network.View, sent flows.Packet) leg {
	return leg{c.receiver.host, c.terms(
		flows.InPort.Is(patchToTunnel), flows.EthSrc.IsMAC(macOf(sent.Get(flows.EthSrc).Lo)), flows.EthDst.IsMAC(macOf(sent.Get(flows.EthDst).Lo)),
		flows.VLANVID.Is(vlanPresent|uint64(v.Presence(c.receiver.NetworkID, c.receiver.host).VLAN)),
	), c.receiver.at, []end{c.receiver}}
}

// terms is a packet that begins the connection.
func (c tuple) terms(terms ...flows.Term) []flows.Term {
	terms = append(terms, flows.IPProto.Is(uint64(c.protocol)), flows.IPTTL.Is(64))
	if c.src.Is4() {
		terms = append(terms, flows.IPv4, flows.IPv4Src.IsIP(c.src), flows.IPv4Dst.IsIP(c.dst))
	} else {
		terms = append(terms, flows.IPv6, flows.IPv6Src.IsIP(c.src), flows.IPv6Dst.IsIP(c.dst))
	}
	if c.later {
		return append(terms, laterFragment)
	}
	src, dst := uint64(c.srcPort), uint64(c.dstPort)
	switch c.protocol {
	case network.ProtocolTCP:
		return append(terms, flows.TCPSrc.Is(src), flows.TCPDst.Is(dst))
	case network.ProtocolUDP:
		return append(terms, flows.UDPSrc.Is(src), flows.UDPDst.Is(dst))
	case network.ProtocolSCTP:
		return append(terms, flows.SCTPSrc.Is(src), flows.SCTPDst.Is(dst))
	case network.ProtocolICMP:
		return append(terms, flows.ICMPType.Is(src), flows.ICMPCode.Is(dst))
	case network.ProtocolICMPv6:
		return append(terms, flows.ICMPv6Type.Is(src), flows.ICMPv6Code.Is(dst))
	}
	return terms
}

func (c tuple) String() string {
	return fmt.Sprintf("protocol %d (its errors are %v; later fragments: %t) from %s:%d of %s in %v to %s:%d of %s in %v", c.protocol, c.failure, c.later, c.src, c.srcPort, c.sender.ID, c.sender.SecurityGroups,
		c.dst, c.dstPort, c.receiver.ID, c.receiver.SecurityGroups)
}

func (s standing) String() string { return s.said }

var propertySeed = flag.Uint64("sgseed", 1, "the seed of TestSecurityGroupsAreNeutrons; 0 is one that no run had before")

// TestSecurityGroupsAreNeutrons: the flows of random rules let pass what
// Neutron's semantics does, in both directions of a connection and whatever
// conntrack says, also of ICMP errors about it, on one host and across two; and
// real switches agree.
func TestSecurityGroupsAreNeutrons(t *testing.T) {
	const clouds, packets, traced = 24, 200, 25
	seed := cmp.Or(*propertySeed, uint64(time.Now().UnixNano()))
	t.Logf("once more: go test ./pipeline -run SecurityGroupsAre -sgseed %d", seed)
	sw := startTraced(t, "host1", "host2")
	r := rand.New(rand.NewPCG(seed, 0))
	var did tally
	for range clouds {
		w, ends := randomCloud(t, r)
		v := w.store.View()
		walkers := map[string]*flows.Walker{}
		for _, host := range []string{"host1", "host2"} {
			w.compiler.Read(Target{host, "br-int"}, func(state State) {
				walkers[host] = flows.NewWalker(state.Desired)
				sw.load(host, state.Desired)
			})
		}
		for i := range packets {
			c := randomTuple(r, ends)
			for _, s := range standings {
				if c.later && s.related {
					continue // nobody sends errors about them
				}
				want := passes(v, c, s)
				for _, h := range did.walk(t, walkers, v, c, s, want) {
					if i >= traced || !h.traceable(v, s) {
						continue
					}
					did.traced++
					if got, text := sw.passes(h.leg, c, s); got != h.passed {
						t.Fatalf("%s, %s: passes %s %t by a switch, %t by the walker and Neutron\n%s", c, s, h.host, got, h.passed, text)
					}
				}
			}
		}
	}
	t.Logf("%d of %d packets passed, %d of them from host to host, %d of them ICMP errors, %d legs were traced in a switch; %d recirculations on a host at the most",
		did.passed, did.walked, did.across, did.errors, did.traced, did.recirculations)
	if did.passed == 0 || did.passed == did.walked || did.across == 0 || did.errors == 0 || did.traced == 0 || did.recirculations != 2 {
		t.Errorf("%+v", did)
	}
}

// tally is what the property was seen to hold for.
type tally struct{ walked, passed, across, errors, traced, recirculations int }

// walkedLeg is a leg as the walker saw it.
type walkedLeg struct {
	leg
	passed bool
}

// walk follows a packet from host to host, and tells about each that it came to.
func (n *tally) walk(t *testing.T, walkers map[string]*flows.Walker, v *network.View, c tuple, s standing, want bool) []walkedLeg {
	t.Helper()
	packet := c.packet(s)
	var began *flows.Packet
	if s.related {
		first := flows.NewPacket(c.terms()...)
		began = &first
	}
	var hops []walkedLeg
	way := ""
	for next := packet.first(v); ; {
		walker := walkers[next.host]
		walker.ConnState, walker.Began = s.state, began
		trace, err := walker.Walk(flows.NewPacket(next.packet...))
		way += fmt.Sprintf("%s: %s", next.host, &trace)
		if err != nil {
			t.Fatalf("%s, %s: %v\n%s", c, s, err, way)
		}
		n.recirculations = max(n.recirculations, trace.Recirculations)
		sent := slices.IndexFunc(trace.Sent, func(sent flows.Sent) bool { return sent.Port == next.out })
		hops = append(hops, walkedLeg{next, sent >= 0})
		if sent < 0 || next.host == packet.receiver.host {
			break
		}
		next = packet.second(v, trace.Sent[sent].Packet)
	}
	last := hops[len(hops)-1]
	got := last.passed && last.host == packet.receiver.host
	if got != want {
		t.Fatalf("%s, %s: passes %t, Neutron says %t\n%s", c, s, got, want, way)
	}
	n.walked++
	if got {
		n.passed++
		n.across += len(hops) - 1
	}
	if got && s.related {
		n.errors++
	}
	return hops
}

// traceable reports whether the tuple that a trace begins with is there where it
// is looked at: what stateless groups look at has none, nor what comes after, nor
// what comes after the commit of a new connection. What is invalid has none.
func (h leg) traceable(v *network.View, s standing) bool {
	if s.invalid {
		return true
	}
	has := func(p end, stateless bool) bool {
		return slices.ContainsFunc(p.SecurityGroups, func(id string) bool { return v.SecurityGroup(id).Stateless == stateless })
	}
	clear := false
	for i, p := range h.gates {
		if has(p, false) && (clear || has(p, true) || i > 0 && s.state&ctNew != 0) {
			return false
		}
		clear = clear || has(p, true)
	}
	return true
}

// traced is a real ovs-vswitchd, asked by ofproto/trace.
type traced struct {
	*testing.T
	dir string
}

// startVswitchd starts one without bridges.
func startVswitchd(t *testing.T) *traced {
	t.Helper()
	dir, err := os.MkdirTemp("", "trace") // short: sockets live in it
	if err != nil {
		t.Fatal(err)
	}
	s := &traced{t, dir}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s.run("", "ovsdb-tool", "create", s.path("conf.db"), "/usr/share/openvswitch/vswitch.ovsschema")
	s.daemon("ovsdb-server", s.path("conf.db"), "--remote=punix:"+s.path("db.sock"))
	s.daemon("ovs-vswitchd", "unix:"+s.path("db.sock"), "--enable-dummy", "--disable-system", "--disable-system-route")
	return s
}

// startTraced starts one with the br-int of hosts, each with room for three servers.
func startTraced(t *testing.T, hosts ...string) *traced {
	t.Helper()
	s := startVswitchd(t)
	args := []string{"--timeout=20", "--db=unix:" + s.path("db.sock")}
	for i, host := range hosts {
		args = append(args, "--", "add-br", host, "--", "set", "bridge", host, "datapath_type=dummy", "fail-mode=secure", "protocols=OpenFlow10,OpenFlow13")
		for _, port := range []int{1, 2, 3, patchToTunnel} {
			name := fmt.Sprint("p", tracedPortNumber(i, port))
			args = append(args, "--", "add-port", host, name, "--", "set", "interface", name, "type=dummy", fmt.Sprint("ofport_request=", port))
		}
	}
	s.run("", "ovs-vsctl", args...)
	return s
}

// tracedPortNumber is the number in the datapath of a port of a host, which is
// the one that its name ends with.
func tracedPortNumber(host, port int) int { return 1000*(host+1) + port }

func (s *traced) path(name string) string { return filepath.Join(s.dir, name) }

func (s *traced) run(stdin, name string, args ...string) string {
	s.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "OVS_RUNDIR="+s.dir, "OVS_LOGDIR="+s.dir, "OVS_DBDIR="+s.dir)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.Fatalf("%s %s: %s\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (s *traced) daemon(name string, args ...string) {
	s.Helper()
	s.run("", name, append(args, "--detach", "--no-chdir", "--pidfile="+s.path(name+".pid"), "--unixctl="+s.path(name+".ctl"), "--log-file="+s.path(name+".log"))...)
	text, err := os.ReadFile(s.path(name + ".pid"))
	if err != nil {
		s.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			s.Errorf("%s died: %s", name, err)
		}
	})
}

// load gives the switch of a host the flows of a set, but for those that use groups.
func (s *traced) load(host string, set *flows.Set) {
	s.Helper()
	var b strings.Builder
	for _, f := range set.SortedFlows() {
		if text := f.String(); !strings.Contains(text, "group:") {
			b.WriteString(text + "\n")
		}
	}
	s.run(b.String(), "ovs-ofctl", "-O", "OpenFlow13", "replace-flows", "unix:"+s.path(host+".mgmt"), "-")
}

// passes asks whether a packet of a connection leaves a host by the port that it has to.
func (s *traced) passes(h leg, c tuple, st standing) (bool, string) {
	s.Helper()
	text := flows.NewMatch(h.packet...).String()
	if !st.invalid {
		// The tuple can't come from a connection that is not there: it is given, with
		// a state that a trace takes together with a tuple, until ct says another.
		src, dst := "ct_nw_src", "ct_nw_dst"
		if c.src.Is6() {
			src, dst = "ct_ipv6_src", "ct_ipv6_dst"
		}
		text += fmt.Sprintf(",ct_state=trk|est,%s=%s,%s=%s,ct_nw_proto=%d", src, c.src, dst, c.dst, c.protocol)
		if c.srcPort != 0 || c.dstPort != 0 {
			text += fmt.Sprintf(",ct_tp_src=%d,ct_tp_dst=%d", c.srcPort, c.dstPort)
		}
	}
	// What describes one packet is read field by field, each by its own name.
	packet := c.packet(st)
	name := map[uint8]string{network.ProtocolTCP: "tcp", network.ProtocolUDP: "udp", network.ProtocolSCTP: "sctp"}[packet.protocol]
	text = strings.NewReplacer(",tp_src=", ","+name+"_src=", ",tp_dst=", ","+name+"_dst=").Replace(text)
	if packet.protocol == network.ProtocolICMPv6 {
		text = strings.ReplaceAll(text, ",icmp_", ",icmpv6_")
	}
	said := s.ask("ofproto/trace", h.host, text, "--ct-next", st.said, "--ct-next", st.said)
	last := said[strings.LastIndex(said, "Datapath actions: ")+len("Datapath actions: "):]
	actions := strings.Split(strings.TrimSpace(last), ",")
	return actions[len(actions)-1] == fmt.Sprint(tracedPortNumber(int(h.host[len("host")]-'1'), int(h.out))), said
}

// ask gives ovs-vswitchd a command as ovs-appctl does, without a process for each.
func (s *traced) ask(command string, args ...string) string {
	s.Helper()
	conn, err := net.Dial("unix", s.path("ovs-vswitchd.ctl"))
	if err != nil {
		s.Fatal(err)
	}
	defer conn.Close()
	if err := json.NewEncoder(conn).Encode(map[string]any{"id": 0, "method": command, "params": args}); err != nil {
		s.Fatal(err)
	}
	var answer struct {
		Result string
		Error  any
	}
	if err := json.NewDecoder(conn).Decode(&answer); err != nil {
		s.Fatal(err)
	}
	if answer.Error != nil {
		s.Fatalf("%s %q: %v", command, args, answer.Error)
	}
	return answer.Result
}
