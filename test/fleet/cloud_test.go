package fleet

import (
	"context"
	"net/netip"
	"path/filepath"
	"testing"

	"planck/network"
	"planck/pipeline"
)

// cloud is a model with a network of some ports.
type cloud struct {
	testing.TB
	*network.Store
	network *network.Network
}

func newCloud(tb testing.TB) *cloud {
	tb.Helper()
	store, err := network.Open(tb.Context(), "sqlite://"+filepath.Join(tb.TempDir(), "planck.db"), network.DefaultConfig())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { store.Close() })
	c := &cloud{tb, store, &network.Network{AdminStateUp: true, PortSecurityEnabled: true}}
	c.do(func(tx *network.Tx) error { return tx.CreateNetwork(c.network) })
	c.do(func(tx *network.Tx) error {
		return tx.CreateSubnet(&network.Subnet{
			NetworkID: c.network.ID, CIDR: netip.MustParsePrefix("10.0.0.0/24"), IPVersion: 4,
			GatewayIP: netip.MustParseAddr("10.0.0.1"), EnableDHCP: true,
		})
	})
	return c
}

func (c *cloud) do(fn func(tx *network.Tx) error) {
	c.Helper()
	if _, err := c.Update(context.Background(), network.Cause{Operation: "test"}, fn); err != nil {
		c.Fatal(err)
	}
}

func (c *cloud) port(host string) *network.Port {
	c.Helper()
	p := &network.Port{
		Standard: network.Standard{ProjectID: "blue"}, NetworkID: c.network.ID, AdminStateUp: true, PortSecurityEnabled: true,
		DeviceOwner: "compute:nova", Binding: network.Binding{Host: host},
	}
	c.do(func(tx *network.Tx) error { return tx.CreatePort(p) })
	return c.View().Port(p.ID)
}

// compile is the flows of two hosts with two ports each.
func compile(tb testing.TB) *pipeline.Compiler {
	tb.Helper()
	c := newCloud(tb)
	for i := range 2 {
		c.do(func(tx *network.Tx) error {
			return tx.PutHost(&network.Host{
				Name: Name(i), SystemID: Name(i), TunnelIP: netip.AddrFrom4([4]byte{10, 250, 0, byte(i)}), DatapathType: "system",
				BridgeMappings: map[string]string{"physnet1": "br-ex"},
				Bridges: map[string]network.Bridge{
					"br-int": {DatapathID: uint64(16*i + 1), Patches: map[string]uint32{"br-tun": 0xfe00, "br-ex": 0xfe01}},
					"br-tun": {DatapathID: uint64(16*i + 2), Patches: map[string]uint32{"br-int": 1}, Tunnels: map[string]uint32{"gre": 2, "vxlan": 3, "geneve": 4}},
					"br-ex":  {DatapathID: uint64(16*i + 3), Patches: map[string]uint32{"br-int": 0xfe00}},
				},
			})
		})
		a, b := c.port(Name(i)), c.port(Name(i))
		c.do(func(tx *network.Tx) error {
			return tx.SyncVIFs(Name(i), []network.VIF{{PortID: a.ID, Name: "a", OFPort: 10}, {PortID: b.ID, Name: "b", OFPort: 11}})
		})
	}
	compiler := pipeline.NewCompiler(pipeline.Options{})
	f := c.Follow()
	defer f.Close()
	batch, err := f.Next(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	for _, err := range compiler.Apply(batch).Errors {
		tb.Error(err)
	}
	return compiler
}
