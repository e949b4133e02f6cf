package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"planck/test/lab"
)

const (
	randomPairs = 360
	pairsAtOnce = 24
	probeTries  = 60 // of a packet that should arrive, on a busy machine; one that should not is sent twice
	probeWait   = 500 * time.Millisecond
)

// pair is a question to planck trace, and to the network.
type pair struct {
	from     *lab.Node
	name     string // of the sender: a port's id, or an address outside
	to       string
	protocol string
	port     int
}

func (p pair) String() string {
	return fmt.Sprintf("%s to %s by %s/%d", p.from.Name(), p.to, p.protocol, p.port)
}

// listeners note who got which probe.
type listeners struct {
	sync.Mutex
	got map[string]string // probe → node
}

func (l *listeners) note(probe []byte, by string) {
	l.Lock()
	defer l.Unlock()
	l.got[string(probe)] = by
}

func (l *listeners) who(probe string) string {
	l.Lock()
	defer l.Unlock()
	return l.got[probe]
}

// listen takes UDP and TCP on some ports of a node.
func (c *cloud) listen(l *listeners, n *lab.Node, ports ...int) {
	c.Helper()
	for _, port := range ports {
		at := ":" + strconv.Itoa(port)
		packets, err := n.ListenPacket(c.Context(), at)
		if err != nil {
			c.Fatal(err)
		}
		streams, err := n.Listen(c.Context(), at)
		if err != nil {
			c.Fatal(err)
		}
		c.Cleanup(func() { packets.Close(); streams.Close() })
		go func() {
			b := make([]byte, 64)
			for {
				size, _, err := packets.ReadFrom(b)
				if err != nil {
					return
				}
				l.note(b[:size], n.Name())
			}
		}()
		go func() {
			for {
				conn, err := streams.Accept()
				if err != nil {
					return
				}
				go func() {
					defer conn.Close()
					conn.SetDeadline(time.Now().Add(10 * time.Second))
					b := make([]byte, 64)
					if size, err := conn.Read(b); err == nil {
						l.note(b[:size], n.Name())
					}
				}()
			}
		}()
	}
}

// probe sends a packet, or begins a connection, until it arrives; it is tried less
// where nobody should get it.
func (c *cloud) probe(ctx context.Context, l *listeners, p pair, id string, expected bool) (by string, err error) {
	tries := 2
	if expected {
		tries = probeTries
	}
	send := c.sendUDP
	if p.protocol == "tcp" {
		send = c.beginTCP
	}
	for range tries {
		if err := send(ctx, l, p, id); err != nil {
			return "", err
		}
		if by = l.who(id); by != "" {
			return by, nil
		}
	}
	return "", nil
}

// beginTCP connects and sends, if it can.
func (c *cloud) beginTCP(ctx context.Context, l *listeners, p pair, id string) error {
	within, cancel := context.WithTimeout(ctx, 3*probeWait)
	defer cancel()
	conn, err := p.from.Dial(within, net.JoinHostPort(p.to, strconv.Itoa(p.port)))
	if err != nil {
		return ctx.Err()
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(id)); err == nil {
		awaits(l, id)
	}
	return nil
}

// sendUDP sends one packet; that there is no way to there is an answer too.
func (c *cloud) sendUDP(ctx context.Context, l *listeners, p pair, id string) error {
	to, err := net.ResolveUDPAddr("udp", net.JoinHostPort(p.to, strconv.Itoa(p.port)))
	if err != nil {
		return err
	}
	conn, err := p.from.ListenPacket(ctx, ":0")
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.WriteTo([]byte(id), to); err == nil {
		awaits(l, id)
	}
	return nil
}

// awaits gives a probe the time to arrive.
func awaits(l *listeners, id string) {
	for end := time.Now().Add(probeWait); time.Now().Before(end) && l.who(id) == ""; {
		time.Sleep(10 * time.Millisecond)
	}
}

