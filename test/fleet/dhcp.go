package fleet

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"
)

const dhcpRetry = 50 * time.Millisecond

// Discover asks for an address by DHCP from an interface of br-int with a MAC,
// again and again until a controller answers. It tells how often it asked.
func (h *Host) Discover(ctx context.Context, name string, mac [6]byte) (asked int, err error) {
	b, port, err := h.vif(name)
	if err != nil {
		return 0, err
	}
	xid := rand.Uint32()
	answered := make(chan struct{}, 1)
	b.mu.Lock()
	b.received = func(to uint32, frame []byte) {
		if to == port && isOffer(frame, xid) {
			select {
			case answered <- struct{}{}:
			default:
			}
		}
	}
	b.mu.Unlock()
	frame := discover(mac, xid)
	for {
		asked++
		problem := b.send(port, frame)
		select {
		case <-answered:
			return asked, nil
		case <-ctx.Done():
			return asked, fmt.Errorf("%s: no answer to DHCPDISCOVER from %s: %w (last: %v)", h.Name, name, ctx.Err(), problem)
		case <-time.After(dhcpRetry):
		}
	}
}

// vif is where an interface of br-int is.
func (h *Host) vif(name string) (*bridge, uint32, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	b := h.bridges["br-int"]
	for _, r := range h.db.rows {
		if n := r.get("ofport").number(); b != nil && r.table.name == "Interface" && r.get("name").text() == name && n > 0 {
			return b, uint32(n), nil
		}
	}
	return nil, 0, fmt.Errorf("%s has no interface %s with a number", h.Name, name)
}

const (
	dhcpBody  = 14 + 20 + 8
	dhcpMagic = 0x63825363
)

// discover is a frame with a DHCPDISCOVER (RFC 2131).
func discover(mac [6]byte, xid uint32) []byte {
	const size = dhcpBody + 240 + 4
	f := make([]byte, size)
	copy(f, "\xff\xff\xff\xff\xff\xff")
	copy(f[6:], mac[:])
	be.PutUint16(f[12:], 0x0800)
	ip := f[14:]
	ip[0], ip[8], ip[9] = 0x45, 64, 17
	be.PutUint16(ip[2:], size-14)
	be.PutUint32(ip[16:], 0xffffffff)
	be.PutUint16(ip[10:], checksum(ip[:20]))
	udp := ip[20:]
	be.PutUint16(udp, 68)
	be.PutUint16(udp[2:], 67)
	be.PutUint16(udp[4:], size-34)
	d := f[dhcpBody:]
	d[0], d[1], d[2] = 1, 1, 6
	be.PutUint32(d[4:], xid)
	copy(d[28:], mac[:])
	be.PutUint32(d[236:], dhcpMagic)
	copy(d[240:], "\x35\x01\x01\xff")
	return f
}

func isOffer(frame []byte, xid uint32) bool {
	return len(frame) > dhcpBody+240 && be.Uint16(frame[34:]) == 67 && frame[dhcpBody] == 2 && be.Uint32(frame[dhcpBody+4:]) == xid
}

func checksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(be.Uint16(b))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
