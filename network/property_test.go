package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// world does random things to a store and keeps what a follower would know.
type world struct {
	s     *Store
	f     *Follower
	known map[objectKey]Object
}

// TestRandomCallsKeepTheInvariants makes random calls, good and bad ones. After
// each: a refused call changed nothing, an accepted one made one revision at
// most, claims are those of the objects, presences and DHCP ports are where
// they must be, the follower knows the same as the view. At the end a store
// that is opened anew sees the same, and deleting everything leaves nothing.
func TestRandomCallsKeepTheInvariants(t *testing.T) {
	onEach(t, func(t *testing.T, dsn string) {
		cfg := providerConfig()
		cfg.TunnelRanges[TypeGRE] = []IDRange{{1, 6}}
		s := open(t, dsn, cfg)
		rapid.Check(t, func(rt *rapid.T) {
			w := &world{s: s, f: s.Follow(), known: map[objectKey]Object{}}
			defer w.f.Close()
			w.follow(rt)
			rt.Repeat(map[string]func(*rapid.T){
				"":               func(rt *rapid.T) { checkInvariants(rt, s) },
				"create network": w.createNetwork,
				"update network": w.updateNetwork,
				"delete network": w.deleteNetwork,
				"create subnet":  w.createSubnet,
				"update subnet":  w.updateSubnet,
				"delete subnet":  w.deleteSubnet,
				"create port":    w.createPort,
				"create ports":   w.createPort,
				"update port":    w.updatePort,
				"update ports":   w.updatePort,
				"delete port":    w.deletePort,
				"put host":       w.putHost,
				"delete host":    w.deleteHost,
				"host down":      w.hostDown,
				"plug":           w.plug,
				"bind":           w.bind,
				"activate":       w.activate,
				"plug more":      w.plug,
				"status":         w.status,
				"lay out":        w.layOut,
				"lay out more":   w.layOut,
				"create router":  w.createRouter,
				"update router":  w.updateRouter,
				"delete router":  w.deleteRouter,
				"join":           w.join,
				"join more":      w.join,
				"part":           w.part,
				"float":          w.float,
				"float again":    w.floatAgain,
				"sink":           w.sink,
			})
			again, err := Open(t.Context(), dsn, cfg)
			if err != nil {
				rt.Fatal(err)
			}
			sameView(rt, "after reopening", s.View(), again.View())
			if err := again.Close(); err != nil {
				rt.Fatal(err)
			}
			w.deleteEverything(rt)
			if left := claimRows(rt, s); len(left) > 0 {
				rt.Fatalf("claims left: %v", left)
			}
		})
	})
}

// do runs one call. Now and then it fails on purpose after its work is done.
func (w *world) do(rt *rapid.T, fn func(*Tx) error) {
	before := w.s.View()
	spoil := errors.New("spoilt")
	spoilt := rapid.IntRange(0, 9).Draw(rt, "spoil") == 0
	v, err := w.s.Update(context.Background(), Cause{}, func(tx *Tx) error {
		if err := fn(tx); err != nil || !spoilt {
			return err
		}
		return spoil
	})
	after := w.s.View()
	var e *Error
	switch {
	case err == nil:
		if after.Revision() > before.Revision()+1 || v.Revision() != after.Revision() {
			rt.Fatalf("revision %d became %d", before.Revision(), after.Revision())
		}
		w.follow(rt)
	case errors.Is(err, spoil) || errors.As(err, &e):
		if !slices.Equal(dump(before), dump(after)) {
			rt.Fatalf("a call that failed (%v) changed something", err)
		}
	default:
		rt.Fatal(err)
	}
}

// follow brings known up to date and compares it with the view.
func (w *world) follow(rt *rapid.T) {
	if _, ok := w.known[objectKey{}]; !ok {
		w.known[objectKey{}] = nil // the first batch was taken
	} else if w.upToDate() {
		return
	}
	b, err := w.f.Next(context.Background())
	if err != nil {
		rt.Fatal(err)
	}
	for _, c := range b.Changes {
		k := objectKey{c.Kind, c.ID}
		if w.known[k] != c.Before {
			rt.Fatalf("%v was %v for the follower, not %v", k, w.known[k], c.Before)
		}
		if c.After == nil {
			delete(w.known, k)
		} else {
			w.known[k] = c.After
		}
	}
	if !w.upToDate() {
		rt.Fatal("the follower missed a change")
	}
}

