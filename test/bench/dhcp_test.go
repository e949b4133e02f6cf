package bench

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// BenchmarkDHCP makes full exchanges (DISCOVER, OFFER, REQUEST, ACK), 32 in
// flight, between a VM and the controller. Beside it dnsmasq where Neutron has
// it: in a namespace on the same switch, which forwards by NORMAL.
func BenchmarkDHCP(b *testing.B) {
	t := newTable("dhcp")
	const inFlight = 32
	c := newLabCloud(b, 1, unlimited)
	one := c.dnsmasq(1, 20_000, inFlight)
	thousand := c.dnsmasq(1000, 1000, inFlight)

	network := c.network("10.0.0.0/16", nil)
	v := c.boot("vm", "host1", network)
	client := []dhcpClient{{v.mac, v.ip}}
	ports := 1
	for _, size := range []int{1, 1000, 10_000} {
		if size > *sizes {
			break
		}
		c.unplugged(network, size-ports)
		ports = size
		ours := c.fastestDHCP(v.rawLink(b), client, 20_000, inFlight, c.process.Process.Pid)
		aim := "as with 1 port"
		if size == 1 {
			aim = "≥ 1.4×"
		}
		t.add(dhcpRow(fmt.Sprintf("full exchanges, network of %s ports, against dnsmasq with 1 host", count(size)), ours, one, aim))
		if size == 1000 {
			t.add(dhcpRow("full exchanges, network of 1,000 ports, against dnsmasq with 1,000 hosts", ours, thousand, ""))
		}
		t.add(row{
			what: fmt.Sprintf("CPU of the server / of the switch for each exchange, %s ports", count(size)),
			ours: ours.cpuEach(), peer: one.cpuEach() + " (dnsmasq, 1 host)", aim: "≤ 20 µs of ours",
		})
	}
}

func dhcpRow(what string, ours, peer dhcpLoad, aim string) row {
	return row{
		what: what, ours: ours.String(), peer: peer.String(),
		ratio: times(ours.rate() / peer.rate()), aim: aim,
	}
}

// unplugged adds ports that no VM uses.
func (c *labCloud) unplugged(network string, n int) {
	c.Helper()
	const perRequest = 500
	for ; n > 0; n -= perRequest {
		bodies := make([]object, min(n, perRequest))
		for i := range bodies {
			bodies[i] = object{"network_id": network, "device_owner": "compute:nova"}
		}
		if _, err := c.createMany("ports", bodies); err != nil {
			c.Fatal(err)
		}
	}
}

// dhcpClient is what a lease is asked for.
type dhcpClient struct {
	mac net.HardwareAddr
	ip  netip.Addr
}

// dhcpLoad is what a number of exchanges took.
type dhcpLoad struct {
	took, server, vswitchd time.Duration
	done                   int
	each                   []time.Duration
}

func (l dhcpLoad) rate() float64 { return float64(l.done) / l.took.Seconds() }

func (l dhcpLoad) cpuEach() string {
	return us(l.server/time.Duration(l.done)) + " / " + us(l.vswitchd/time.Duration(l.done))
}

func (l dhcpLoad) String() string {
	return fmt.Sprintf("%s, p50 %s, p99 %s", perSecond(l.done, l.took), ms(percentile(l.each, 50)), ms(percentile(l.each, 99)))
}

// fastestDHCP is the fastest of three runs against a server on host1.
func (c *labCloud) fastestDHCP(link *rawLink, clients []dhcpClient, exchanges, inFlight, server int) (fastest dhcpLoad) {
	c.Helper()
	for range 3 {
		cpu, switchCPU := processCPU(c.TB, server), c.switchCPU("host1")
		l, err := link.dhcp(clients, exchanges, inFlight)
		if err != nil {
			c.Fatal(err)
		}
		l.server, l.vswitchd = processCPU(c.TB, server)-cpu, c.switchCPU("host1")-switchCPU
		if fastest.done == 0 || l.took < fastest.took {
			fastest = l
		}
	}
	return fastest
}

