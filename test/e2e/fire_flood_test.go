package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A test program that finds one of these in its environment is a helper in a
// VM's namespace, and no test: a flood at line rate must not share a process
// with what measures its effect.
const (
	// floodEnv is a frame in hex, to be sent until the process is killed; in
	// each, the bytes from random[0] to random[1] are new.
	floodEnv = "PLANCK_TEST_FLOOD"
	// clientEnv is a DHCPDISCOVER in hex, to be sent again and again; the
	// helper prints how long the offers took.
	clientEnv = "PLANCK_TEST_DHCP"
)

func init() {
	var err error
	switch {
	case os.Getenv(floodEnv) != "":
		err = floodForever(os.Getenv(floodEnv))
	case os.Getenv(clientEnv) != "":
		err = measureDHCP(os.Getenv(clientEnv))
	default:
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

type floodFrame struct {
	Frame  []byte
	Random [2]int
}

func floodForever(text string) error {
	var f floodFrame
	if err := json.Unmarshal([]byte(text), &f); err != nil {
		return err
	}
	fd, err := packetSocket()
	if err != nil {
		return err
	}
	fmt.Println("flooding")
	for {
		for at := f.Random[0]; at < f.Random[1]; at++ {
			f.Frame[at] = byte(rand.Uint32())
		}
		if _, err := unix.Write(fd, f.Frame); err != nil && err != unix.ENOBUFS {
			return err
		}
	}
}

// packetSocket is one for eth0 of the namespace that the process is in.
func packetSocket() (fd int, err error) {
	link, err := net.InterfaceByName("eth0")
	if err != nil {
		return 0, err
	}
	const all = unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8
	fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err != nil {
		return 0, err
	}
	return fd, unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: link.Index, Protocol: all})
}

const (
	dhcpSamples  = 80
	dhcpPause    = 25 * time.Millisecond // below the limit of a port
	dhcpPatience = 5 * time.Second

	xidAt = 14 + 20 + 8 + 4 // of a DHCP message in its frame
)

// measured is what the DHCP helper prints.
type measured struct {
	Took []time.Duration // of the offers that came
	Lost int
}

func measureDHCP(text string) error {
	frame, err := hex.DecodeString(text)
	if err != nil {
		return err
	}
	fd, err := packetSocket()
	if err != nil {
		return err
	}
	if err := onlyOffers(fd); err != nil {
		return err
	}
	patience := unix.NsecToTimeval(int64(dhcpPatience))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience); err != nil {
		return err
	}
	var m measured
	for xid := range uint32(dhcpSamples) {
		binary.BigEndian.PutUint32(frame[xidAt:], xid)
		begin := time.Now()
		if _, err := unix.Write(fd, frame); err != nil {
			return err
		}
		if awaitOffer(fd, frame[xidAt:xidAt+4], begin.Add(dhcpPatience)) {
			m.Took = append(m.Took, time.Since(begin))
		} else {
			m.Lost++
		}
		time.Sleep(dhcpPause)
	}
	return json.NewEncoder(os.Stdout).Encode(m)
}

func awaitOffer(fd int, xid []byte, until time.Time) bool {
	buffer := make([]byte, 2048)
	for time.Now().Before(until) {
		n, err := unix.Read(fd, buffer)
		if err == nil && n > xidAt+4 && bytes.Equal(buffer[xidAt:xidAt+4], xid) {
			return true
		}
	}
	return false
}

