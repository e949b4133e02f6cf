package clients

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/agents"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/attributestags"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/external"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/layer3/extraroutes"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/layer3/floatingips"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/layer3/routers"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/networkipavailabilities"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/portsbinding"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/provider"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/quotas"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/security/groups"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/security/rules"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/networks"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/ports"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/subnets"
	"github.com/gophercloud/gophercloud/v2/pagination"
)

// networking logs in with gophercloud and finds the service in the catalog.
func (c *cloud) networking(who string) *gophercloud.ServiceClient {
	c.Helper()
	a := c.accounts[who]
	client, err := openstack.AuthenticatedClient(c.Context(), gophercloud.AuthOptions{
		IdentityEndpoint: c.ks.URL, Username: a.User, Password: a.Password, TenantName: a.Project, DomainID: "default",
	})
	if err != nil {
		c.Fatal(err)
	}
	service, err := openstack.NewNetworkV2(client, gophercloud.EndpointOpts{Region: "RegionOne"})
	if err != nil {
		c.Fatal(err)
	}
	return service
}

// must is the value of a call that has to succeed.
func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// all is a whole list, page by page.
func all[T any](t *testing.T, list pagination.Pager, extract func(pagination.Page) ([]T, error)) []T {
	t.Helper()
	pages := must[pagination.Page](t)(list.AllPages(t.Context()))
	return must[[]T](t)(extract(pages))
}

// refused is about a call that has to fail with a status and a type.
func refused(t *testing.T, err error, status int, typ string) {
	t.Helper()
	if !gophercloud.ResponseCodeIs(err, status) || !strings.Contains(err.Error(), `"`+typ+`"`) {
		t.Errorf("%v, want %d %s", err, status, typ)
	}
}

