package pipeline

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"planck/flows"
	"planck/network"
)

// tracedHosts forwards by ofproto/trace: the bridges of all hosts in one real
// ovs-vswitchd without devices, whose tunnels lead to a bridge that no host has.
type tracedHosts struct {
	*traced
	conns map[Target]*ofConn
	ctl   net.Conn
	asked *json.Decoder
	ports map[int]tracedPort // by number in the datapath
}

type tracedPort struct {
	bridge string // as br-int
	port   uint32
}

// tracedBridges has the letter of each bridge of a host.
var tracedBridges = map[string]string{"int": "br-int", "tun": "br-tun", "ex": "br-ex"}

func tracedName(t Target) string { return t.Host + strings.TrimPrefix(t.Bridge, "br") }

// startTracedHosts starts switches of hosts as host makes them, with room for
// so many VMs on each.
func startTracedHosts(t *testing.T, hosts, vms int) *tracedHosts {
	t.Helper()
	s := &tracedHosts{traced: startVswitchd(t), conns: map[Target]*ofConn{}}
	args := []string{"--timeout=60", "--db=unix:" + s.path("db.sock")}
	add := func(bridge, name, typ string, ofport int, options ...string) {
		args = append(args, "--", "add-port", bridge, name, "--", "set", "interface", name, "type="+typ, fmt.Sprint("ofport_request=", ofport))
		args = append(args, options...)
	}
	addBridge := func(name string) {
		args = append(args, "--", "add-br", name, "--", "set", "bridge", name, "datapath_type=dummy", "fail-mode=secure", "protocols=OpenFlow10,OpenFlow13")
	}
	patch := func(bridge, to string, port int) {
		add(bridge, bridge+"."+to, "patch", port, "options:peer="+bridge[:strings.LastIndex(bridge, "-")]+"-"+to+"."+bridge[strings.LastIndex(bridge, "-")+1:])
	}
	addBridge("underlay")
	add("underlay", "u", "dummy", 1)
	for i := range hosts {
		h := host(fmt.Sprint("host", i+1), byte(i+1))
		for name := range tracedBridges {
			addBridge(h.Name + "-" + name)
		}
		for vm := range vms {
			add(h.Name+"-int", fmt.Sprintf("%s.vm%d", h.Name, vm+1), "dummy", vm+1)
		}
		patch(h.Name+"-int", "tun", patchToTunnel)
		patch(h.Name+"-int", "ex", patchToWire)
		patch(h.Name+"-tun", "int", patchOfTunnel)
		patch(h.Name+"-ex", "int", patchOfWire)
		add(h.Name+"-ex", h.Name+".wire", "dummy", wirePort)
		for typ, port := range h.Bridges["br-tun"].Tunnels {
			add(h.Name+"-tun", h.Name+"."+typ, typ, int(port), "options:remote_ip=flow", "options:out_key=flow",
				fmt.Sprint("options:in_key=", i+1)) // without it they would be the same to a switch
		}
	}
	s.run("", "ovs-vsctl", args...)
	s.run("", "ovs-ofctl", "-O", "OpenFlow13", "add-flow", "unix:"+s.path("underlay.mgmt"), "actions=output:1")
	s.dial()
	s.appctl("netdev-dummy/ip4addr", "underlay", "10.250.0.100/24")
	s.appctl("ovs/route/add", "10.250.0.0/24", "underlay")
	for i := range hosts {
		s.appctl("tnl/neigh/set", "underlay", fmt.Sprintf("10.250.0.%d", i+1), "aa:00:00:00:00:01")
	}
	for i := range hosts {
		for _, bridge := range tracedBridges {
			t := Target{fmt.Sprint("host", i+1), bridge}
			s.conns[t] = s.connect(tracedName(t))
		}
	}
	s.learnPorts()
	return s
}

// dial opens the connections that are asked again and again.
func (s *tracedHosts) dial() {
	s.Helper()
	conn, err := net.Dial("unix", s.path("ovs-vswitchd.ctl"))
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { conn.Close() })
	s.ctl, s.asked = conn, json.NewDecoder(conn)
}

// appctl is ovs-appctl, without a process for each question.
func (s *tracedHosts) appctl(method string, params ...string) string {
	s.Helper()
	text, err := json.Marshal(map[string]any{"id": 0, "method": method, "params": append([]string{}, params...)})
	if err != nil {
		s.Fatal(err)
	}
	s.ctl.SetDeadline(time.Now().Add(time.Minute))
	if _, err := s.ctl.Write(text); err != nil {
		s.Fatal(err)
	}
	var reply struct {
		Result string
		Error  any
	}
	if err := s.asked.Decode(&reply); err != nil {
		s.Fatal(err)
	}
	if reply.Error != nil {
		s.Fatalf("%s %q: %v", method, params, reply.Error)
	}
	return reply.Result
}

var (
	shownBridge = regexp.MustCompile(`^  (host\d+)-(\w+):$`)
	shownPort   = regexp.MustCompile(`^    \S+ (\d+)/(\d+):`)
)

