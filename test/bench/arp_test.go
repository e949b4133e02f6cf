package bench

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"planck/flows"
)

// BenchmarkARP asks for an address again and again through a real switch: the
// controller answers each question (mode packet-in). Beside it a controller
// that sends every packet back as it came: what the switch can do.
func BenchmarkARP(b *testing.B) {
	t := newTable("arp")
	c := newLabCloud(b, 1, unlimited+"arp_responder = packet-in\n")
	net := c.network("10.0.0.0/24", nil)
	asking, asked, echoing := c.boot("asking", "host1", net), c.boot("asked", "host1", net), c.boot("echoing", "host1", net)
	c.echo(echoing)
	question := arpQuestion(asking, asked.ip)
	const packets, inFlight = 60_000, 64

	limit := c.fastestPingPong(echoing, question, packets, inFlight)
	ours := c.fastestPingPong(asking, question, packets, inFlight)
	t.add(row{
		what: "ARP questions answered, 64 in flight", ours: perSecond(packets, ours.took), peer: perSecond(packets, limit.took) + " (a controller that only echoes)",
		ratio: times(limit.took.Seconds() / ours.took.Seconds()), aim: "≥ 27,000 /s",
	}, row{
		what: "CPU of the controller / of the switch for each",
		ours: us(ours.controller/packets) + " / " + us(ours.vswitchd/packets), peer: "– / " + us(limit.vswitchd/packets),
	})
	b.ReportMetric(packets/ours.took.Seconds(), "answers/s")
}

// spent is what a number of packets took.
type spent struct{ took, controller, vswitchd time.Duration }

// fastestPingPong is the fastest of three runs.
func (c *labCloud) fastestPingPong(v *vm, frame []byte, packets, inFlight int) (fastest spent) {
	c.Helper()
	link := v.rawLink(c.TB)
	for range 3 {
		s := spent{controller: c.cpu(), vswitchd: c.switchCPU("host1")}
		start := time.Now()
		if err := link.pingPong(frame, packets, inFlight); err != nil {
			c.Fatal(err)
		}
		s = spent{time.Since(start), c.cpu() - s.controller, c.switchCPU("host1") - s.vswitchd}
		if fastest.took == 0 || s.took < fastest.took {
			fastest = s
		}
	}
	return fastest
}

// pingPong sends packets and keeps so many without an answer. Any ARP frame that
// comes in counts as one; what is lost is sent again.
func (l *rawLink) pingPong(frame []byte, packets, inFlight int) error {
	give := time.Now().Add(patience)
	waiting := 0
	for answered := 0; answered < packets; {
		for waiting < inFlight {
			if err := l.send(frame); err != nil {
				return err
			}
			waiting++
		}
		answer, err := l.receive()
		switch {
		case errors.Is(err, syscall.EAGAIN) && time.Now().Before(give):
			waiting = 0
		case err != nil:
			return fmt.Errorf("after %d answers: %w", answered, err)
		case len(answer) >= 42 && binary.BigEndian.Uint16(answer[12:]) == etherTypeARP:
			answered++
			waiting--
		}
	}
	return nil
}

const etherTypeARP = 0x0806

// arpQuestion is the frame in which a VM asks for an address.
func arpQuestion(from *vm, target netip.Addr) []byte {
	b := append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, from.mac...)
	b = append(b, 0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1)
	b = append(append(b, from.mac...), from.ip.AsSlice()...)
	b = append(append(b, 0, 0, 0, 0, 0, 0), target.AsSlice()...)
	return append(b, make([]byte, 60-len(b))...)
}

// echo moves a VM to a bridge of its own, whose controller sends every packet back.
func (c *labCloud) echo(v *vm) {
	c.Helper()
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		c.Fatal(err)
	}
	target := fmt.Sprintf("tcp:%s:%d", c.lab.ControllerIP(), l.Addr().(*net.TCPAddr).Port)
	h := c.lab.Host("host1")
	c.must(h.Vsctl("del-port", v.Tap(), "--", "add-br", "br-echo", "--", "set", "Bridge", "br-echo", "datapath_type=netdev",
		"protocols=OpenFlow13", "fail-mode=secure", "other-config:disable-in-band=true", "--", "add-port", "br-echo", v.Tap(),
		"--", "set-controller", "br-echo", target))
	conn, err := l.Accept()
	if err != nil {
		c.Fatal(err)
	}
	l.Close()
	ended := make(chan error, 1)
	go func() { ended <- echoAll(conn) }()
	c.Cleanup(func() {
		conn.Close()
		if err := <-ended; !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.EOF) {
			c.Error(err)
		}
	})
	c.must(h.Ofctl("add-flow", "br-echo", "actions=controller"))
}

// echoAll answers packet-ins by packet-outs to the port that they came from.
func echoAll(conn net.Conn) error {
	in := bufio.NewReaderSize(conn, 64<<10)
	out := flows.AppendSetConfig(flows.AppendHello(nil, 1), 2, 0, 0xffff)
	back := flows.ActionList(flows.Output(flows.PortInPort))
	var p flows.PacketIn
	body := make([]byte, 64<<10)
	for {
		if in.Buffered() == 0 {
			if _, err := conn.Write(out); err != nil {
				return err
			}
			out = out[:0]
		}
		var header [8]byte
		if _, err := io.ReadFull(in, header[:]); err != nil {
			return err
		}
		body = body[:binary.BigEndian.Uint16(header[2:])-8]
		if _, err := io.ReadFull(in, body); err != nil {
			return err
		}
		switch header[1] {
		case flows.TypeEchoRequest:
			out = flows.AppendEchoReply(out, binary.BigEndian.Uint32(header[4:]), body)
		case flows.TypePacketIn:
			if err := flows.DecodePacketIn(body, &p); err != nil {
				return err
			}
			out = flows.AppendPacketOut(out, 3, p.InPort, back, p.Data)
		}
	}
}
