package network

import (
	"log/slog"
	"time"
)

// IDRange is an inclusive range of segmentation ids.
type IDRange struct{ First, Last uint32 }

// Config is what an operator decides about the model.
type Config struct {
	// TenantNetworkTypes are tried in this order for networks without provider attributes.
	TenantNetworkTypes []string
	// TunnelRanges has the ids for allocation of each tunnel type that networks
	// may have.
	TunnelRanges map[string][]IDRange
	// VLANRanges has the VLAN ids for allocation of each physical network. A
	// physical network without a range is known, but its VLANs are given by hand only.
	VLANRanges map[string][]IDRange
	// GlobalPhysnetMTU is the MTU of the physical networks, in bytes.
	GlobalPhysnetMTU int
	// PathMTU is the largest packet between hosts, in bytes; 0 means GlobalPhysnetMTU.
	PathMTU int
	// BaseMAC begins the generated MACs: three bytes of it, or four if the fourth is not 0.
	BaseMAC MAC
	// MaxFixedIPsPerPort limits what one request may ask for.
	MaxFixedIPsPerPort int
	// AllowOverlappingIPs lets subnets of different networks overlap.
	AllowOverlappingIPs bool
	// ChangesKept is how many revisions the change log keeps, at least.
	ChangesKept int
	// ViewsKept is how many views the store keeps in memory to look back at, some
	// 50 KiB each with 10,000 ports, and ViewsKeptFor for how long.
	ViewsKept    int
	ViewsKeptFor time.Duration
	// Messages are what follows from a transaction for other programs, beside
	// what it sends itself; nil is nothing. It may be run again, and must not block.
	Messages func(after *View, cause Cause, changes []Change) []Message
	// Log takes what an operator should know; nil is slog.Default.
	Log *slog.Logger
}

// DefaultConfig is the configuration without any option.
func DefaultConfig() Config {
	return Config{
		TenantNetworkTypes: []string{TypeGRE},
		TunnelRanges: map[string][]IDRange{
			TypeGRE:    {{1, 1<<24 - 1}},
			TypeVXLAN:  {{1, 1<<24 - 1}},
			TypeGeneve: {{1, 1<<24 - 1}},
		},
		VLANRanges:          map[string][]IDRange{},
		GlobalPhysnetMTU:    1500,
		BaseMAC:             MAC{0xfa, 0x16, 0x3e},
		MaxFixedIPsPerPort:  5,
		AllowOverlappingIPs: true,
		ChangesKept:         100_000,
		ViewsKept:           1000,
		ViewsKeptFor:        time.Hour,
	}
}