// Hundreds of random questions about a cloud of three tenants, with equal addresses,
// routers, floating IPs and groups that let in all, some or nothing: planck trace
// says of each whether the packet arrives, and at whom, and that is what becomes of
// a real one.
func TestTraceAgreesWithRealPackets(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 3, nil, physicalNetwork)
	c.hostsUp()
	public, anyTraffic := c.outside(), c.anyTraffic()
	tcp := object{"protocol": "tcp", "port_range_min": 80, "port_range_max": 90}
	udp := object{"protocol": "udp", "port_range_min": 5000, "port_range_max": 5003}
	some := object{"security_groups": []any{c.group("", "web", tcp)}}
	other := object{"security_groups": []any{c.group("", "voice", udp, object{"protocol": "tcp", "port_range_min": 8080, "port_range_max": 8080, "remote_ip_prefix": "10.0.0.0/24"})}}
	none := object{"security_groups": []any{}}
	blue, green := c.network("blue", "10.0.0.0/24", nil), c.network("green", "10.0.1.0/24", nil)
	red, lone := c.network("red", "10.0.0.0/24", nil), c.network("lone", "10.0.2.0/24", nil)
	vms := []*vm{
		c.boot("a", "host1", blue, anyTraffic), c.boot("b", "host2", blue, some), c.boot("c", "host3", blue, other), c.boot("d", "host1", blue, none),
		c.boot("e", "host2", green, anyTraffic), c.boot("f", "host3", green, some), c.boot("g", "host1", green, other),
		c.boot("r", "host2", red, anyTraffic), c.boot("s", "host1", red, other), c.boot("t", "host3", red, some),
		c.boot("l", "host2", lone, anyTraffic), c.boot("m", "host3", lone, some),
	}
	c.setGateway(c.router("blue", blue, green), public, nil)
	c.setGateway(c.router("red", red), public, nil)
	targets := []string{"203.0.113.1", "198.51.100.1", "10.0.0.77", "10.0.2.77"}
	for _, v := range []*vm{vms[1], vms[4], vms[6], vms[7], vms[8]} {
		_, address := c.floatingIP(public, v)
		targets = append(targets, address)
	}
	ext := c.lab.Ext()
	l := &listeners{got: map[string]string{}}
	ports := []int{80, 85, 5000, 8080, 9000}
	nodes, names, own := []*lab.Node{ext}, map[*lab.Node]string{ext: "203.0.113.1"}, map[*lab.Node]string{}
	c.listen(l, ext, ports...)
	c.exec(ext, "ip", "route", "add", "local", "10.0.0.0/16", "dev", "lo") // all that leaves to there is seen
	for _, v := range vms {
		c.dhcp(v)
		c.listen(l, v.Node, ports...)
		nodes, names[v.Node], own[v.Node], targets = append(nodes, v.Node), v.id(), v.ip(), append(targets, v.ip())
	}
	c.comesThrough(vms[0].Node, "203.0.113.1") // its MAC is known from now on
	c.comesThrough(vms[7].Node, "203.0.113.1")
	c.comesThrough(ext, targets[5])
	c.settled()

	random := rand.New(rand.NewPCG(1, 1))
	var group errgroup.Group
	group.SetLimit(pairsAtOnce)
	var tally sync.Mutex
	arrived, lost := 0, 0
	for i := range randomPairs {
		p := pair{from: nodes[random.IntN(len(nodes))], to: targets[random.IntN(len(targets))], protocol: []string{"tcp", "udp"}[random.IntN(2)], port: ports[random.IntN(len(ports))]}
		if p.name = names[p.from]; p.to == own[p.from] {
			p.to = targets[0] // what it sends to itself does not leave it
		}
		if p.from == ext {
			p.to = targets[4+random.IntN(5)] // what is inside is not known outside
		}
		group.Go(func() error {
			var said struct {
				Verdict, Summary string
				Hops             []struct{ Host string }
			}
			c.operator("trace", url.Values{"from": {p.name}, "to": {p.to}, "protocol": {p.protocol}, "dport": {strconv.Itoa(p.port)}}, &said)
			expected := said.Verdict == "delivered" || said.Verdict == "outside"
			by, err := c.probe(c.Context(), l, p, fmt.Sprint("probe-", i), expected)
			if err != nil {
				return err
			}
			if (by != "") != expected {
				c.Errorf("%s: got by %q, planck trace says: %s", p, by, said.Summary)
			}
			if by != "" && by != ext.Name() && said.Verdict == "delivered" && !strings.Contains(said.Summary, "port "+by+" on host") {
				c.Errorf("%s: got by %q, planck trace says: %s", p, by, said.Summary)
			}
			tally.Lock()
			defer tally.Unlock()
			if expected {
				arrived++
			} else {
				lost++
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d packets arrived, %d did not", arrived, lost)
	if arrived < randomPairs/5 || lost < randomPairs/5 {
		t.Errorf("%d packets arrived and %d did not: that tells too little", arrived, lost)
	}
	c.agreesWithOfproto(vms, targets, ports)
}