// onlyOffers lets nothing but UDP to port 68 into the socket.
func onlyOffers(fd int) error {
	const loadHalf, loadByte, jumpIf, give = 0x28, 0x30, 0x15, 0x06
	program := []unix.SockFilter{
		{Code: loadHalf, K: 12},
		{Code: jumpIf, Jf: 5, K: etherIPv4},
		{Code: loadByte, K: 23},
		{Code: jumpIf, Jf: 3, K: unix.IPPROTO_UDP},
		{Code: loadHalf, K: 36},
		{Code: jumpIf, Jf: 1, K: 68},
		{Code: give, K: 0xffff},
		{Code: give, K: 0},
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
}

func TestVMThatFloodsAtLineRateHarmsNobody(t *testing.T) {
	t.Parallel()
	f := newFire(t, 2, "")
	noisy, quiet := f.boot("noisy", "host1", nil), f.boot("quiet", "host1", nil)
	f.dhcp(noisy)
	f.dhcp(quiet)
	calm := f.service("calm", quiet)
	memory := f.metric("go_memstats_heap_inuse_bytes", "") + f.metric("go_memstats_stack_inuse_bytes", "")
	goroutines := f.metric("go_goroutines", "")

	// What a flood costs that the switch drops by itself is the price of its
	// packets; the controller must not add to it.
	mac := noisy.mac()
	stop := f.floodFrom(noisy, floodFrame{ethernet(t, everybody, mac, etherIPv4, udp4("10.0.0.254", "255.255.255.255", 9, 9, make([]byte, 64))), [2]int{34, 36}})
	base := f.service("flood of forged packets", quiet)
	stop()
	message := discover(t, mac)
	datagram := make([]byte, 64)
	for _, kind := range []struct {
		name    string
		feature string // whose punts it makes, "" for none
		flood   floodFrame
	}{
		{"DHCP", "dhcp", floodFrame{ethernet(t, everybody, mac, etherIPv4, udp4("0.0.0.0", "255.255.255.255", 68, 67, message)), [2]int{xidAt, xidAt + 4}}},
		{"ARP", "arp", floodFrame{ethernet(t, everybody, mac, etherARP, arpPacket(t, 1, mac, noisy.ip(), "00:00:00:00:00:00", "10.0.0.99")), [2]int{14 + 25, 14 + 28}}},
		{"broadcast", "", floodFrame{ethernet(t, everybody, mac, etherIPv4, udp4(noisy.ip(), "255.255.255.255", 9, 9, datagram)), [2]int{34, 36}}},
	} {
		before, begin := f.puntsOf(kind.feature), time.Now()
		stop := f.floodFrom(noisy, kind.flood)
		loud := f.service(kind.name+" flood", quiet)
		sent := stop()
		took := time.Since(begin)
		punts := f.puntsOf(kind.feature) - before
		now := f.metric("go_memstats_heap_inuse_bytes", "") + f.metric("go_memstats_stack_inuse_bytes", "")
		t.Logf("%s flood: %d frames/s, %.0f packet-ins/s, %.0f MiB of heap and stacks, calm %.0f", kind.name, int(float64(sent)/took.Seconds()), punts/took.Seconds(), now/(1<<20), memory/(1<<20))

		t.Logf("%s flood: p99 of DHCP is %.1f times that in calm, of the API %.1f times", kind.name, times(loud.dhcp.Took, calm.dhcp.Took), times(loud.api, calm.api))

		// A port may send 50 packets a second of a class, and the drop flow that
		// silences it for a second comes a moment late.
		if most := 1000 * (took.Seconds() + 1); kind.feature != "" && punts > most {
			t.Errorf("%s flood: %v packet-ins in %v, want %.0f at the most", kind.name, punts, took, most)
		}
		if loud.dhcp.Lost > dhcpSamples/20 {
			t.Errorf("%s flood: another VM got no answer to %d of %d DHCP requests within %v", kind.name, loud.dhcp.Lost, dhcpSamples, dhcpPatience)
		}
		if most := 2*percentile(base.dhcp.Took, 50) + slack; percentile(loud.dhcp.Took, 50) > most {
			t.Errorf("%s flood: another VM's DHCP takes %v (median), want %v at the most", kind.name, percentile(loud.dhcp.Took, 50), most)
		}
		if most := 2*percentile(base.api, 50) + slack; percentile(loud.api, 50) > most {
			t.Errorf("%s flood: the API takes %v (median), want %v at the most", kind.name, percentile(loud.api, 50), most)
		}
		if now > memory+32<<20 {
			t.Errorf("%s flood: %.0f MiB of memory became %.0f", kind.name, memory/(1<<20), now/(1<<20))
		}
		if n := f.metric("go_goroutines", ""); n > goroutines+20 {
			t.Errorf("%s flood: %v goroutines became %v", kind.name, goroutines, n)
		}
		f.whole(kind.name + " flood")
	}
	f.eventually("the noisy one is heard again", func() error {
		lease, err := noisy.DHCP(t.Context())
		if err == nil && lease.Addr.Addr().String() != noisy.ip() {
			err = fmt.Errorf("it got %v", lease.Addr)
		}
		return err
	})
	f.right()
	f.nothingLeft()
}

// slack is what a busy machine may add to a median; the tails that are logged
// say more about the machine than about the controller. On an idle one
// BenchmarkFlood of test/bench compares them.
const slack = 2 * time.Second

// service is what others get while something goes on.
type service struct {
	dhcp measured
	api  []time.Duration
}

// service measures a VM's DHCP and the API at the same time.
func (f *fire) service(what string, v *vm) service {
	f.Helper()
	frame := ethernet(f.T, everybody, v.mac(), etherIPv4, udp4("0.0.0.0", "255.255.255.255", 68, 67, discover(f.T, v.mac())))
	client, err := v.Start("env", clientEnv+"="+hex.EncodeToString(frame), os.Args[0])
	if err != nil {
		f.Fatal(err)
	}
	var s service
	stop := f.background(func(ctx context.Context) {
		w := writers{f: f, replies: map[int]int{}}
		status, out := w.do(ctx, http.MethodPost, "/v2.0/ports", object{"port": object{"network_id": f.network}})
		if status == http.StatusCreated {
			s.api = append(s.api, w.slowest)
			w.do(context.WithoutCancel(ctx), http.MethodDelete, "/v2.0/ports/"+out["port"].(object)["id"].(string), nil)
		}
		pauseFor(ctx, 20*time.Millisecond)
	})
	err = client.Wait(f.within(dhcpSamples * (dhcpPatience + dhcpPause)))
	stop()
	if err != nil {
		f.Fatal(err)
	}
	if err := json.Unmarshal([]byte(client.Output()), &s.dhcp); err != nil {
		f.Fatalf("%v: %s", err, client.Output())
	}
	f.Logf("%s: DHCP p50 %v p99 %v, %d of %d lost; POST and %d ports p50 %v p99 %v", what,
		percentile(s.dhcp.Took, 50), percentile(s.dhcp.Took, 99), s.dhcp.Lost, dhcpSamples,
		len(s.api), percentile(s.api, 50), percentile(s.api, 99))
	return s
}

// times is how many times the p99 of others a p99 is.
func times(a, b []time.Duration) float64 {
	return percentile(a, 99).Seconds() / max(percentile(b, 99), time.Microsecond).Seconds()
}

// percentile is 0 for no samples.
func percentile(samples []time.Duration, p int) time.Duration {
	if len(samples) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(samples))
	return sorted[min(len(sorted)*p/100, len(sorted)-1)].Round(10 * time.Microsecond)
}

