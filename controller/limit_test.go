package controller

import (
	"testing"
	"time"

	"planck/flows"
	"planck/pipeline"
)

func TestOnePortCannotStarveAnother(t *testing.T) {
	l, now := newLimits(10), time.Now()
	loud := sender{feature: pipeline.FeatureARP, fromVIF: true, port: 1}
	quiet := sender{feature: pipeline.FeatureARP, fromVIF: true, port: 2}
	passed, silenced := 0, 0
	for range 1000 {
		ok, silence := l.allow(loud, now)
		if ok {
			passed++
		}
		if silence {
			silenced++
		}
	}
	if passed != 10 || silenced != 1 {
		t.Errorf("%d packets passed and %d drop flows were asked for, want 10 and 1", passed, silenced)
	}
	if ok, _ := l.allow(quiet, now); !ok {
		t.Error("another port was limited")
	}
	other := loud
	other.feature = pipeline.FeatureDHCP
	if ok, _ := l.allow(other, now); !ok {
		t.Error("another class of the same port was limited")
	}
	if ok, _ := l.allow(loud, now.Add(time.Second)); !ok {
		t.Error("the port was still limited a second later")
	}
}

func TestWhatComesFromAWireIsLimitedWithoutADropFlow(t *testing.T) {
	l, now := newLimits(1), time.Now()
	wire := sender{feature: pipeline.FeatureARP, port: 3}
	l.allow(wire, now)
	if ok, silence := l.allow(wire, now); ok || silence {
		t.Errorf("allowed %v, drop flow %v, want neither", ok, silence)
	}
}

func TestNoRateIsNoLimit(t *testing.T) {
	l, now := newLimits(0), time.Now()
	for range 10000 {
		if ok, _ := l.allow(sender{port: 1}, now); !ok {
			t.Fatal("limited without a rate")
		}
	}
}

func TestBucketsOfQuietPortsAreForgotten(t *testing.T) {
	l, now := newLimits(10), time.Now()
	for i := range maxSenders + 10 {
		l.allow(sender{port: uint32(i)}, now.Add(time.Duration(i)*time.Millisecond))
	}
	if n := len(l.buckets); n > maxSenders {
		t.Errorf("%d buckets are kept", n)
	}
}

// Packets for unknown next hops come by a transit segment from the ports of all
// hosts, and answers from the wire.
func TestFloodToOneNeighborStopsNeitherOthersNorAnswers(t *testing.T) {
	l, now := newLimits(10), time.Now()
	lost := func(hop byte) sender {
		h := flows.PacketIn{Table: pipeline.Snat.ID, InPort: 3, Data: make([]byte, 43)}
		h.Data[12] = 0x08
		h.Regs[regNextHop] = 203<<24 | 113<<8 | uint32(hop)
		return senderOf(&h, pipeline.FeatureNeighbor)
	}
	for range 1000 {
		l.allow(lost(200), now)
	}
	if ok, silence := l.allow(lost(200), now); ok || silence {
		t.Errorf("the flood: allowed %t, drop flow %t", ok, silence)
	}
	if ok, _ := l.allow(lost(201), now); !ok {
		t.Error("another neighbor is not asked for")
	}
	answer := flows.PacketIn{Table: pipeline.RouterAdmit.ID, InPort: 3, Data: make([]byte, arpLen)}
	if ok, _ := l.allow(senderOf(&answer, pipeline.FeatureNeighbor), now); !ok {
		t.Error("an answer is not taken")
	}
}