func done(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

// gopher is what the stories with gophercloud share: an external network of the
// administrator, and a client for each.
type gopher struct {
	*testing.T
	admin, blue, red *gophercloud.ServiceClient
	blueProject      string
	public           *networks.Network
}

func gophercloudStory(t *testing.T, c *cloud) {
	g := &gopher{T: t, admin: c.networking("admin"), blue: c.networking("blue"), red: c.networking("red"),
		blueProject: c.accounts["blue"].ProjectID}
	yes := true
	g.public = must[*networks.Network](t)(networks.Create(t.Context(), g.admin, external.CreateOptsExt{External: &yes,
		CreateOptsBuilder: provider.CreateOptsExt{CreateOptsBuilder: networks.CreateOpts{Name: "public"},
			Segments: []provider.Segment{{NetworkType: "flat", PhysicalNetwork: "physnet1"}}},
	}).Extract())
	off := false
	must[*subnets.Subnet](t)(subnets.Create(t.Context(), g.admin, subnets.CreateOpts{
		NetworkID: g.public.ID, CIDR: "172.24.4.0/24", IPVersion: gophercloud.IPv4, EnableDHCP: &off}).Extract())
	g.discovery()
	g.pages()
	g.groups()
	g.topology()
	done(t, networks.Delete(t.Context(), g.admin, g.public.ID).ExtractErr())
}

func (g *gopher) discovery() {
	g.Helper()
	ctx, t := g.Context(), g.T
	aliases := all(t, extensions.List(g.blue), extensions.ExtractExtensions)
	if !slices.ContainsFunc(aliases, func(e extensions.Extension) bool { return e.Alias == "router" }) {
		t.Errorf("extensions: %v", aliases)
	}
	hosts := all(t, agents.List(g.admin, agents.ListOpts{Host: "host1"}), agents.ExtractAgents)
	if len(hosts) != 1 || !hosts[0].Alive || hosts[0].AgentType != "Open vSwitch agent" || hosts[0].HeartbeatTimestamp.IsZero() {
		t.Errorf("agents: %+v", hosts)
	}
	own := must[*quotas.Quota](t)(quotas.Get(ctx, g.blue, g.blueProject).Extract())
	if own.Network != 5 || own.SecurityGroupRule != 100 {
		t.Errorf("quota: %+v", own)
	}
	one := 1
	must[*quotas.Quota](t)(quotas.Update(ctx, g.admin, g.blueProject, quotas.UpdateOpts{Router: &one}).Extract())
	detail := must[*quotas.QuotaDetailSet](t)(quotas.GetDetail(ctx, g.blue, g.blueProject).Extract())
	if detail.Router.Limit != 1 || detail.Router.Used != 0 {
		t.Errorf("quota of routers: %+v", detail.Router)
	}
	first := must[*routers.Router](t)(routers.Create(ctx, g.blue, routers.CreateOpts{Name: "first"}).Extract())
	_, err := routers.Create(ctx, g.blue, routers.CreateOpts{Name: "second"}).Extract()
	refused(t, err, http.StatusConflict, "OverQuota")
	done(t, routers.Delete(ctx, g.blue, first.ID).ExtractErr())
	done(t, quotas.Delete(ctx, g.admin, g.blueProject).ExtractErr())
	_, err = quotas.Update(ctx, g.blue, g.blueProject, quotas.UpdateOpts{Router: &one}).Extract()
	refused(t, err, http.StatusForbidden, "PolicyNotAuthorized")
}

// pages lists networks in pages of two, both ways, and tells them apart by tags.
func (g *gopher) pages() {
	g.Helper()
	ctx, t := g.Context(), g.T
	var made []string
	for i := range 5 {
		n := must[*networks.Network](t)(networks.Create(ctx, g.blue, networks.CreateOpts{Name: fmt.Sprint("n", i)}).Extract())
		made = append(made, n.ID)
	}
	var names []string
	opts := networks.ListOpts{ProjectID: g.blueProject, Limit: 2, SortKey: "name", SortDir: "desc"}
	for _, n := range all(t, networks.List(g.blue, opts), networks.ExtractNetworks) {
		names = append(names, n.Name)
	}
	if got := strings.Join(names, " "); got != "n4 n3 n2 n1 n0" {
		t.Errorf("pages of networks: %s", got)
	}
	must[[]string](t)(attributestags.ReplaceAll(ctx, g.blue, "networks", made[0], attributestags.ReplaceAllOpts{Tags: []string{"a", "b"}}).Extract())
	done(t, attributestags.Add(ctx, g.blue, "networks", made[1], "a").ExtractErr())
	if there := must[bool](t)(attributestags.Confirm(ctx, g.blue, "networks", made[0], "b").Extract()); !there {
		t.Error("the tag b is not there")
	}
	if tagged := all(t, networks.List(g.blue, networks.ListOpts{Tags: "a"}), networks.ExtractNetworks); len(tagged) != 2 {
		t.Errorf("%d networks have the tag a", len(tagged))
	}
	if foreign := all(t, networks.List(g.red, networks.ListOpts{Tags: "a"}), networks.ExtractNetworks); len(foreign) != 0 {
		t.Errorf("another project sees %v", foreign)
	}
	old := 0
	_, err := networks.Update(ctx, g.blue, made[0], networks.UpdateOpts{Name: &names[0], RevisionNumber: &old}).Extract()
	refused(t, err, http.StatusPreconditionFailed, "RevisionNumberConstraintFailed")
	for _, id := range made {
		refused(t, networks.Delete(ctx, g.red, id).ExtractErr(), http.StatusNotFound, "NetworkNotFound")
		done(t, networks.Delete(ctx, g.blue, id).ExtractErr())
	}
}

func (g *gopher) groups() {
	g.Helper()
	ctx, t := g.Context(), g.T
	web := must[*groups.SecGroup](t)(groups.Create(ctx, g.blue, groups.CreateOpts{Name: "web", Description: "servers"}).Extract())
	if len(web.Rules) != 2 || web.ProjectID != g.blueProject {
		t.Errorf("a new group: %+v", web)
	}
	opts := rules.CreateOpts{Direction: rules.DirIngress, EtherType: rules.EtherType4, SecGroupID: web.ID,
		Protocol: rules.ProtocolTCP, PortRangeMin: 80, PortRangeMax: 80, RemoteIPPrefix: "10.0.0.0/8"}
	rule := must[*rules.SecGroupRule](t)(rules.Create(ctx, g.blue, opts).Extract())
	if rule.PortRangeMax != 80 || rule.RemoteIPPrefix != "10.0.0.0/8" {
		t.Errorf("a new rule: %+v", rule)
	}
	_, err := rules.Create(ctx, g.blue, opts).Extract()
	refused(t, err, http.StatusConflict, "SecurityGroupRuleExists")
	opts.RemoteIPPrefix, opts.RemoteGroupID = "", web.ID
	second := opts
	second.PortRangeMin, second.PortRangeMax = 443, 443
	if bulk := must[[]rules.SecGroupRule](t)(rules.CreateBulk(ctx, g.blue, []rules.CreateOpts{opts, second}).Extract()); len(bulk) != 2 {
		t.Errorf("bulk: %+v", bulk)
	}
	_, err = rules.Create(ctx, g.red, opts).Extract()
	refused(t, err, http.StatusNotFound, "SecurityGroupNotFound")
	found := all(t, rules.List(g.blue, rules.ListOpts{SecGroupID: web.ID, Direction: "ingress"}), rules.ExtractRules)
	if len(found) != 3 {
		t.Errorf("rules in: %+v", found)
	}
	done(t, rules.Delete(ctx, g.blue, rule.ID).ExtractErr())
	done(t, groups.Delete(ctx, g.blue, web.ID).ExtractErr())
}

// boundPort is a port with what an administrator sees of its binding.
type boundPort struct {
	ports.Port
	portsbinding.PortsBindingExt
}

// topology makes a network with a router, a port and a floating IP, and takes
// all of it away again.
func (g *gopher) topology() {
	g.Helper()
	ctx, t := g.Context(), g.T
	n := must[*networks.Network](t)(networks.Create(ctx, g.blue, networks.CreateOpts{Name: "g"}).Extract())
	s := must[*subnets.Subnet](t)(subnets.Create(ctx, g.blue, subnets.CreateOpts{NetworkID: n.ID, CIDR: "10.5.0.0/24", IPVersion: gophercloud.IPv4}).Extract())
	p := must[*ports.Port](t)(ports.Create(ctx, g.blue, ports.CreateOpts{
		NetworkID: n.ID, FixedIPs: []ports.IP{{SubnetID: s.ID, IPAddress: "10.5.0.9"}},
		AllowedAddressPairs: []ports.AddressPair{{IPAddress: "10.5.0.100"}}}).Extract())
	byIP := ports.ListOpts{NetworkID: n.ID, FixedIPs: []ports.FixedIPOpts{{IPAddress: "10.5.0.9"}}}
	if found := all(t, ports.List(g.blue, byIP), ports.ExtractPorts); len(found) != 1 || found[0].ID != p.ID {
		t.Errorf("ports with the address: %+v", found)
	}
	host := "host1"
	var bound boundPort
	done(t, ports.Update(ctx, g.admin, p.ID, portsbinding.UpdateOptsExt{UpdateOptsBuilder: ports.UpdateOpts{}, HostID: &host}).ExtractInto(&bound))
	if bound.VIFType != "ovs" || bound.HostID != host || bound.VIFDetails["bridge_name"] != "br-int" {
		t.Errorf("bound: %+v", bound.PortsBindingExt)
	}
	left := must[*networkipavailabilities.NetworkIPAvailability](t)(networkipavailabilities.Get(ctx, g.admin, n.ID).Extract())
	if left.UsedIPs != "2" || left.TotalIPs != "253" {
		t.Errorf("addresses: %+v", left)
	}

	r := must[*routers.Router](t)(routers.Create(ctx, g.blue, routers.CreateOpts{
		Name: "r", GatewayInfo: &routers.GatewayInfo{NetworkID: g.public.ID}}).Extract())
	if len(r.GatewayInfo.ExternalFixedIPs) != 1 || r.GatewayInfo.EnableSNAT == nil || !*r.GatewayInfo.EnableSNAT {
		t.Errorf("gateway: %+v", r.GatewayInfo)
	}
	face := must[*routers.InterfaceInfo](t)(routers.AddInterface(ctx, g.blue, r.ID, routers.AddInterfaceOpts{SubnetID: s.ID}).Extract())
	if face.SubnetID != s.ID || face.ID != r.ID {
		t.Errorf("interface: %+v", face)
	}
	routes := []routers.Route{{DestinationCIDR: "10.77.0.0/16", NextHop: "10.5.0.7"}}
	r = must[*routers.Router](t)(extraroutes.Add(ctx, g.blue, r.ID, extraroutes.Opts{Routes: &routes}).Extract())
	if !slices.Equal(r.Routes, routes) {
		t.Errorf("routes: %+v", r.Routes)
	}
	refused(t, routers.RemoveInterface(ctx, g.blue, r.ID, routers.RemoveInterfaceOpts{SubnetID: s.ID}).Err, http.StatusConflict, "RouterInterfaceInUseByRoute")
	r = must[*routers.Router](t)(extraroutes.Remove(ctx, g.blue, r.ID, extraroutes.Opts{Routes: &routes}).Extract())
	if len(r.Routes) != 0 {
		t.Errorf("routes: %+v", r.Routes)
	}

	f := must[*floatingips.FloatingIP](t)(floatingips.Create(ctx, g.blue, floatingips.CreateOpts{FloatingNetworkID: g.public.ID, PortID: p.ID}).Extract())
	if f.FixedIP != "10.5.0.9" || f.RouterID != r.ID {
		t.Errorf("floating IP: %+v", f)
	}
	refused(t, routers.RemoveInterface(ctx, g.blue, r.ID, routers.RemoveInterfaceOpts{SubnetID: s.ID}).Err, http.StatusConflict, "RouterInterfaceInUseByFloatingIP")
	none := ""
	f = must[*floatingips.FloatingIP](t)(floatingips.Update(ctx, g.blue, f.ID, floatingips.UpdateOpts{PortID: &none}).Extract())
	if f.PortID != "" || f.Status != "DOWN" {
		t.Errorf("floating IP without a port: %+v", f)
	}
	refused(t, networks.Delete(ctx, g.blue, n.ID).ExtractErr(), http.StatusConflict, "NetworkInUse")
	done(t, floatingips.Delete(ctx, g.blue, f.ID).ExtractErr())
	must[*routers.InterfaceInfo](t)(routers.RemoveInterface(ctx, g.blue, r.ID, routers.RemoveInterfaceOpts{SubnetID: s.ID}).Extract())
	done(t, routers.Delete(ctx, g.blue, r.ID).ExtractErr())
	done(t, ports.Delete(ctx, g.blue, p.ID).ExtractErr())
	done(t, networks.Delete(ctx, g.blue, n.ID).ExtractErr())
}
