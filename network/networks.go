package network

import (
	"maps"
	"slices"
	"strings"
)

// Limits of provider attributes and of the MTU.
const (
	minVLAN  = 1
	maxVLAN  = 4094
	minMTU   = 68   // RFC 791
	minMTUv6 = 1280 // RFC 8200
)

// maxTunnelID is the largest id that fits the header of each tunnel type.
var maxTunnelID = map[string]uint32{
	TypeGRE:    1<<32 - 1,
	TypeVXLAN:  1<<24 - 1,
	TypeGeneve: 1<<24 - 1,
}

// encapsulation is what a tunnel adds to each frame, in bytes.
var encapsulation = map[string]int{TypeGRE: 42, TypeVXLAN: 50, TypeGeneve: 58}

func invalidInput(format string, args ...any) *Error {
	e := Errorf(Invalid, "InvalidInput", format, args...)
	e.Message = "Invalid input for operation: " + strings.TrimSuffix(e.Message, ".") + "."
	return e
}

func networkNotFound(id string) *Error {
	return Errorf(NotFound, "NetworkNotFound", "Network %s could not be found.", id)
}

// CreateNetwork creates a network. Without NetworkType it is a tenant network:
// type and segment come from the configured ranges; an external one is flat, as
// long as there is a physical network for that. With NetworkType,
// PhysicalNetwork and SegmentationID are provider attributes; a SegmentationID
// of 0 is allocated. An MTU of 0 is the largest possible.
func (tx *Tx) CreateNetwork(n *Network) error {
	tx.begin(&n.Standard)
	if tx.Network(n.ID) != nil {
		return idTaken(KindNetwork, n.ID)
	}
	if err := tx.allocateSegments(n); err != nil {
		return err
	}
	if n.MTU == 0 {
		n.MTU = tx.s.cfg.maxMTU(n.NetworkType)
	}
	if err := tx.checkMTU(n); err != nil {
		return err
	}
	key, err := tx.smallID(spaceNetworkKey)
	if err != nil {
		return err
	}
	n.Key = key
	n.trim()
	tx.warnOfTunnels(n)
	return tx.put(n.Clone())
}

// warnOfTunnels tells the operator of an external network that leads nowhere:
// what was made without provider attributes is tunnelled when each physical
// network has its flat network already.
func (tx *Tx) warnOfTunnels(n *Network) {
	if !n.External || n.NetworkType == TypeFlat || n.NetworkType == TypeVLAN {
		return
	}
	tx.s.log.Warn("nobody outside reaches an external network that is not on a physical network: make it flat or a VLAN by its provider attributes",
		"network_id", n.ID, "network_type", n.NetworkType)
}

func idTaken(k Kind, id string) *Error {
	return Errorf(Conflict, "Conflict", "A %s with the id %s exists already.", k, id)
}

// UpdateNetwork replaces a network by a modified copy. Provider attributes
// can't change.
func (tx *Tx) UpdateNetwork(n *Network) error {
	old := tx.Network(n.ID)
	if old == nil {
		return networkNotFound(n.ID)
	}
	if !slices.Equal(n.Segments(), old.Segments()) {
		return providerFixed(n, old)
	}
	if n.MTU == 0 {
		n.MTU = tx.s.cfg.maxMTU(n.NetworkType)
	}
	if n.MTU != old.MTU {
		if err := tx.checkMTU(n); err != nil {
			return err
		}
	}
	if old.Shared && !n.Shared {
		if err := tx.checkUnshare(old); err != nil {
			return err
		}
	}
	if old.External && !n.External {
		if err := tx.checkNotExternal(old.ID); err != nil {
			return err
		}
	}
	n.Key = old.Key
	if !old.External {
		tx.warnOfTunnels(n)
	}
	_, err := replace(tx, old, n)
	return err
}

// providerFixed refuses a change of provider attributes, and names them.
func providerFixed(n, old *Network) *Error {
	var changed []string
	if n.NetworkType != old.NetworkType {
		changed = append(changed, "provider:network_type")
	}
	if n.PhysicalNetwork != old.PhysicalNetwork {
		changed = append(changed, "provider:physical_network")
	}
	if n.SegmentationID != old.SegmentationID {
		changed = append(changed, "provider:segmentation_id")
	}
	if !slices.Equal(n.More, old.More) {
		changed = append(changed, "segments")
	}
	return invalidInput("Plugin does not support updating the following provider network attributes: %s", strings.Join(changed, ", "))
}

// touchNetwork counts a change of a network's subnets as one of the network.
func (tx *Tx) touchNetwork(id string) error {
	old := tx.Network(id)
	n := old.Clone()
	tx.bump(&n.Standard, old.Standard)
	return tx.put(n)
}

