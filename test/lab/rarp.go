package lab

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"time"
)

const (
	etherTypeRARP = 0x8035
	rarpRequest   = 3
	minFrame      = 60 // Ethernet without checksum
)

// rarpGaps are QEMU's: five announcements, 50 ms after the first, then 100 ms
// more each time.
var rarpGaps = []time.Duration{0, 50 * time.Millisecond, 150 * time.Millisecond, 250 * time.Millisecond, 350 * time.Millisecond}

// AnnounceRARP sends what QEMU sends when a migrated guest starts to run: RARP
// requests from the VM's address to all.
func (v *VM) AnnounceRARP(ctx context.Context) error {
	mac, err := net.ParseMAC(v.Port.MAC)
	if err != nil {
		return fmt.Errorf("VM %s: %w", v.name, err)
	}
	frame := rarpFrame(mac)
	for _, gap := range rarpGaps {
		select {
		case <-time.After(gap):
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := v.SendFrame("eth0", frame); err != nil {
			return err
		}
	}
	return nil
}

// rarpFrame is a reverse ARP request (RFC 903) in which the sender asks for
// itself.
func rarpFrame(mac net.HardwareAddr) []byte {
	f := make([]byte, 0, minFrame)
	f = append(f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
	f = append(f, mac...)
	f = binary.BigEndian.AppendUint16(f, etherTypeRARP)
	f = binary.BigEndian.AppendUint16(f, 1)      // Ethernet
	f = binary.BigEndian.AppendUint16(f, 0x0800) // IPv4
	f = append(f, 6, 4)
	f = binary.BigEndian.AppendUint16(f, rarpRequest)
	f = append(f, mac...)
	f = append(f, 0, 0, 0, 0)
	f = append(f, mac...)
	return f[:minFrame]
}
