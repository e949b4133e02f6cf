package e2e

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// flood sends frames from a VM, one after the other, until stop is called,
// which returns how many were sent.
func (c *cloud) flood(v *vm, frames func(i int) []byte) (stop func() int) {
	c.Helper()
	sender, err := v.FrameSender("eth0")
	if err != nil {
		c.Fatal(err)
	}
	var end atomic.Bool
	result := make(chan error, 1)
	sent := 0
	go func() {
		for err == nil && !end.Load() {
			err = sender.Send(frames(sent))
			sent++
			time.Sleep(pace)
		}
		result <- errors.Join(err, sender.Close())
	}()
	return func() int {
		c.Helper()
		end.Store(true)
		if err := <-result; err != nil {
			c.Fatal(err)
		}
		return sent
	}
}

// pace is the pause between the frames of a flood: enough for a loud VM, and
// not for a test of how fast this machine is.
const pace = time.Millisecond

func TestOneVMCannotStarveTheOthers(t *testing.T) {
	t.Parallel()
	const rate = 20
	c := newCloud(t, 1, nil, fmt.Sprintf("[openflow]\npunt_rate_per_port = %d\n", rate))
	id := c.network("blue", "10.0.0.0/24", nil)
	a, b, noisy := c.boot("a", "host1", id, nil), c.boot("b", "host1", id, nil), c.boot("noisy", "host1", id, nil)
	c.dhcp(a)
	goroutines, heap := c.metric("go_goroutines", ""), c.metric("go_memstats_heap_inuse_bytes", "")
	answered := func() float64 { return c.metric("planck_packet_ins_total", `feature="dhcp",outcome="answered"`) }
	before, start := answered(), time.Now()

	request := ethernet(t, everybody, noisy.mac(), etherIPv4, udp4("0.0.0.0", "255.255.255.255", 68, 67, discover(t, noisy.mac())))
	stop := c.flood(noisy, func(i int) []byte {
		if i%2 == 0 {
			return request
		}
		return ethernet(t, everybody, noisy.mac(), etherARP,
			arpPacket(t, 1, noisy.mac(), noisy.ip(), "00:00:00:00:00:00", fmt.Sprintf("10.0.0.%d", 200+i%50)))
	})
	c.eventually("the switch itself silences the port", func() error {
		flows := c.flows("host1", "br-int")
		for _, drop := range []string{"priority=150,udp,reg2=", "priority=48,arp,reg2="} {
			if !strings.Contains(flows, drop) {
				return errors.New("there is no flow " + drop)
			}
		}
		return nil
	})
	if text := c.flows("host1", "br-int"); !strings.Contains(text, "hard_timeout=1") {
		t.Errorf("it would stay silent for ever:\n%s", text)
	}
	c.dhcp(a)
	c.dhcp(b)
	c.resolves(a, b)
	if n := c.metric("go_goroutines", ""); n > goroutines+10 {
		t.Errorf("%v goroutines instead of %v", n, goroutines)
	}
	sent := stop()
	// What others asked is four packets.
	if got, most := answered()-before, rate*(time.Since(start).Seconds()+1)+4; got > most {
		t.Errorf("%v DHCP requests were answered, want %v at the most", got, most)
	}
	if n := c.metric("go_memstats_heap_inuse_bytes", ""); n > heap+64<<20 {
		t.Errorf("%.0f MiB of heap instead of %.0f", n/(1<<20), heap/(1<<20))
	}
	t.Logf("%d frames in %v, %v packet-ins", sent, time.Since(start).Round(time.Millisecond), c.metric("planck_packet_ins_total", ""))

	c.eventually("the port is heard again when it behaves", func() error {
		if strings.Contains(c.flows("host1", "br-int"), "priority=150,udp,reg2=") {
			return errors.New("it is silenced")
		}
		return nil
	})
	c.dhcp(noisy)
}
