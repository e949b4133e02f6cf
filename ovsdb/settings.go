package ovsdb

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"planck/network"
	"planck/ovsdb/vswitch"
)

// Keys of external_ids of the Open_vSwitch row, by which an operator
// configures a host.
const (
	keyHostname       = "hostname"
	keySystemID       = "system-id"
	keyLocalIP        = "planck-local-ip"
	keyBridgeMappings = "planck-bridge-mappings"
	keyDatapathType   = "planck-datapath-type"
)

const (
	maxHostName      = 255
	maxInterfaceName = 15 // IFNAMSIZ less the final zero
)

// settings is what the Open_vSwitch row says about a host.
type settings struct {
	host         string // hostname, else system-id; "" when there is neither
	systemID     string
	tunnelIP     netip.Addr // zero for none
	datapathType string
	mappings     map[string]string // physical network → bridge
	ovsVersion   string
	problems     []string // what could not be understood, in words

	unclearTunnelIP, unclearMappings bool // they have problems
}

func readSettings(row *vswitch.OpenvSwitch) settings {
	ids := row.ExternalIDs
	s := settings{systemID: ids[keySystemID], datapathType: ids[keyDatapathType]}
	s.host = strings.TrimSpace(ids[keyHostname])
	if s.host == "" {
		s.host = s.systemID
	}
	if len(s.host) > maxHostName {
		s.problem("external_ids:hostname is longer than %d bytes", maxHostName)
		s.host = ""
	}
	if s.datapathType == "" {
		s.datapathType = "system"
	}
	if row.OVSVersion != nil {
		s.ovsVersion = *row.OVSVersion
	}
	s.readTunnelIP(strings.TrimSpace(ids[keyLocalIP]))
	s.readMappings(ids[keyBridgeMappings])
	return s
}

func (s *settings) problem(format string, args ...any) {
	s.problems = append(s.problems, fmt.Sprintf(format, args...))
}

func (s *settings) readTunnelIP(text string) {
	if text == "" {
		return
	}
	ip, err := netip.ParseAddr(text)
	if err != nil || ip.Zone() != "" || ip.IsUnspecified() || ip.IsMulticast() {
		s.problem("external_ids:%s=%q is not a host address", keyLocalIP, text)
		s.unclearTunnelIP = true
		return
	}
	s.tunnelIP = ip.Unmap()
}

// readMappings reads physnet1:br-ex,physnet2:br-other.
func (s *settings) readMappings(text string) {
	s.mappings = map[string]string{}
	used := map[string]string{}
	for entry := range strings.SplitSeq(text, ",") {
		entry = strings.TrimSpace(entry)
		if entry == "" {
			continue
		}
		physical, bridge, _ := strings.Cut(entry, ":")
		physical, bridge = strings.TrimSpace(physical), strings.TrimSpace(bridge)
		switch {
		case physical == "" || !validBridgeName(bridge):
			s.problem("external_ids:%s: %q is not PHYSNET:BRIDGE", keyBridgeMappings, entry)
		case bridge == network.BridgeIntegration || bridge == network.BridgeTunnel:
			s.problem("external_ids:%s: %s is not for physical networks", keyBridgeMappings, bridge)
		case s.mappings[physical] != "":
			s.problem("external_ids:%s: %s is there twice", keyBridgeMappings, physical)
		case used[bridge] != "":
			s.problem("external_ids:%s: %s is there for %s and %s", keyBridgeMappings, bridge, used[bridge], physical)
		default:
			s.mappings[physical] = bridge
			used[bridge] = physical
			continue
		}
		s.unclearMappings = true
	}
}

// keep leaves what was known in place of what can't be understood: a slip of
// the keyboard must not take a host's networks away. before may be nil.
func (s *settings) keep(before *network.Host) {
	if before == nil {
		return
	}
	if s.unclearTunnelIP {
		s.tunnelIP = before.TunnelIP
	}
	if !s.unclearMappings {
		return
	}
	for physical, bridge := range before.BridgeMappings {
		if s.mappings[physical] == "" && !slices.Contains(s.mapped(), bridge) {
			s.mappings[physical] = bridge
		}
	}
}

// mapped is the mapped bridges, sorted.
func (s *settings) mapped() []string {
	return slices.Sorted(maps.Values(s.mappings))
}

func validBridgeName(name string) bool {
	return name != "" && len(name) <= maxInterfaceName && !strings.ContainsAny(name, "/ \t") && name != "." && name != ".."
}

// Patch ports between br-int and br-tun.
const (
	patchToTunnel      = "patch-tun" // on br-int
	patchToIntegration = "patch-int" // on br-tun
)

// patchNames are the names of the patch ports between br-int and a mapped
// bridge: the one on br-int, the one on the bridge.
func patchNames(bridge string) (onIntegration, onBridge string) {
	return shortName("int-", bridge), shortName("phy-", bridge)
}

// shortName keeps a long name apart from others by a part of its hash.
func shortName(prefix, name string) string {
	if len(prefix)+len(name) <= maxInterfaceName {
		return prefix + name
	}
	sum := sha256.Sum256([]byte(name))
	tail := hex.EncodeToString(sum[:3])
	return prefix + name[:maxInterfaceName-len(prefix)-len(tail)] + tail
}

// tunnelTypes are all types of tunnels, in the order of their OpenFlow ports on
// br-tun.
var tunnelTypes = []string{network.TypeGRE, network.TypeVXLAN, network.TypeGeneve}

func tunnelPort(networkType string) string { return "planck-" + networkType }

// datapathID is the datapath id of a bridge that is ours. Left alone, Open
// vSwitch takes it from the lowest MAC among the ports, so that it changes
// with the ports and drops the OpenFlow connection each time. The host's name
// is in it because cloned machines may share a system-id.
func datapathID(host, systemID, bridge string) string {
	sum := sha256.Sum256([]byte("planck\x00" + host + "\x00" + systemID + "\x00" + bridge))
	return fmt.Sprintf("%016x", max(binary.BigEndian.Uint64(sum[:8]), 1))
}
