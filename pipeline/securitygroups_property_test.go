package pipeline

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"planck/flows"
	"planck/network"
)

// tuple is a connection between two ports.
type tuple struct {
	protocol           uint8
	src, dst           netip.Addr
	srcPort, dstPort   uint16 // or type and code of ICMP
	sender, receiver   *network.Port
	senderIn, receivIn uint32 // their OpenFlow ports
}

// allows is Neutron's semantics: whether a rule of one of the groups of a port
// admits a connection, with remote as the other side.
func allows(v *network.View, p *network.Port, direction string, c tuple, remote netip.Addr) bool {
	for _, group := range p.SecurityGroups {
		for r := range v.RulesOf(group) {
			if r.Direction == direction && (r.Ethertype == network.IPv4) == remote.Is4() && admitsProtocol(r, c) && admitsRemote(v, r, remote) {
				return true
			}
		}
	}
	return false
}

func admitsProtocol(r *network.SecurityGroupRule, c tuple) bool {
	protocol, some := r.ProtocolNumber()
	switch {
	case !some:
		return true
	case protocol != c.protocol:
		return false
	case r.PortMin == network.NoPort:
		return true
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
		rule.Protocol = pickOne(r, "", "tcp", "udp", "icmp", "132", "47")
		if rule.Ethertype == network.IPv6 && rule.Protocol == "icmp" {
			rule.Protocol = "ipv6-icmp"
		}
		switch n, _ := rule.ProtocolNumber(); n {
		case network.ProtocolTCP, network.ProtocolUDP, network.ProtocolSCTP:
			if r.IntN(4) > 0 {
				rule.PortMin = 1 + r.IntN(100)
				rule.PortMax = rule.PortMin + r.IntN(50)
			}
		case network.ProtocolICMP, network.ProtocolICMPv6:
			if r.IntN(2) > 0 {
				rule.PortMin = pickOne(r, 8, 13, 128)
				rule.PortMax = pickOne(r, network.NoPort, 0, 1)
			}
		}
		switch r.IntN(3) {
		case 0:
			rule.RemoteGroupID = pickOne(r, groups...)
		case 1:
			rule.RemotePrefix = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(10 + r.IntN(4))}), pickOne(r, 0, 24, 31, 32))
			if rule.Ethertype == network.IPv6 {
				rule.RemotePrefix = netip.MustParsePrefix(pickOne(r, "fd00::a/128", "fd00::/64", "::/0", "fd00::c/127"))
			}
		}
	}
}

var groupNames = []string{"g1", "g2", "g3"}

// randomCloud has four ports on one host with random groups of random rules.
func randomCloud(t *testing.T, r *rand.Rand) (*world, []*network.Port) {
	t.Helper()
	w := newWorld(t, Options{})
	w.hosts(1)
	w.network(&network.Network{Standard: network.Standard{ID: "blue"}, NetworkType: "gre", SegmentationID: 5}, "10.0.0.0/24")
	for _, g := range groupNames {
		w.group(g)
	}
	for i := range 24 {
		rule := &network.SecurityGroupRule{Standard: network.Standard{ID: fmt.Sprint("r", i)}, PortMin: network.NoPort, PortMax: network.NoPort}
		randomRule(r, groupNames)(rule)
		// Two that say the same are refused.
		_, err := w.store.Update(t.Context(), network.Cause{}, func(tx *network.Tx) error { return tx.CreateSecurityGroupRule(rule) })
		if err != nil && !strings.Contains(err.Error(), "already exists") {
			t.Fatal(err)
		}
	}
	var ports []*network.Port
	var ids []string
	for i, id := range []string{"a", "b", "c", "d"} {
		p := newPort(id, "blue", fmt.Sprintf("fa:16:3e:00:00:%02x", 10+i), fmt.Sprintf("10.0.0.%d", 10+i))
		p.AllowedAddressPairs = []network.AddressPair{{IP: netip.MustParsePrefix(fmt.Sprintf("fd00::%x/128", 10+i))}}
		for _, g := range groupNames {
			if r.IntN(2) == 0 {
				p.SecurityGroups = append(p.SecurityGroups, g)
			}
		}
		w.do(func(tx *network.Tx) error { return tx.CreatePort(p) })
		ports, ids = append(ports, p), append(ids, id)
	}
	w.plug("host1", ids...)
	return w, ports
}