// dnsmasq measures dnsmasq on a bridge of host1, with so many hosts in its
// configuration, which take turns.
func (c *labCloud) dnsmasq(hosts, exchanges, inFlight int) dhcpLoad {
	c.Helper()
	const bridge = "br-normal"
	h := c.lab.Host("host1")
	c.must(h.Vsctl("add-br", bridge, "--", "set", "Bridge", bridge, "datapath_type=netdev"))
	defer func() { c.must(h.Vsctl("del-br", bridge)) }()
	client := c.namespaceOn(bridge, "client", "")
	server := c.namespaceOn(bridge, "server", "10.9.0.1/16")

	clients := make([]dhcpClient, hosts)
	var known bytes.Buffer
	for i := range clients {
		clients[i] = dhcpClient{net.HardwareAddr{0xfa, 0x16, 0x3e, 1, byte(i >> 8), byte(i)}, netip.AddrFrom4([4]byte{10, 9, byte(1 + i>>8), byte(i)})}
		fmt.Fprintf(&known, "%s,%s\n", clients[i].mac, clients[i].ip)
	}
	dir := c.TempDir()
	file := filepath.Join(dir, "hosts")
	if err := os.WriteFile(file, known.Bytes(), 0o644); err != nil {
		c.Fatal(err)
	}
	// `ip netns exec` becomes dnsmasq: the process is its own.
	cmd := exec.Command("ip", "netns", "exec", server, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root",
		"--interface=eth0", "--bind-interfaces", "--no-ping", "--dhcp-authoritative", "--dhcp-range=10.9.0.0,static,255.255.0.0,86400s",
		"--dhcp-hostsfile="+file, "--dhcp-leasefile="+filepath.Join(dir, "leases"), "--pid-file=", "--log-facility=/dev/null", "--quiet-dhcp")
	if err := cmd.Start(); err != nil {
		c.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	link := newRawLink(c.TB, client, "eth0")
	// Each host has its lease before it counts.
	if _, err := link.dhcp(clients, hosts, min(inFlight, hosts)); err != nil {
		c.Fatal(err)
	}
	return c.fastestDHCP(link, clients, exchanges, inFlight, cmd.Process.Pid)
}

// namespaceOn makes a namespace on a veth pair, whose other end is a port of a
// bridge of host1. It goes with the benchmark.
func (c *labCloud) namespaceOn(bridge, name, cidr string) string {
	c.Helper()
	h := c.lab.Host("host1")
	c.namespaces++
	ns, port := fmt.Sprintf("%s-%s%d", c.lab.Name(), name, c.namespaces), fmt.Sprintf("%s%d", name, c.namespaces)
	run := func(args ...string) {
		c.Helper()
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			c.Fatalf("%s: %v: %s", strings.Join(args, " "), err, out)
		}
	}
	run("ip", "netns", "add", ns)
	c.Cleanup(func() { run("ip", "netns", "del", ns) })
	run("ip", "-n", ns, "link", "add", "eth0", "mtu", "1458", "type", "veth", "peer", "name", port, "mtu", "1458", "netns", h.Namespace())
	if cidr != "" {
		run("ip", "-n", ns, "addr", "add", cidr, "dev", "eth0")
	}
	run("ip", "-n", ns, "link", "set", "eth0", "up")
	run("ip", "-n", h.Namespace(), "link", "set", port, "up")
	run("ip", "netns", "exec", ns, "ethtool", "-K", "eth0", "tx", "off", "gro", "off")
	run("ip", "netns", "exec", h.Namespace(), "ethtool", "-K", port, "tx", "off", "gro", "off")
	c.must(h.Vsctl("add-port", bridge, port, "--", "set", "Interface", port, "mtu_request=1458"))
	return ns
}

// Messages of DHCP (RFC 2132, option 53).
const (
	dhcpDiscover = 1
	dhcpOffer    = 2
	dhcpRequest  = 3
	dhcpACK      = 5
)