func (w *world) upToDate() bool {
	all := dump(w.s.View())
	for _, o := range all {
		if w.known[objectKey{o.ObjectKind(), o.ObjectID()}] != o {
			return false
		}
	}
	return len(all) == len(w.known)-1
}

func pick[T any](rt *rapid.T, what string, of []T) (T, bool) {
	if len(of) == 0 {
		var none T
		return none, false
	}
	return of[rapid.IntRange(0, len(of)-1).Draw(rt, what)], true
}

// choose is pick of what must not be empty.
func choose[T any](rt *rapid.T, what string, of ...T) T {
	return rapid.SampledFrom(of).Draw(rt, what)
}

func (w *world) network(rt *rapid.T) *Network {
	n, ok := pick(rt, "network", slices.Collect(w.s.View().Networks()))
	if !ok {
		return &Network{Standard: Standard{ID: "none"}}
	}
	return n
}

func (w *world) port(rt *rapid.T) *Port {
	p, ok := pick(rt, "port", slices.Collect(w.s.View().Ports()))
	if !ok {
		return &Port{Standard: Standard{ID: "none"}}
	}
	return p
}

func (w *world) subnet(rt *rapid.T) *Subnet {
	s, ok := pick(rt, "subnet", slices.Collect(w.s.View().Subnets()))
	if !ok {
		return &Subnet{Standard: Standard{ID: "none"}}
	}
	return s
}

func (w *world) createNetwork(rt *rapid.T) {
	n := Network{
		NetworkType:     choose(rt, "type", "", "", TypeVLAN, TypeFlat, TypeVXLAN, TypeLocal),
		PhysicalNetwork: choose(rt, "physnet", "", "physnet1", "physnet2"),
		SegmentationID:  choose[uint32](rt, "id", 0, 0, 5, 100),
		Shared:          rapid.Bool().Draw(rt, "shared"),
		External:        rapid.Bool().Draw(rt, "external"),
	}
	if n.NetworkType == "" {
		n.PhysicalNetwork, n.SegmentationID = "", 0
	}
	w.do(rt, func(tx *Tx) error { return tx.CreateNetwork(n.Clone()) })
}

func (w *world) updateNetwork(rt *rapid.T) {
	n := w.network(rt).Clone()
	n.Shared = rapid.Bool().Draw(rt, "shared")
	n.External = rapid.Bool().Draw(rt, "external")
	n.Name = choose(rt, "name", "", "a", "b")
	n.MTU = choose(rt, "mtu", 1500, 1400, 500)
	w.do(rt, func(tx *Tx) error { return tx.UpdateNetwork(n.Clone()) })
}

func (w *world) deleteNetwork(rt *rapid.T) {
	id := w.network(rt).ID
	w.do(rt, func(tx *Tx) error { return tx.DeleteNetwork(id) })
}

func (w *world) createSubnet(rt *rapid.T) {
	s := Subnet{
		NetworkID:  w.network(rt).ID,
		CIDR:       mustPrefix(choose(rt, "cidr", "10.0.0.0/29", "10.0.0.0/30", "10.0.1.0/24", "2001:db8::/64", "2001:db8:1::/64")),
		EnableDHCP: rapid.Bool().Draw(rt, "dhcp"),
		GatewayIP:  choose(rt, "gateway", netip.Addr{}, NoGateway),
	}
	if s.CIDR.Addr().Is6() && s.EnableDHCP {
		s.IPv6AddressMode = choose(rt, "mode", "", SLAAC, DHCPv6Stateful, DHCPv6Stateless)
	}
	w.do(rt, func(tx *Tx) error { return tx.CreateSubnet(s.Clone()) })
}

func (w *world) updateSubnet(rt *rapid.T) {
	s := w.subnet(rt).Clone()
	s.EnableDHCP = rapid.Bool().Draw(rt, "dhcp")
	s.GatewayIP = choose(rt, "gateway", netip.Addr{}, s.GatewayIP, mustAddr("10.0.0.6"))
	if rapid.Bool().Draw(rt, "pools") {
		s.AllocationPools = ranges("10.0.0.2", "10.0.0.2")
	}
	w.do(rt, func(tx *Tx) error { return tx.UpdateSubnet(s.Clone()) })
}