// learnPorts reads which number in the datapath is which port.
func (s *tracedHosts) learnPorts() {
	s.Helper()
	s.ports = map[int]tracedPort{}
	bridge := ""
	for line := range strings.SplitSeq(s.appctl("dpif/show"), "\n") {
		if m := shownBridge.FindStringSubmatch(line); m != nil {
			bridge = tracedBridges[m[2]]
		}
		if m := shownPort.FindStringSubmatch(line); m != nil && bridge != "" {
			s.ports[s.number(m[2])] = tracedPort{bridge, uint32(s.number(m[1]))}
		}
	}
}

func (s *tracedHosts) number(text string) int {
	s.Helper()
	n, err := strconv.ParseInt(text, 0, 64)
	if err != nil {
		s.Fatal(err)
	}
	return int(n)
}

// load gives all bridges what is wanted of them, by the difference to what they have.
func (s *tracedHosts) load(c *Compiler, hosts int) {
	s.Helper()
	for i := range hosts {
		for _, bridge := range tracedBridges {
			t := Target{fmt.Sprint("host", i+1), bridge}
			c.Read(t, func(state State) { s.conns[t].bring(state.Desired) })
		}
	}
}

// forward asks for one trace, which follows the patch ports by itself.
func (s *tracedHosts) forward(a arrival) ([]departure, string) {
	s.Helper()
	match := flows.NewMatch(a.terms()...).String()
	// What describes one packet is read field by field, each by its own name.
	match = strings.NewReplacer("tp_src=", "udp_src=", "tp_dst=", "udp_dst=").Replace(match)
	params := []string{tracedName(Target{a.host, a.bridge}), match}
	for range maxRecirculations {
		params = append(params, "--ct-next", "trk,new")
	}
	said := s.appctl("ofproto/trace", params...)
	r := replay{tracedHosts: s, said: said, resumed: map[string]string{}}
	return r.departures(a.frame), said
}

var resumes = regexp.MustCompile(`(?m)^recirc\((0x[0-9a-f]+)\) - resume`)

// replay does to a frame what a trace says that the datapath does.
type replay struct {
	*tracedHosts
	said    string
	resumed map[string]string // the datapath's actions after each recirculation
	all     []departure
}

func (r *replay) departures(f frame) []departure {
	r.Helper()
	const heading = "\nDatapath actions: "
	parts := strings.Split(r.said, heading)
	first := ""
	for i, part := range parts[1:] {
		actions, _, _ := strings.Cut(part, "\n")
		if m := resumes.FindAllStringSubmatch(parts[i], -1); m != nil {
			r.resumed[m[len(m)-1][1]] = actions
			continue
		}
		first = actions
	}
	r.do(&f, first)
	return r.all
}

// do applies a list of actions; a frame that is in a tunnel's header is gone.
func (r *replay) do(f *frame, actions string) {
	r.Helper()
	encapsulated := false
	for _, action := range splitActions(actions) {
		name, args, _ := strings.Cut(strings.TrimSuffix(action, ")"), "(")
		switch name {
		case "drop", "ct_clear":
		case "check_pkt_len": // all frames are short
			r.do(f, within(args, "le("))
		case "ct":
			r.translate(f, args)
		case "recirc":
			on := *f
			r.do(&on, r.resumed[args])
		case "clone":
			on := *f
			r.do(&on, args)
		case "set":
			r.set(f, args)
		case "push_vlan":
			f.vlan = uint16(r.number(argument(args, "vid=")))
		case "pop_vlan":
			f.vlan = 0
		case "tnl_push":
			r.push(*f, args)
			encapsulated = true
		case "userspace":
			r.all = append(r.all, departure{port: flows.PortController, frame: *f})
		default:
			if !encapsulated {
				r.output(*f, name)
			}
		}
	}
}

func (r *replay) output(f frame, name string) {
	r.Helper()
	p, ok := r.ports[r.number(name)]
	if !ok {
		r.Fatalf("action %q of a datapath is not known\n%s", name, r.said)
	}
	if p.port == 65534 {
		p.port = flows.PortLocal
	}
	r.all = append(r.all, departure{bridge: p.bridge, port: p.port, frame: f})
}

// translate is a new connection's translation.
func (r *replay) translate(f *frame, args string) {
	if src := argument(args, "nat(src="); src != "" {
		f.src = netip.MustParseAddr(src)
	}
	if dst := argument(args, "nat(dst="); dst != "" {
		f.dst = netip.MustParseAddr(dst)
	}
}

func (r *replay) set(f *frame, args string) {
	r.Helper()
	kind, values, _ := strings.Cut(args, "(")
	switch kind {
	case "eth":
		f.ethSrc, f.ethDst = r.mac(values, "src=", f.ethSrc), r.mac(values, "dst=", f.ethDst)
	case "ipv4", "ipv6":
		key := map[string]string{"ipv4": "ttl=", "ipv6": "hlimit="}[kind]
		if ttl := argument(values, key); ttl != "" {
			f.ttl = uint8(r.number(ttl))
		}
	case "skb_mark":
	default:
		r.Fatalf("set(%s) is not known\n%s", args, r.said)
	}
}

