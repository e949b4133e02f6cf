package controller

import (
	"net/netip"
	"slices"
	"testing"

	"planck/flows"
	"planck/trace"
)

func TestSizesLieBetweenWhatPassesAndWhatIsLost(t *testing.T) {
	for _, c := range []struct {
		passes, lost int
		first, last  int
	}{{83, 1458, 104, 1436}, {1357, 1379, 1358, 1378}, {1357, 1358, 0, 0}, {1357, 1359, 1358, 1358}} {
		sizes := between(c.passes, c.lost)
		if c.first == 0 {
			if len(sizes) > 0 {
				t.Errorf("between %d and %d: %v", c.passes, c.lost, sizes)
			}
			continue
		}
		if sizes[0] != c.first || sizes[len(sizes)-1] != c.last || len(sizes) > pingSizes || !slices.IsSorted(sizes) {
			t.Errorf("between %d and %d: %v", c.passes, c.lost, sizes)
		}
	}
}

func TestFramesHaveTheSizeThatIsAskedFor(t *testing.T) {
	for _, dst := range []string{"10.0.0.4", "2001:db8::4"} {
		for _, protocol := range []uint8{trace.ICMP, trace.ICMPv6, trace.TCP, trace.UDP} {
			q := trace.Question{Protocol: protocol, Dst: netip.MustParseAddr(dst), DstPort: 80}
			if (protocol == trace.ICMPv6) == q.Dst.Is4() && (protocol == trace.ICMP || protocol == trace.ICMPv6) {
				continue
			}
			p := flows.NewPacket(flows.IPv4Src.IsIP(netip.MustParseAddr("10.0.0.3")), flows.IPv6Src.IsIP(netip.MustParseAddr("2001:db8::3")))
			for _, size := range []int{headersOf(q) + 20, 1458} {
				frame, err := frameOf(&p, q, 0, size)
				if err != nil || len(frame) != max(size+ethernetHeader, 60) { // Ethernet pads
					t.Errorf("a frame of protocol %d to %s has %d bytes, want %d: %v", protocol, dst, len(frame), size+ethernetHeader, err)
				}
				if q.Dst.Is4() && err == nil && frame[ethernetHeader+6]&0x40 == 0 {
					t.Errorf("protocol %d to %s may be fragmented", protocol, dst)
				}
			}
		}
	}
}