func (w *world) deleteSubnet(rt *rapid.T) {
	id := w.subnet(rt).ID
	w.do(rt, func(tx *Tx) error { return tx.DeleteSubnet(id) })
}

func (w *world) fixedIPs(rt *rapid.T) []FixedIP {
	var ips []FixedIP
	for range rapid.IntRange(0, 2).Draw(rt, "addresses") {
		f := FixedIP{IP: choose(rt, "ip", netip.Addr{}, mustAddr("10.0.0.3"), mustAddr("10.0.1.9"), mustAddr("2001:db8::9"))}
		if !f.IP.IsValid() || rapid.Bool().Draw(rt, "with subnet") {
			f.SubnetID = w.subnet(rt).ID
		}
		ips = append(ips, f)
	}
	return ips
}

var (
	randomHosts  = []string{"", "h1", "h2", "h3"}
	randomOwners = []string{"", "compute:nova", OwnerRouterInterface}
)

func (w *world) createPort(rt *rapid.T) {
	p := Port{
		NetworkID:   w.network(rt).ID,
		DeviceOwner: choose(rt, "owner", randomOwners...),
		FixedIPs:    w.fixedIPs(rt),
		Binding:     Binding{Host: choose(rt, "host", randomHosts...)},
	}
	p.ProjectID = choose(rt, "project", "blue", "red")
	if rapid.Bool().Draw(rt, "with MAC") {
		p.MAC = MAC{2, 0, 0, 0, 0, choose[byte](rt, "MAC", 1, 2)}
	}
	w.do(rt, func(tx *Tx) error { return tx.CreatePort(p.Clone()) })
}

func (w *world) updatePort(rt *rapid.T) {
	p := w.port(rt).Clone()
	switch rapid.IntRange(0, 3).Draw(rt, "change") {
	case 0:
		p.FixedIPs = w.fixedIPs(rt)
	case 1:
		p.Binding.Host = choose(rt, "host", randomHosts...)
	case 2:
		p.MAC = MAC{2, 0, 0, 0, 0, choose[byte](rt, "MAC", 1, 2)}
	case 3:
		p.Name, p.DeviceOwner = choose(rt, "name", "a", "b"), choose(rt, "owner", randomOwners...)
	}
	w.do(rt, func(tx *Tx) error { return tx.UpdatePort(p.Clone()) })
}

func (w *world) deletePort(rt *rapid.T) {
	id := w.port(rt).ID
	w.do(rt, func(tx *Tx) error { return tx.DeletePort(id) })
}

func (w *world) putHost(rt *rapid.T) {
	h := Host{Name: choose(rt, "host", randomHosts[1:]...), DatapathType: choose(rt, "datapath", "", "netdev")}
	if rapid.IntRange(0, 3).Draw(rt, "tunnels") > 0 {
		withTunnels(&h)
	}
	if rapid.Bool().Draw(rt, "mapping") {
		h.BridgeMappings = map[string]string{"physnet1": "br-ex"}
		if h.Bridges != nil && rapid.Bool().Draw(rt, "controlled") {
			h.Bridges["br-ex"] = Bridge{DatapathID: 3}
		}
	}
	w.do(rt, func(tx *Tx) error { return tx.PutHost(h.Clone()) })
}

func (w *world) deleteHost(rt *rapid.T) {
	name := choose(rt, "host", randomHosts...)
	w.do(rt, func(tx *Tx) error { return tx.DeleteHost(name) })
}

func (w *world) hostDown(rt *rapid.T) {
	name := choose(rt, "host", randomHosts...)
	if rapid.Bool().Draw(rt, "up") {
		w.do(rt, func(tx *Tx) error { tx.SetHostUp(name); return nil })
		return
	}
	w.do(rt, func(tx *Tx) error { return tx.SetHostDown(HostDown{Host: name, Reason: "drawn"}) })
}

func (w *world) plug(rt *rapid.T) {
	host := choose(rt, "host", randomHosts[1:]...)
	var vifs []VIF
	for p := range w.s.View().Ports() {
		if rapid.Bool().Draw(rt, "plugged") {
			vifs = append(vifs, VIF{PortID: p.ID, OFPort: uint32(rapid.IntRange(1, 2).Draw(rt, "ofport"))})
		}
	}
	w.do(rt, func(tx *Tx) error { return tx.SyncVIFs(host, vifs) })
}