func (r *replay) mac(values, name string, old network.MAC) network.MAC {
	r.Helper()
	text := argument(values, name)
	if text == "" {
		return old
	}
	m, err := network.ParseMAC(text)
	if err != nil {
		r.Fatal(err)
	}
	return m
}

var tunnelIDs = regexp.MustCompile(`(?:key|vni)=(0x[0-9a-f]+)`)

// push is a frame that leaves by a tunnel.
func (r *replay) push(f frame, args string) {
	r.Helper()
	id := tunnelIDs.FindStringSubmatch(args)
	if id == nil {
		r.Fatalf("a tunnel without a key: %s", args)
	}
	d := departure{bridge: network.BridgeTunnel, key: uint32(r.number(id[1])), frame: f}
	_, outer, _ := strings.Cut(args, "ipv4(")
	d.peer = netip.MustParseAddr(argument(outer, "dst="))
	types := host("", 0).Bridges[network.BridgeTunnel].Tunnels
	switch {
	case strings.Contains(args, "gre("):
		d.port = types[network.TypeGRE]
	case strings.Contains(args, "vxlan("):
		d.port = types[network.TypeVXLAN]
	default:
		d.port = types[network.TypeGeneve]
	}
	r.all = append(r.all, d)
}

// argument is the value after a name, up to the next comma or bracket.
func argument(args, name string) string {
	for at := 0; ; {
		i := strings.Index(args[at:], name)
		if i < 0 {
			return ""
		}
		at += i + len(name)
		if before := at - len(name); before > 0 && args[before-1] != ',' && args[before-1] != '(' {
			continue
		}
		return args[at : at+strings.IndexAny(args[at:]+",", ",)")]
	}
}

// within is what is in the brackets of one of several alternatives.
func within(alternatives, name string) string {
	for _, a := range splitActions(alternatives) {
		if rest, ok := strings.CutPrefix(a, name); ok {
			return strings.TrimSuffix(rest, ")")
		}
	}
	return ""
}

// splitActions splits at the commas that are in no bracket.
func splitActions(text string) (all []string) {
	depth, start := 0, 0
	for i, c := range text {
		switch c {
		case '(':
			depth++
		case ')':
			depth--
		case ',':
			if depth == 0 {
				all = append(all, text[start:i])
				start = i + 1
			}
		}
	}
	return append(all, text[start:])
}

// ofConn is an OpenFlow connection that knows what it has sent.
type ofConn struct {
	testing.TB
	name      string
	conn      net.Conn
	in        *bufio.Reader
	installed *flows.Set
}

func (s *tracedHosts) connect(bridge string) *ofConn {
	s.Helper()
	conn, err := net.Dial("unix", s.path(bridge+".mgmt"))
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { conn.Close() })
	c := &ofConn{s.T, bridge, conn, bufio.NewReader(conn), flows.NewSet()}
	c.send(flows.AppendHello(nil, 1))
	return c
}

func (c *ofConn) send(b []byte) {
	c.Helper()
	c.conn.SetDeadline(time.Now().Add(time.Minute))
	if _, err := c.conn.Write(b); err != nil {
		c.Fatal(err)
	}
}

// bring makes the bridge have a set of flows and groups.
func (c *ofConn) bring(want *flows.Set) {
	c.Helper()
	const xid, barrier = 2, 3
	d := flows.Diff(want, c.installed, nil, nil, nil)
	var b []byte
	for _, g := range d.GroupAdds {
		b = flows.AppendGroupMod(b, xid, flows.CommandAdd, g)
	}
	for _, g := range d.GroupMods {
		b = flows.AppendGroupMod(b, xid, flows.CommandModify, g)
	}
	for _, f := range d.FlowAdds {
		b = flows.AppendFlowMod(b, xid, flows.FlowAdd, f)
	}
	for _, f := range d.FlowDeletes {
		b = flows.AppendFlowMod(b, xid, flows.FlowDeleteStrict, f)
	}
	for _, id := range d.GroupDeletes {
		b = flows.AppendGroupMod(b, xid, flows.CommandDelete, &flows.Group{ID: id})
	}
	c.send(flows.AppendBarrierRequest(b, barrier))
	for {
		h, body := c.read()
		switch h.Type {
		case flows.TypeError:
			c.Fatalf("%s refuses flows: %x", c.name, body)
		case flows.TypeEchoRequest:
			c.send(flows.AppendEchoReply(nil, h.XID, body))
		case flows.TypeBarrierReply:
			d.Apply(c.installed)
			return
		}
	}
}

func (c *ofConn) read() (flows.Header, []byte) {
	c.Helper()
	b := make([]byte, flows.HeaderSize)
	if _, err := io.ReadFull(c.in, b); err != nil {
		c.Fatal(err)
	}
	h, err := flows.DecodeHeader(b)
	if err != nil {
		c.Fatal(err)
	}
	body := make([]byte, h.Length-flows.HeaderSize)
	if _, err := io.ReadFull(c.in, body); err != nil {
		c.Fatal(err)
	}
	return h, body
}