func (f *fire) puntsOf(feature string) float64 {
	f.Helper()
	if feature == "" {
		return 0
	}
	return f.metric("planck_packet_ins_total", `feature="`+feature+`"`)
}

// floodFrom sends frames from a VM as fast as a process can, until stop, which
// returns how many the VM's link took.
func (c *cloud) floodFrom(v *vm, frame floodFrame) (stop func() int) {
	c.Helper()
	text, err := json.Marshal(frame)
	if err != nil {
		c.Fatal(err)
	}
	before := c.sentBy(v)
	flood, err := v.Start("env", floodEnv+"="+string(text), os.Args[0])
	if err != nil {
		c.Fatal(err)
	}
	if err := flood.WaitOutput(c.within(settle), "flooding"); err != nil {
		c.Fatal(err)
	}
	return func() int {
		c.Helper()
		if _, err := flood.Stop(); err != nil {
			c.Fatal(err)
		}
		return c.sentBy(v) - before
	}
}

// sentBy is how many frames left a VM.
func (c *cloud) sentBy(v *vm) int {
	c.Helper()
	out, err := v.Exec(c.Context(), "cat", "/sys/class/net/eth0/statistics/tx_packets")
	if err != nil {
		c.Fatal(err)
	}
	var n int
	if _, err := fmt.Sscan(out, &n); err != nil {
		c.Fatalf("%v: %q", err, out)
	}
	return n
}
