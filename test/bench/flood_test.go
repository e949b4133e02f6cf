package bench

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// floodEnv makes this program send a frame (in hex) on eth0 as fast as it can
// until it is killed; four bytes of each, from floodAtEnv on, are new.
const (
	floodEnv   = "PLANCK_BENCH_FLOOD"
	floodAtEnv = "PLANCK_BENCH_FLOOD_AT"
)

func init() {
	if text := os.Getenv(floodEnv); text != "" {
		fmt.Fprintln(os.Stderr, floodForever(text, os.Getenv(floodAtEnv)))
		os.Exit(1)
	}
}

func floodForever(text, where string) error {
	frame, err := hex.DecodeString(text)
	if err != nil {
		return err
	}
	var at int
	if _, err := fmt.Sscan(where, &at); err != nil {
		return err
	}
	fd, err := openPacketSocket("eth0")
	if err != nil {
		return err
	}
	fmt.Println("flooding")
	for n := uint32(0); ; n++ {
		binary.BigEndian.PutUint32(frame[at:], n*2654435761)
		if _, err := unix.Write(fd, frame); err != nil && err != unix.ENOBUFS {
			return err
		}
	}
}

// BenchmarkFlood measures the DHCP of a VM and the API while another VM on the
// same host sends as fast as a process can, with the usual limits on punts.
// Frames that port security drops in the switch show what the flood costs the
// machine by itself.
func BenchmarkFlood(b *testing.B) {
	t := newTable("flood")
	c := newLabCloud(b, 1, "")
	network := c.network("10.0.0.0/24", nil)
	noisy, quiet := c.boot("noisy", "host1", network), c.boot("quiet", "host1", network)
	forged := arpQuestion(noisy, quiet.ip)
	copy(forged[22:], []byte{2, 0, 0, 0, 0, 1}) // the sender's MAC
	calm := c.others(quiet, network)
	memory := residentMiB(b, c.process.Process.Pid)
	t.add(row{what: "calm: a VM's DHCPDISCOVER → OFFER / POST of a port", ours: calm.String()})
	for _, flood := range []struct {
		what  string
		frame []byte
		at    int // which bytes are new in each
	}{
		{"forged ARP, which the switch drops", forged, 38},
		{"DHCP", dhcpFrame(dhcpClient{noisy.mac, noisy.ip}, dhcpDiscover, 0, nil), dhcpAt + 4},
		{"ARP", arpQuestion(noisy, quiet.ip), 38},
		{"broadcast", broadcastDatagram(noisy), 34},
	} {
		begin, before := time.Now(), c.metric("planck_packet_ins_total")
		stop := c.flood(noisy, flood.frame, flood.at)
		loud := c.others(quiet, network)
		frames := stop()
		took := time.Since(begin).Seconds()
		punts := c.metric("planck_packet_ins_total") - before
		t.add(row{
			what: fmt.Sprintf("while another floods it with %s (%s frames/s, %.0f packet-ins/s)", flood.what, count(int(float64(frames)/took)), punts/took),
			ours: loud.String(), ratio: times(ratio(loud.dhcp, calm.dhcp)) + " / " + times(ratio(loud.api, calm.api)) + " of p99", aim: "≤ 2×",
		})
	}
	t.add(row{what: "memory of the controller, calm / after the floods", ours: fmt.Sprintf("%.0f / %.0f MiB", memory, residentMiB(b, c.process.Process.Pid)), aim: "flat"})
}

func ratio(a, b []time.Duration) float64 {
	return percentile(a, 99).Seconds() / percentile(b, 99).Seconds()
}

// served is what others get.
type served struct {
	dhcp, api []time.Duration
	lost      int
}

func (s served) String() string {
	return fmt.Sprintf("p50 %s, p99 %s (%d of %d lost) / p50 %s, p99 %s", ms(percentile(s.dhcp, 50)), ms(percentile(s.dhcp, 99)), s.lost, floodSamples,
		ms(percentile(s.api, 50)), ms(percentile(s.api, 99)))
}

const (
	floodSamples = 400
	floodPause   = 25 * time.Millisecond // below the limit of a port
)