// dhcp makes exchanges and keeps so many under way. What is lost is begun anew.
func (l *rawLink) dhcp(clients []dhcpClient, exchanges, inFlight int) (dhcpLoad, error) {
	type exchange struct {
		client dhcpClient
		began  time.Time
	}
	var load dhcpLoad
	under := make(map[uint32]exchange, inFlight)
	xid, start, give := uint32(0), time.Now(), time.Now().Add(patience)
	begin := func() error {
		xid++
		c := clients[int(xid)%len(clients)]
		under[xid] = exchange{c, time.Now()}
		return l.send(dhcpFrame(c, dhcpDiscover, xid, nil))
	}
	for load.done < exchanges {
		for len(under) < min(inFlight, exchanges-load.done) {
			if err := begin(); err != nil {
				return load, err
			}
		}
		frame, err := l.receive()
		if errors.Is(err, syscall.EAGAIN) && time.Now().Before(give) {
			clear(under)
			continue
		}
		if err != nil {
			return load, fmt.Errorf("after %d exchanges: %w", load.done, err)
		}
		id, kind, server := dhcpAnswer(frame)
		e, ok := under[id]
		switch {
		case !ok:
		case kind == dhcpOffer:
			if err := l.send(dhcpFrame(e.client, dhcpRequest, id, server)); err != nil {
				return load, err
			}
		case kind == dhcpACK:
			delete(under, id)
			load.done++
			load.each = append(load.each, time.Since(e.began))
		default:
			return load, fmt.Errorf("DHCP message %d instead of an OFFER or an ACK", kind)
		}
	}
	load.took = time.Since(start)
	return load, nil
}

// Where things are in a frame with IPv4 without options, UDP and DHCP.
const (
	dhcpAt    = 14 + 20 + 8
	optionsAt = dhcpAt + 240
)

// dhcpFrame is a DISCOVER, or a REQUEST for the client's address when it has
// the server that offered it.
func dhcpFrame(c dhcpClient, kind byte, xid uint32, server []byte) []byte {
	options := []byte{53, 1, kind, 55, 6, 1, 3, 6, 15, 26, 121}
	if server != nil {
		options = append(append(options, 54, 4), server...)
		options = append(append(options, 50, 4), c.ip.AsSlice()...)
	}
	options = append(options, 255)
	f := make([]byte, optionsAt, optionsAt+len(options))
	copy(f, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	copy(f[6:], c.mac)
	f = append(f, options...)
	be := binary.BigEndian
	be.PutUint16(f[12:], 0x0800)
	copy(f[14:], []byte{0x45, 0})
	be.PutUint16(f[16:], uint16(len(f)-14))
	copy(f[22:], []byte{64, 17, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255})
	be.PutUint16(f[24:], ipChecksum(f[14:34]))
	be.PutUint16(f[34:], 68)
	be.PutUint16(f[36:], 67)
	be.PutUint16(f[38:], uint16(len(f)-34)) // a checksum of 0 is none
	copy(f[dhcpAt:], []byte{1, 1, 6, 0})
	be.PutUint32(f[dhcpAt+4:], xid)
	be.PutUint16(f[dhcpAt+10:], 0x8000) // answer by broadcast: the client has no address yet
	copy(f[dhcpAt+28:], c.mac)
	copy(f[dhcpAt+236:], []byte{0x63, 0x82, 0x53, 0x63})
	return f
}

func ipChecksum(header []byte) uint16 {
	var sum uint32
	for i := 0; i < len(header); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(header[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// dhcpAnswer reads what a server sent; kind is 0 for any other frame.
func dhcpAnswer(f []byte) (xid uint32, kind byte, server []byte) {
	if len(f) < optionsAt || f[12] != 8 || f[13] != 0 || f[23] != 17 || f[dhcpAt] != 2 {
		return 0, 0, nil
	}
	for o := f[optionsAt:]; len(o) > 1 && o[0] != 255 && len(o) >= 2+int(o[1]); o = o[2+int(o[1]):] {
		switch o[0] {
		case 53:
			kind = o[2]
		case 54:
			server = o[2:6]
		}
	}
	return binary.BigEndian.Uint32(f[dhcpAt+4:]), kind, server
}