func randomTuple(r *rand.Rand, ports []*network.Port) tuple {
	from := r.IntN(len(ports))
	to := (from + 1 + r.IntN(len(ports)-1)) % len(ports)
	c := tuple{sender: ports[from], receiver: ports[to], senderIn: uint32(from + 1), receivIn: uint32(to + 1)}
	v6 := r.IntN(3) == 0
	address := func(p *network.Port) netip.Addr {
		if v6 {
			return p.AllowedAddressPairs[0].IP.Addr()
		}
		return p.FixedIPs[0].IP
	}
	c.src, c.dst = address(c.sender), address(c.receiver)
	c.protocol = pickOne[uint8](r, network.ProtocolTCP, network.ProtocolUDP, network.ProtocolICMP, network.ProtocolSCTP)
	c.srcPort, c.dstPort = uint16(40000+r.IntN(1000)), uint16(1+r.IntN(160))
	if c.protocol == network.ProtocolICMP {
		c.srcPort, c.dstPort = pickOne[uint16](r, 8, 13), pickOne[uint16](r, 0, 1)
		if v6 {
			c.protocol, c.srcPort = network.ProtocolICMPv6, 128
		}
	}
	return c
}

// terms is the packet that begins the connection, or a reply to it.
func (c tuple) terms(reply bool) []flows.Term {
	from, to, in := c.sender, c.receiver, c.senderIn
	src, dst, sport, dport := c.src, c.dst, c.srcPort, c.dstPort
	if reply {
		from, to, in = to, from, c.receivIn
		src, dst, sport, dport = dst, src, dport, sport
	}
	terms := []flows.Term{flows.InPort.Is(uint64(in)), flows.EthSrc.IsMAC(from.MAC), flows.EthDst.IsMAC(to.MAC),
		flows.IPProto.Is(uint64(c.protocol)), flows.IPTTL.Is(64)}
	if src.Is4() {
		terms = append(terms, flows.IPv4, flows.IPv4Src.IsIP(src), flows.IPv4Dst.IsIP(dst))
	} else {
		terms = append(terms, flows.IPv6, flows.IPv6Src.IsIP(src), flows.IPv6Dst.IsIP(dst))
	}
	icmpType := uint64(c.srcPort)
	if reply {
		icmpType = map[uint16]uint64{8: 0, 13: 14, 128: 129}[c.srcPort]
	}
	switch c.protocol {
	case network.ProtocolTCP:
		return append(terms, flows.TCPSrc.Is(uint64(sport)), flows.TCPDst.Is(uint64(dport)))
	case network.ProtocolUDP:
		return append(terms, flows.UDPSrc.Is(uint64(sport)), flows.UDPDst.Is(uint64(dport)))
	case network.ProtocolSCTP:
		return append(terms, flows.SCTPSrc.Is(uint64(sport)), flows.SCTPDst.Is(uint64(dport)))
	case network.ProtocolICMP:
		return append(terms, flows.ICMPType.Is(icmpType), flows.ICMPCode.Is(uint64(c.dstPort)))
	}
	return append(terms, flows.ICMPv6Type.Is(icmpType), flows.ICMPv6Code.Is(uint64(c.dstPort)))
}

func (c tuple) String() string {
	return fmt.Sprintf("protocol %d from %s:%d of %s in %v to %s:%d of %s in %v", c.protocol, c.src, c.srcPort, c.sender.ID, c.sender.SecurityGroups,
		c.dst, c.dstPort, c.receiver.ID, c.receiver.SecurityGroups)
}

// TestSecurityGroupsAreNeutrons: the flows of random rules let pass what
// Neutron's semantics does, in both directions of a connection, and a real switch
// agrees.
func TestSecurityGroupsAreNeutrons(t *testing.T) {
	const clouds, packets, traced = 25, 120, 6
	sw := startTraced(t)
	r := rand.New(rand.NewPCG(1, 2))
	passed, most := 0, 0
	for range clouds {
		w, ports := randomCloud(t, r)
		v := w.store.View()
		var set *flows.Set
		w.compiler.Read(Target{"host1", "br-int"}, func(s State) { set = s.Desired })
		sw.load(set)
		for i := range packets {
			c := randomTuple(r, ports)
			want := allows(v, c.sender, network.Egress, c, c.dst) && allows(v, c.receiver, network.Ingress, c, c.src)
			for _, reply := range []bool{false, true} {
				walker := flows.NewWalker(set)
				walker.ConnState = ctTracked | ctNew
				out := c.receivIn
				if reply {
					walker.ConnState, out = ctTracked|1<<1|ctReply, c.senderIn
				}
				trace, err := walker.Walk(flows.NewPacket(c.terms(reply)...))
				if err != nil {
					t.Fatalf("%s, reply %t: %v", c, reply, err)
				}
				if got := slices.Contains(trace.Ports(), out); got != want {
					t.Fatalf("%s, reply %t: passes %t, Neutron says %t\n%s", c, reply, got, want, &trace)
				}
				most = max(most, trace.Recirculations)
				if i >= traced {
					continue
				}
				if got, text := sw.passes(c, reply); got != want {
					t.Fatalf("%s, reply %t: passes %t in a switch, Neutron says %t\n%s", c, reply, got, want, text)
				}
			}
			if want {
				passed++
			}
		}
	}
	t.Logf("%d of %d connections passed; %d recirculations at the most", passed, clouds*packets, most)
	if passed == 0 || passed == clouds*packets || most > 2 {
		t.Errorf("%d of %d passed, with %d recirculations", passed, clouds*packets, most)
	}
}