func (tx *Tx) checkUnshare(n *Network) error {
	for p := range tx.PortsOf(n.ID) {
		if p.ProjectID != n.ProjectID && !p.Service() {
			return Errorf(Conflict, "InvalidSharedSetting",
				"Unable to reconfigure sharing settings for network %s. Multiple tenants are using it.", n.Name)
		}
	}
	return nil
}

func (tx *Tx) checkNotExternal(id string) error {
	for range tx.RoutersOn(id) {
		return Errorf(Conflict, "ExternalNetworkInUse",
			"External network %s cannot be updated to be made non-external, since it has existing gateway ports.", id)
	}
	return nil
}

// DeleteNetwork deletes a network with its subnets. Ports are in the way,
// except those for DHCP and of floating IPs that stand for no address.
func (tx *Tx) DeleteNetwork(id string) error {
	if tx.Network(id) == nil {
		return networkNotFound(id)
	}
	for _, f := range slices.Collect(tx.FloatingIPsOn(id)) {
		if f.PortID != "" {
			continue
		}
		if err := tx.DeleteFloatingIP(f.ID); err != nil {
			return err
		}
	}
	ports := slices.Collect(tx.PortsOf(id))
	used := slices.DeleteFunc(slices.Clone(ports), func(p *Port) bool { return p.DeviceOwner == OwnerDHCP })
	if len(used) > 0 {
		return Errorf(Conflict, "NetworkInUse",
			"Unable to complete operation on network %s. There are one or more ports still in use on the network, id for these ports is: %s.",
			id, strings.Join(idsByAge(used), ","))
	}
	for _, p := range ports {
		if err := tx.removePort(p); err != nil {
			return err
		}
	}
	for _, s := range slices.Collect(tx.SubnetsOf(id)) {
		tx.removeSubnet(s)
	}
	for _, e := range slices.Collect(tx.ExternalNeighborsOf(id)) {
		tx.remove(KindExternalNeighbor, e.ObjectID())
	}
	tx.remove(KindNetwork, id)
	return nil
}

// MaxMTU is the largest MTU that a network of a type may have.
func (s *Store) MaxMTU(networkType string) int { return s.cfg.maxMTU(networkType) }

// maxMTU is the largest MTU of a network type.
func (c *Config) maxMTU(typ string) int {
	overhead, tunnelled := encapsulation[typ]
	if !tunnelled {
		return c.GlobalPhysnetMTU
	}
	path := c.GlobalPhysnetMTU
	if c.PathMTU > 0 {
		path = c.PathMTU
	}
	return path - overhead
}

func (tx *Tx) checkMTU(n *Network) error {
	if most := tx.s.cfg.maxMTU(n.NetworkType); n.MTU > most {
		return invalidInput("Requested MTU is too big, maximum is %d", most)
	}
	if n.MTU < minMTU {
		return invalidInput("Requested MTU is too small, minimum is %d", minMTU)
	}
	if n.MTU >= minMTUv6 {
		return nil
	}
	for s := range tx.SubnetsOf(n.ID) {
		if s.IPVersion == 6 {
			return mtuTooSmallForIPv6(n)
		}
	}
	return nil
}

func mtuTooSmallForIPv6(n *Network) *Error {
	return Errorf(Conflict, "NetworkMTUSubnetConflict",
		"MTU of %s is not valid, subnet requires a minimum of %d", n.ID, minMTUv6)
}

// allocateSegment validates or chooses the segment of a new network.
func (tx *Tx) allocateSegment(n *Network) error {
	switch n.NetworkType {
	case "":
		if n.External && tx.tryFlat(n) {
			return nil
		}
		return tx.allocateTenantSegment(n)
	case TypeLocal:
		if n.PhysicalNetwork != "" {
			return prohibited("physical_network", n)
		}
		if n.SegmentationID != 0 {
			return prohibited("segmentation_id", n)
		}
		return nil
	case TypeFlat:
		if n.SegmentationID != 0 {
			return prohibited("segmentation_id", n)
		}
		return tx.checkPhysicalNetwork(n)
	case TypeVLAN:
		return tx.allocateVLAN(n)
	case TypeGRE, TypeVXLAN, TypeGeneve:
		return tx.allocateTunnel(n)
	}
	return invalidInput("network_type value '%s' not supported", n.NetworkType)
}

func prohibited(attribute string, n *Network) *Error {
	return invalidInput("%s prohibited for %s provider network", attribute, n.NetworkType)
}