func (w *world) bind(rt *rapid.T) {
	p, host := w.port(rt), choose(rt, "host", "h1", "h2", "h3")
	w.do(rt, func(tx *Tx) error {
		if err := tx.CreateBinding(p.ID, Binding{Host: host, VNICType: vnicNormal}); err != nil {
			return err
		}
		return tx.SetReady(p.ID, host)
	})
}

func (w *world) activate(rt *rapid.T) {
	p, host := w.port(rt), choose(rt, "host", "h1", "h2", "h3")
	change := choose(rt, "binding", (*Tx).ActivateBinding, (*Tx).ActivateBinding, (*Tx).DeleteBinding)
	w.do(rt, func(tx *Tx) error { return change(tx, p.ID, host) })
}

func (w *world) status(rt *rapid.T) {
	st := PortStatus{PortID: w.port(rt).ID, Status: choose(rt, "status", StatusActive, StatusDown, StatusError)}
	w.do(rt, func(tx *Tx) error { return tx.SetPortStatus(st) })
}

func (w *world) router(rt *rapid.T) *Router {
	r, ok := pick(rt, "router", slices.Collect(w.s.View().Routers()))
	if !ok {
		return &Router{Standard: Standard{ID: "none"}}
	}
	return r
}

func (w *world) floatingIP(rt *rapid.T) *FloatingIP {
	f, ok := pick(rt, "floating IP", slices.Collect(w.s.View().FloatingIPs()))
	if !ok {
		return &FloatingIP{Standard: Standard{ID: "none"}}
	}
	return f
}

// gateway gives a router a network for its gateway, or none.
func (w *world) gateway(rt *rapid.T, r *Router) []FixedIP {
	r.ExternalNetworkID = ""
	if rapid.IntRange(0, 3).Draw(rt, "gateway") > 0 {
		r.ExternalNetworkID = w.network(rt).ID
	}
	if rapid.IntRange(0, 3).Draw(rt, "addresses of the gateway") > 0 {
		return nil
	}
	return w.fixedIPs(rt)
}

// layOut makes what the calls about routers need, which they rarely find: an
// external network, a router, and networks with ports on it.
func (w *world) layOut(rt *rapid.T) {
	hosts := []string{choose(rt, "host", "h1", "h2"), choose(rt, "other host", "h1", "h2", "h3")}
	cidrs := []string{"10.0.0.0/29", "10.0.1.0/24"}
	vifs := []VIF{}
	w.do(rt, func(tx *Tx) error {
		public := &Network{External: true, NetworkType: TypeLocal}
		if err := tx.CreateNetwork(public); err != nil {
			return err
		}
		if err := tx.CreateSubnet(&Subnet{NetworkID: public.ID, CIDR: mustPrefix("192.0.2.0/28")}); err != nil {
			return err
		}
		r := &Router{AdminStateUp: true, ExternalNetworkID: public.ID}
		if err := tx.CreateRouter(r); err != nil {
			return err
		}
		for i, host := range hosts {
			if err := tx.PutHost(&Host{Name: host}); err != nil {
				return err
			}
			vif, err := layOutNetwork(tx, r, cidrs[i], host)
			if err != nil {
				return err
			}
			vifs = append(vifs, vif)
		}
		return nil
	})
	if rapid.Bool().Draw(rt, "plugged") {
		for i, host := range hosts {
			w.do(rt, func(tx *Tx) error {
				if tx.Host(host) == nil {
					return hostNotFound(host)
				}
				return tx.SyncVIFs(host, vifs[i:i+1])
			})
		}
	}
}

// layOutNetwork makes a network with a port for a host, and joins it.
func layOutNetwork(tx *Tx, r *Router, cidr, host string) (VIF, error) {
	n := &Network{NetworkType: TypeLocal}
	if err := tx.CreateNetwork(n); err != nil {
		return VIF{}, err
	}
	s := &Subnet{NetworkID: n.ID, CIDR: mustPrefix(cidr)}
	if err := tx.CreateSubnet(s); err != nil {
		return VIF{}, err
	}
	p := &Port{NetworkID: n.ID, Binding: Binding{Host: host}}
	if err := tx.CreatePort(p); err != nil {
		return VIF{}, err
	}
	_, err := tx.AddRouterInterface(r.ID, s.ID, "")
	return VIF{PortID: p.ID, OFPort: 1}, err
}

