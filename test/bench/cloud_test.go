package bench

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"testing"

	"planck/network"
)

// A cloud of the model alone: networks of portsPerNetwork ports, each port on
// another host than the one before.
const portsPerNetwork = 10

type cloud struct {
	testing.TB
	store *network.Store
	hosts int
	ports int
}

// newCloud makes a cloud of the first so many ports, all plugged.
func newCloud(tb testing.TB, hosts, ports int) *cloud {
	tb.Helper()
	store, err := network.Open(context.Background(), "sqlite://"+filepath.Join(tb.TempDir(), "planck.db"), network.DefaultConfig())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := store.Close(); err != nil {
			tb.Error(err)
		}
	})
	c := &cloud{TB: tb, store: store, hosts: hosts}
	c.do(func(tx *network.Tx) error {
		for i := range hosts {
			if err := tx.PutHost(modelHost(i)); err != nil {
				return err
			}
		}
		return nil
	})
	c.addNetworks(ports / portsPerNetwork)
	c.plugAll()
	return c
}

// addNetworks adds networks with their ports, some in each transaction.
func (c *cloud) addNetworks(n int) {
	c.Helper()
	const perTransaction = 50
	for first := 0; first < n; first += perTransaction {
		c.do(func(tx *network.Tx) error {
			for i := first; i < min(first+perTransaction, n); i++ {
				if err := c.addNetwork(tx, i); err != nil {
					return err
				}
			}
			return nil
		})
	}
}

func (c *cloud) do(fn func(tx *network.Tx) error) {
	c.Helper()
	if _, err := c.store.Update(context.Background(), network.Cause{Operation: "bench"}, fn); err != nil {
		c.Fatal(err)
	}
}

func hostName(i int) string          { return fmt.Sprintf("host%d", i) }
func networkID(n int) string         { return fmt.Sprintf("%08d-0000-4000-8000-00000000cafe", n) }
func portID(i int) string            { return fmt.Sprintf("%08d-0000-4000-8000-00000000beef", i) }
func (c *cloud) hostOf(i int) string { return hostName(i % c.hosts) }

// modelHost is a hypervisor with br-int and br-tun.
func modelHost(i int) *network.Host {
	dpid := uint64(i+1) << 8
	return &network.Host{
		Name: hostName(i), SystemID: hostName(i), TunnelIP: netip.AddrFrom4([4]byte{10, 250, byte(i >> 8), byte(i)}), DatapathType: "netdev",
		Bridges: map[string]network.Bridge{
			network.BridgeIntegration: {DatapathID: dpid | 1, Patches: map[string]uint32{network.BridgeTunnel: 0xfe00}},
			network.BridgeTunnel: {
				DatapathID: dpid | 2, Patches: map[string]uint32{network.BridgeIntegration: 1},
				Tunnels: map[string]uint32{network.TypeGRE: 2, network.TypeVXLAN: 3, network.TypeGeneve: 4},
			},
		},
	}
}

func (c *cloud) addNetwork(tx *network.Tx, n int) error {
	err := tx.CreateNetwork(&network.Network{
		Standard: network.Standard{ID: networkID(n)}, AdminStateUp: true, PortSecurityEnabled: true,
	})
	if err != nil {
		return err
	}
	err = tx.CreateSubnet(&network.Subnet{
		NetworkID: networkID(n), CIDR: netip.MustParsePrefix("10.0.0.0/24"), IPVersion: 4,
		GatewayIP: netip.MustParseAddr("10.0.0.1"), EnableDHCP: true,
	})
	if err != nil {
		return err
	}
	for range portsPerNetwork {
		if err := createPort(tx, c.ports, n, c.hostOf(c.ports)); err != nil {
			return err
		}
		c.ports++
	}
	return nil
}

func createPort(tx *network.Tx, i, n int, host string) error {
	return tx.CreatePort(&network.Port{
		Standard: network.Standard{ID: portID(i), ProjectID: "blue"}, NetworkID: networkID(n), AdminStateUp: true, PortSecurityEnabled: true,
		DeviceOwner: "compute:nova", Binding: network.Binding{Host: host},
	})
}

// plugAll plugs every port on its host.
func (c *cloud) plugAll() {
	c.Helper()
	plugged := make(map[string][]network.VIF)
	for i := range c.ports {
		host := c.hostOf(i)
		plugged[host] = append(plugged[host], vif(i, len(plugged[host])))
	}
	for host, vifs := range plugged {
		c.do(func(tx *network.Tx) error { return tx.SyncVIFs(host, vifs) })
	}
}

func vif(port, before int) network.VIF {
	return network.VIF{PortID: portID(port), Name: fmt.Sprintf("tap%d", port), OFPort: uint32(before + 1)}
}

// plugExtra plugs one more port on a host.
func plugExtra(tx *network.Tx, i int, host string) error {
	vifs := []network.VIF{}
	for v := range tx.VIFsOn(host) {
		vifs = append(vifs, *v)
	}
	return tx.SyncVIFs(host, append(vifs, vif(i, len(vifs))))
}