// others measures a VM's DHCP and the API at the same time.
func (c *labCloud) others(v *vm, network string) (s served) {
	c.Helper()
	link := v.rawLink(c.TB)
	if err := link.onlyOffers(); err != nil {
		c.Fatal(err)
	}
	done := make(chan struct{})
	var api sync.WaitGroup
	api.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(floodPause):
			}
			begin := time.Now()
			id, err := c.create("port", object{"network_id": network})
			if err != nil {
				c.Error(err)
				return
			}
			s.api = append(s.api, time.Since(begin))
			if status, _, err := c.request(http.MethodDelete, "/v2.0/ports/"+id, nil); err != nil || status != http.StatusNoContent {
				c.Errorf("DELETE of a port: %d, %v", status, err)
				return
			}
		}
	})
	client := dhcpClient{v.mac, v.ip}
	for xid := range uint32(floodSamples) {
		took, err := link.discover(client, xid+1)
		if err != nil {
			s.lost++
			continue
		}
		s.dhcp = append(s.dhcp, took)
		time.Sleep(floodPause)
	}
	close(done)
	api.Wait()
	return s
}

// discover waits for the OFFER to one DISCOVER, for 300 ms of silence at the most.
func (l *rawLink) discover(client dhcpClient, xid uint32) (time.Duration, error) {
	begin := time.Now()
	if err := l.send(dhcpFrame(client, dhcpDiscover, xid, nil)); err != nil {
		return 0, err
	}
	for {
		frame, err := l.receive()
		if err != nil {
			return 0, err
		}
		if id, kind, _ := dhcpAnswer(frame); id == xid && kind == dhcpOffer {
			return time.Since(begin), nil
		}
		if time.Since(begin) > patience {
			return 0, errors.New("no offer")
		}
	}
}

// onlyOffers lets nothing but UDP to port 68 into the socket, so that a flood
// does not cost the one who measures.
func (l *rawLink) onlyOffers() error {
	const loadHalf, loadByte, jumpIf, give = 0x28, 0x30, 0x15, 0x06
	program := []unix.SockFilter{
		{Code: loadHalf, K: 12},
		{Code: jumpIf, Jf: 5, K: 0x0800},
		{Code: loadByte, K: 23},
		{Code: jumpIf, Jf: 3, K: syscall.IPPROTO_UDP},
		{Code: loadHalf, K: 36},
		{Code: jumpIf, Jf: 1, K: 68},
		{Code: give, K: 0xffff},
		{Code: give, K: 0},
	}
	return unix.SetsockoptSockFprog(l.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
}

// broadcastDatagram is UDP to everybody, from the VM's own address.
func broadcastDatagram(v *vm) []byte {
	f := bytes.Clone(dhcpFrame(dhcpClient{v.mac, v.ip}, dhcpDiscover, 0, nil))[:dhcpAt+64]
	be := binary.BigEndian
	be.PutUint16(f[16:], uint16(len(f)-14))
	copy(f[26:], v.ip.AsSlice())
	copy(f[24:], []byte{0, 0})
	be.PutUint16(f[24:], ipChecksum(f[14:34]))
	be.PutUint16(f[38:], uint16(len(f)-34))
	return f
}

// flood sends a frame from a VM until stop, which tells how many its link took.
func (c *labCloud) flood(v *vm, frame []byte, at int) (stop func() int) {
	c.Helper()
	before := c.sentBy(v)
	p, err := v.Start("env", floodEnv+"="+hex.EncodeToString(frame), fmt.Sprintf("%s=%d", floodAtEnv, at), os.Args[0])
	if err != nil {
		c.Fatal(err)
	}
	if err := p.WaitOutput(c.Context(), "flooding"); err != nil {
		c.Fatal(err)
	}
	return func() int {
		c.Helper()
		if _, err := p.Stop(); err != nil {
			c.Fatal(err)
		}
		return c.sentBy(v) - before
	}
}

func (c *labCloud) sentBy(v *vm) (n int) {
	c.Helper()
	out := c.must(v.Exec(c.Context(), "cat", "/sys/class/net/eth0/statistics/tx_packets"))
	if _, err := fmt.Sscan(out, &n); err != nil {
		c.Fatalf("%v: %q", err, out)
	}
	return n
}