func (w *world) createRouter(rt *rapid.T) {
	r := Router{AdminStateUp: rapid.Bool().Draw(rt, "up"), EnableSNAT: rapid.Bool().Draw(rt, "snat")}
	external := w.gateway(rt, &r)
	w.do(rt, func(tx *Tx) error { return tx.CreateRouter(r.Clone(), external...) })
}

func (w *world) updateRouter(rt *rapid.T) {
	r := w.router(rt).Clone()
	var external []FixedIP
	switch rapid.IntRange(0, 2).Draw(rt, "change") {
	case 0:
		r.AdminStateUp = rapid.Bool().Draw(rt, "up")
	case 1:
		external = w.gateway(rt, r)
	case 2:
		r.Routes = []Route{{mustPrefix("10.8.0.0/16"), choose(rt, "next hop", mustAddr("10.0.1.77"), mustAddr("10.0.0.1"))}}
		if rapid.Bool().Draw(rt, "no routes") {
			r.Routes = nil
		}
	}
	w.do(rt, func(tx *Tx) error { return tx.UpdateRouter(r.Clone(), external...) })
}

func (w *world) deleteRouter(rt *rapid.T) {
	id := w.router(rt).ID
	w.do(rt, func(tx *Tx) error { return tx.DeleteRouter(id) })
}

func (w *world) join(rt *rapid.T) {
	r, subnet, port := w.router(rt).ID, w.subnet(rt).ID, ""
	if rapid.IntRange(0, 2).Draw(rt, "by port") == 0 {
		subnet, port = "", w.port(rt).ID
	}
	w.do(rt, func(tx *Tx) error {
		_, err := tx.AddRouterInterface(r, subnet, port)
		return err
	})
}

func (w *world) part(rt *rapid.T) {
	r := w.router(rt).ID
	subnet, port := w.subnet(rt).ID, ""
	if p, ok := pick(rt, "interface", slices.Collect(w.s.View().InterfacesOf(r))); ok {
		subnet, port = "", p.ID
		if rapid.Bool().Draw(rt, "by subnet") && len(p.FixedIPs) > 0 {
			subnet, port = p.FixedIPs[0].SubnetID, ""
		}
	}
	w.do(rt, func(tx *Tx) error {
		_, err := tx.RemoveRouterInterface(r, subnet, port)
		return err
	})
}

// target is a port for a floating IP, or now and then none.
func (w *world) target(rt *rapid.T, f *FloatingIP) {
	f.PortID, f.FixedIP = "", netip.Addr{}
	if rapid.IntRange(0, 3).Draw(rt, "associated") > 0 {
		f.PortID = w.port(rt).ID
		f.FixedIP = choose(rt, "fixed", netip.Addr{}, netip.Addr{}, mustAddr("10.0.0.3"))
	}
}

func (w *world) float(rt *rapid.T) {
	f := FloatingIP{FloatingNetworkID: w.network(rt).ID, Address: choose(rt, "address", netip.Addr{}, netip.Addr{}, mustAddr("10.0.1.9"))}
	if r := w.router(rt); r.ExternalNetworkID != "" {
		f.FloatingNetworkID = r.ExternalNetworkID
	}
	w.target(rt, &f)
	w.do(rt, func(tx *Tx) error { return tx.CreateFloatingIP(f.Clone()) })
}

func (w *world) floatAgain(rt *rapid.T) {
	f := w.floatingIP(rt).Clone()
	w.target(rt, f)
	w.do(rt, func(tx *Tx) error { return tx.UpdateFloatingIP(f.Clone()) })
}

func (w *world) sink(rt *rapid.T) {
	id := w.floatingIP(rt).ID
	w.do(rt, func(tx *Tx) error { return tx.DeleteFloatingIP(id) })
}

func (w *world) deleteEverything(rt *rapid.T) {
	_, err := w.s.Update(context.Background(), Cause{}, deleteAll)
	if err != nil {
		rt.Fatal(err)
	}
	if left := dump(w.s.View()); len(left) > 0 {
		rt.Fatal(fmt.Sprint("left: ", left))
	}
}
