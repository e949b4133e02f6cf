package network

import "slices"

// Segment is where the frames of a network travel.
type Segment struct {
	NetworkType     string `json:"network_type"`
	PhysicalNetwork string `json:"physical_network,omitempty"` // "" for none
	SegmentationID  uint32 `json:"segmentation_id,omitempty"`  // 0 for none
}

// Segments are all of a network's segments, the first one included. Several are
// flat or VLANs on different physical networks: a host uses the first one that
// it has a bridge for. Whatever joins them is the operator's.
func (n *Network) Segments() []Segment {
	return append([]Segment{{n.NetworkType, n.PhysicalNetwork, n.SegmentationID}}, n.More...)
}

// SetSegments replaces a network's segments; there is at least one.
func (n *Network) SetSegments(list []Segment) {
	n.NetworkType, n.PhysicalNetwork, n.SegmentationID = list[0].NetworkType, list[0].PhysicalNetwork, list[0].SegmentationID
	n.More = slices.Clone(list[1:])
}

// On is a network as a host has it: with the segment that the host uses as its
// only one.
func (n *Network) On(h *Host) *Network {
	if n == nil || len(n.More) == 0 || h == nil {
		return n
	}
	on := *n
	on.More = nil
	for _, s := range n.Segments() {
		if _, ok := h.BridgeMappings[s.PhysicalNetwork]; ok {
			on.NetworkType, on.PhysicalNetwork, on.SegmentationID = s.NetworkType, s.PhysicalNetwork, s.SegmentationID
			break
		}
	}
	return &on
}

// allocateSegments validates or chooses the segments of a new network.
func (tx *Tx) allocateSegments(n *Network) error {
	if len(n.More) == 0 {
		return tx.allocateSegment(n)
	}
	list := n.Segments()
	for i := range list {
		s := &list[i]
		one := &Network{NetworkType: s.NetworkType, PhysicalNetwork: s.PhysicalNetwork, SegmentationID: s.SegmentationID}
		if !one.Provider() {
			return invalidInput("a network of several segments has flat and vlan segments here, and one is of the type '%s'", s.NetworkType)
		}
		if slices.Contains(list[:i], *s) {
			return Errorf(Invalid, "SegmentsContainDuplicateEntry", "Duplicate segment entry in request.")
		}
		if slices.ContainsFunc(list[:i], func(o Segment) bool { return o.PhysicalNetwork == s.PhysicalNetwork }) {
			return invalidInput("each of several segments needs a physical network of its own here, and two are on '%s'", s.PhysicalNetwork)
		}
		if err := tx.allocateSegment(one); err != nil {
			return err
		}
		s.SegmentationID = one.SegmentationID
	}
	n.SetSegments(list)
	return nil
}
