package pipeline

import (
	"fmt"
	"net/netip"
	"testing"

	"planck/network"
	"planck/verify"
)

// BenchmarkVerify proves a cloud of 50 hosts and 1,000 ports on 50 networks, each
// with a router.
func BenchmarkVerify(b *testing.B) {
	const hosts, networks, ports = 50, 50, 20
	store, err := network.Open(b.Context(), "sqlite://"+b.TempDir()+"/planck.db", network.DefaultConfig())
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	follower, compiler := store.Follow(), NewCompiler(Options{})
	defer follower.Close()
	_, err = store.Update(b.Context(), network.Cause{}, func(tx *network.Tx) error { return verifiedCloud(tx, hosts, networks, ports) })
	if err != nil {
		b.Fatal(err)
	}
	batch, err := follower.Next(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	compiler.Apply(batch)
	w := &world{compiler: compiler}
	in := verify.Input{View: store.View(), Tables: w.desired().read, Layout: VerifyLayout}
	for b.Loop() {
		r, err := verify.Run(in)
		if err != nil {
			b.Fatal(err)
		}
		if len(r.Findings)+len(r.Unproven) > 0 || r.Ports != networks*ports {
			b.Fatalf("%d ports, %+v %v", r.Ports, r.Findings, r.Unproven)
		}
		b.ReportMetric(float64(r.States), "sets")
		b.ReportMetric(float64(r.Flows), "flows")
	}
	b.ReportMetric(b.Elapsed().Seconds()/float64(b.N), "s/cloud")
}

func verifiedCloud(tx *network.Tx, hosts, networks, ports int) error {
	vifs := map[string][]network.VIF{}
	for i := range hosts {
		if err := tx.PutHost(host(fmt.Sprint("host", i+1), byte(i+1))); err != nil {
			return err
		}
	}
	for n := range networks {
		id := fmt.Sprint("net", n)
		if err := tx.CreateNetwork(&network.Network{Standard: network.Standard{ID: id}, NetworkType: network.TypeGRE, AdminStateUp: true}); err != nil {
			return err
		}
		prefix := netip.MustParsePrefix(fmt.Sprintf("10.%d.0.0/24", n))
		if err := tx.CreateSubnet(&network.Subnet{Standard: network.Standard{ID: "sub-" + id}, NetworkID: id, CIDR: prefix, IPVersion: 4, GatewayIP: prefix.Addr().Next(), EnableDHCP: true}); err != nil {
			return err
		}
		if err := tx.CreateRouter(&network.Router{Standard: network.Standard{ID: "router-" + id}, AdminStateUp: true}); err != nil {
			return err
		}
		if _, err := tx.AddRouterInterface("router-"+id, "sub-"+id, ""); err != nil {
			return err
		}
		if err := tx.CreateSecurityGroup(&network.SecurityGroup{Standard: network.Standard{ID: "group-" + id}}); err != nil {
			return err
		}
		for p := range ports {
			at := fmt.Sprint("host", 1+(n*7+p*3)%hosts)
			port := &network.Port{Standard: network.Standard{ID: fmt.Sprint(id, "-", p)}, NetworkID: id, AdminStateUp: true, PortSecurityEnabled: true, SecurityGroups: []string{"group-" + id}}
			if err := tx.CreatePort(port); err != nil {
				return err
			}
			vifs[at] = append(vifs[at], network.VIF{PortID: port.ID, Host: at, Name: port.ID, OFPort: uint32(len(vifs[at]) + 1)})
		}
	}
	for at, all := range vifs {
		if err := tx.SyncVIFs(at, all); err != nil {
			return err
		}
		for _, v := range all {
			if err := tx.SetPortStatus(network.PortStatus{PortID: v.PortID, Status: network.StatusActive}); err != nil {
				return err
			}
		}
	}
	return nil
}
