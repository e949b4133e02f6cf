package pipeline

import (
	"net/netip"

	"planck/flows"
	"planck/network"
)

// metadataFeature sends what VMs send to the metadata service up to the
// controller, which is the service on every network: whatever the destination
// MAC, so that the way through the default gateway, through the DHCP server's
// address and on the link itself are the same (DESIGN 2.4, 2.5).
type metadataFeature struct{}

func (metadataFeature) ID() FeatureID { return FeatureMetadata }
func (metadataFeature) Name() string  { return "metadata" }

// FeatureMetadata is the metadata service.
const FeatureMetadata FeatureID = 48

// meterMetadata limits its class of punts.
const meterMetadata = 48

// MetadataAddress is where VMs find the metadata service.
var MetadataAddress = netip.AddrFrom4([4]byte{169, 254, 169, 254})

// MetadataPort is its TCP port.
const MetadataPort = 80

// metadataMAC answers those who look for the address on their own link. No
// frame is delivered to it: it ends in the address, to be known in a capture.
var metadataMAC = network.MAC{0x0e, 0x50, 0xa9, 0xfe, 0xa9, 0xfe}

// CompileHost implements HostFeature. Only frames of local ports come to
// Services and ArpNd, so two flows serve all ports of the host.
func (metadataFeature) CompileHost(c *Context) {
	puntMeter(c, meterMetadata)
	c.Flow(Services, 100, toMetadata(), punt(c, meterMetadata)...)
	c.Flow(ArpNd, arpMetadata, flows.NewMatch(flows.ARP, flows.ARPOp.Is(arpRequest), flows.ARPTPA.IsIP(MetadataAddress)), answer(metadataMAC, MetadataAddress)...)
}

func toMetadata(terms ...flows.Term) flows.Match {
	return flows.NewMatch(append(terms, flows.IPv4, flows.TCP, flows.IPv4Dst.IsIP(MetadataAddress), flows.TCPDst.Is(MetadataPort))...)
}