func (tx *Tx) checkPhysicalNetwork(n *Network) error {
	if n.PhysicalNetwork == "" {
		if n.NetworkType == TypeVLAN && n.SegmentationID != 0 {
			return invalidInput("segmentation_id requires physical_network for VLAN provider network")
		}
		return invalidInput("physical_network required for %s provider network", n.NetworkType)
	}
	if tx.knowsPhysicalNetwork(n.PhysicalNetwork) {
		return nil
	}
	kind := n.NetworkType
	if kind == TypeVLAN {
		kind = "VLAN"
	}
	return invalidInput("physical_network '%s' unknown for %s provider network", n.PhysicalNetwork, kind)
}

func (tx *Tx) knowsPhysicalNetwork(name string) bool {
	if _, ok := tx.s.cfg.VLANRanges[name]; ok {
		return true
	}
	for h := range tx.Hosts() {
		if _, ok := h.BridgeMappings[name]; ok {
			return true
		}
	}
	return false
}

func (tx *Tx) allocateVLAN(n *Network) error {
	if err := tx.checkPhysicalNetwork(n); err != nil {
		return err
	}
	if n.SegmentationID == 0 {
		return tx.allocateID(n, tx.s.cfg.VLANRanges[n.PhysicalNetwork])
	}
	if n.SegmentationID < minVLAN || n.SegmentationID > maxVLAN {
		return invalidInput("segmentation_id out of range (%d through %d)", minVLAN, maxVLAN)
	}
	return nil
}

func (tx *Tx) allocateTunnel(n *Network) error {
	if n.PhysicalNetwork != "" {
		return invalidInput("provider:physical_network specified for %s network", n.NetworkType)
	}
	ranges, used := tx.s.cfg.TunnelRanges[n.NetworkType]
	if !used {
		return invalidInput("network_type value '%s' not supported", n.NetworkType)
	}
	if n.SegmentationID == 0 {
		return tx.allocateID(n, ranges)
	}
	if most := maxTunnelID[n.NetworkType]; n.SegmentationID > most {
		return invalidInput("segmentation_id out of range (%d through %d)", 1, most)
	}
	return nil
}

// allocateID gives a network the next free id of its type and physical network.
func (tx *Tx) allocateID(n *Network, ranges []IDRange) error {
	name := segmentKey(n.NetworkType, n.PhysicalNetwork, 0)
	id, ok := tx.s.alloc.number(name, ranges, func(id uint32) bool {
		_, used := tx.claimant(spaceSegment, segmentKey(n.NetworkType, n.PhysicalNetwork, id))
		return id != 0 && !used
	})
	if !ok {
		return noNetworkAvailable()
	}
	n.SegmentationID = id
	return nil
}

func noNetworkAvailable() *Error {
	return Errorf(Unavailable, "NoNetworkAvailable",
		"Unable to create the network. No tenant network is available for allocation.")
}

func (tx *Tx) allocateTenantSegment(n *Network) error {
	if n.PhysicalNetwork != "" || n.SegmentationID != 0 {
		return invalidInput("network_type required")
	}
	for _, typ := range tx.s.cfg.TenantNetworkTypes {
		if tx.tryTenantType(n, typ) {
			return nil
		}
	}
	n.NetworkType, n.PhysicalNetwork = "", ""
	return noNetworkAvailable()
}

// tryFlat puts a network onto the first physical network that has no flat one
// yet: an external network is there for what is outside of the tunnels.
func (tx *Tx) tryFlat(n *Network) bool {
	if n.PhysicalNetwork != "" || n.SegmentationID != 0 {
		return false
	}
	names := slices.Collect(maps.Keys(tx.s.cfg.VLANRanges))
	for h := range tx.Hosts() {
		names = slices.AppendSeq(names, maps.Keys(h.BridgeMappings))
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		if _, used := tx.claimant(spaceSegment, segmentKey(TypeFlat, name, 0)); !used {
			n.NetworkType, n.PhysicalNetwork = TypeFlat, name
			return true
		}
	}
	return false
}

func (tx *Tx) tryTenantType(n *Network, typ string) bool {
	n.NetworkType, n.PhysicalNetwork = typ, ""
	switch typ {
	case TypeLocal:
		return true
	case TypeVLAN:
		ranges := tx.s.cfg.VLANRanges
		for _, name := range slices.Sorted(maps.Keys(ranges)) {
			n.PhysicalNetwork = name
			if tx.allocateID(n, ranges[name]) == nil {
				return true
			}
		}
		return false
	case TypeGRE, TypeVXLAN, TypeGeneve:
		return tx.allocateID(n, tx.s.cfg.TunnelRanges[typ]) == nil
	}
	return false
}