// traced is a real ovs-vswitchd, asked by ofproto/trace.
type traced struct {
	*testing.T
	dir string
}

func startTraced(t *testing.T) *traced {
	t.Helper()
	dir, err := os.MkdirTemp("", "trace") // short: sockets live in it
	if err != nil {
		t.Fatal(err)
	}
	s := &traced{t, dir}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s.run("", "ovsdb-tool", "create", s.path("conf.db"), "/usr/share/openvswitch/vswitch.ovsschema")
	s.daemon("ovsdb-server", s.path("conf.db"), "--remote=punix:"+s.path("db.sock"))
	s.daemon("ovs-vswitchd", "unix:"+s.path("db.sock"), "--enable-dummy", "--disable-system")
	args := []string{"--timeout=20", "--db=unix:" + s.path("db.sock"), "add-br", "br-int", "--", "set", "bridge", "br-int",
		"datapath_type=dummy", "fail-mode=secure", "protocols=OpenFlow10,OpenFlow13"}
	for i := 1; i <= 4; i++ {
		args = append(args, "--", "add-port", "br-int", fmt.Sprint("p", i), "--", "set", "interface", fmt.Sprint("p", i), "type=dummy", fmt.Sprint("ofport_request=", i))
	}
	s.run("", "ovs-vsctl", args...)
	return s
}

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

// load gives the switch the flows of a set, but for those that use groups.
func (s *traced) load(set *flows.Set) {
	s.Helper()
	var b strings.Builder
	for _, f := range set.SortedFlows() {
		if text := f.String(); !strings.Contains(text, "group:") {
			b.WriteString(text + "\n")
		}
	}
	s.run(b.String(), "ovs-ofctl", "-O", "OpenFlow13", "replace-flows", "unix:"+s.path("br-int.mgmt"), "-")
}

// passes asks whether a packet of a connection leaves by the port of its destination.
func (s *traced) passes(c tuple, reply bool) (bool, string) {
	s.Helper()
	// Not new, since a commit would take the tuple off the packet before the second ct.
	out, state := c.receivIn, "trk,est"
	if reply {
		out, state = c.senderIn, "trk,est,rpl"
	}
	src, dst := "ct_nw_src", "ct_nw_dst"
	if c.src.Is6() {
		src, dst = "ct_ipv6_src", "ct_ipv6_dst"
	}
	// The tuple can't come from a connection that is not there: it is given.
	text := fmt.Sprintf("%s,ct_state=%s,%s=%s,%s=%s,ct_nw_proto=%d,ct_tp_src=%d,ct_tp_dst=%d", flows.NewMatch(c.terms(reply)...),
		strings.ReplaceAll(state, ",", "|"), src, c.src, dst, c.dst, c.protocol, c.srcPort, c.dstPort)
	// What describes one packet is read field by field, each by its own name.
	name := map[uint8]string{network.ProtocolTCP: "tcp", network.ProtocolUDP: "udp", network.ProtocolSCTP: "sctp"}[c.protocol]
	text = strings.NewReplacer(",tp_src=", ","+name+"_src=", ",tp_dst=", ","+name+"_dst=").Replace(text)
	if c.protocol == network.ProtocolICMPv6 {
		text = strings.ReplaceAll(text, ",icmp_", ",icmpv6_")
	}
	said := s.run("", "ovs-appctl", "-t", s.path("ovs-vswitchd.ctl"), "ofproto/trace", "br-int", text, "--ct-next", state, "--ct-next", state)
	last := said[strings.LastIndex(said, "Datapath actions: ")+len("Datapath actions: "):]
	actions := strings.Split(strings.TrimSpace(last), ",")
	return actions[len(actions)-1] == fmt.Sprint(out), said
}
