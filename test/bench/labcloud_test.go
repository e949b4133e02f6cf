package bench

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"planck/test/lab"
)

// labCloud is a controller with a lab: hosts with a user-space datapath, VMs in
// namespaces on veth pairs.
type labCloud struct {
	*server
	lab        *lab.Lab
	namespaces int // made by namespaceOn
}

// unlimited lifts the limits on what VMs may send to the controller.
const unlimited = "[openflow]\npunt_rate_per_host = 0\npunt_rate_per_port = 0\n"

func newLabCloud(tb testing.TB, hosts int, config string) *labCloud {
	tb.Helper()
	s := serve(tb, "", config)
	c := &labCloud{server: s, lab: lab.ForTest(tb, lab.Options{Hosts: hosts, Controllers: []string{fmt.Sprintf("tcp:controller:%d", s.ovsdb)}})}
	tb.Cleanup(s.end) // before the lab
	return c
}

// must is for what a tool of the lab says.
func (c *labCloud) must(out string, err error) string {
	c.Helper()
	if err != nil {
		c.Fatal(err)
	}
	return out
}

func (c *labCloud) switchCPU(host string) time.Duration {
	return processCPU(c.TB, c.lab.Host(host).VswitchdPID())
}

// network makes a network with a subnet.
func (c *labCloud) network(cidr string, attributes object) string {
	c.Helper()
	if attributes == nil {
		attributes = object{}
	}
	id := c.mustCreate("network", attributes)
	c.mustCreate("subnet", object{"network_id": id, "cidr": cidr, "ip_version": 4})
	return id
}

// vm is a VM whose port is ACTIVE.
type vm struct {
	*lab.VM
	mac net.HardwareAddr
	ip  netip.Addr
}

func (c *labCloud) boot(name, host, network string) *vm {
	c.Helper()
	return c.bootWith(name, host, network, nil)
}

// bootWith boots a VM whose port has further attributes.
func (c *labCloud) bootWith(name, host, network string, attributes object) *vm {
	c.Helper()
	body := object{"network_id": network, "name": name, "device_owner": "compute:nova"}
	maps.Copy(body, attributes)
	id := c.mustCreate("port", body)
	_, answer, err := c.request("GET", "/v2.0/ports/"+id, nil)
	if err != nil {
		c.Fatal(err)
	}
	var port struct {
		Port struct {
			MAC string `json:"mac_address"`
			IPs []struct {
				IP netip.Addr `json:"ip_address"`
			} `json:"fixed_ips"`
		}
	}
	if err := json.Unmarshal(answer, &port); err != nil {
		c.Fatal(err)
	}
	mac, err := net.ParseMAC(port.Port.MAC)
	if err != nil {
		c.Fatal(err)
	}
	v, err := c.lab.AddVM(c.Context(), host, name, lab.VMPort{ID: id, MAC: port.Port.MAC, MTU: 1458})
	if err != nil {
		c.Fatal(err)
	}
	c.awaitActive(id, 5*time.Millisecond)
	return &vm{v, mac, port.Port.IPs[0].IP}
}

// rawLink sends and receives whole frames on a link.
type rawLink struct {
	fd     int
	buffer [2048]byte
}

func (v *vm) rawLink(tb testing.TB) *rawLink { return newRawLink(tb, v.Namespace(), "eth0") }

func newRawLink(tb testing.TB, namespace, link string) *rawLink {
	tb.Helper()
	fd, err := packetSocket(namespace, link)
	if err != nil {
		tb.Fatalf("%s in %s: %v", link, namespace, err)
	}
	tb.Cleanup(func() { unix.Close(fd) })
	return &rawLink{fd: fd}
}

// packetSocket opens an AF_PACKET socket in a namespace.
func packetSocket(namespace, link string) (fd int, err error) {
	err = inNamespace(namespace, func() (err error) {
		fd, err = openPacketSocket(link)
		return err
	})
	return fd, err
}

func openPacketSocket(link string) (int, error) {
	const all = unix.ETH_P_ALL>>8 | unix.ETH_P_ALL&0xff<<8 // in network order
	i, err := net.InterfaceByName(link)
	if err != nil {
		return 0, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, all)
	if err != nil {
		return 0, err
	}
	const receiveBuffer = 4 << 20
	for _, set := range []func() error{
		func() error { return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: i.Index}) },
		func() error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) },
		func() error {
			return unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 300_000})
		},
	} {
		if err := set(); err != nil {
			unix.Close(fd)
			return 0, err
		}
	}
	return fd, nil
}

func (l *rawLink) send(frame []byte) error {
	_, err := unix.Write(l.fd, frame)
	return err
}

// receive returns a frame, which is valid until the next call; EAGAIN after a
// pause of 300 ms.
func (l *rawLink) receive() ([]byte, error) {
	for {
		n, err := unix.Read(l.fd, l.buffer[:])
		if err == unix.EINTR {
			continue
		}
		return l.buffer[:max(n, 0)], err
	}
}
