package console

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"planck/test/lab"
	"planck/test/pg"
)

// office is a cloud of two projects on two hosts: blue has a router between its
// networks front and back and to the public network, web has a floating IP, db
// takes tcp/5432 only, and spare is not plugged. Green has a network with the
// same addresses.
type office struct {
	*cloud
	lab   *lab.Lab
	ports map[string]object
	vms   map[string]*lab.VM
	edge  string // the router
}

func newOffice(t *testing.T, config string) *office {
	t.Helper()
	c := newCloud(t, "[OVS]\nnetwork_vlan_ranges = physnet1:100:199\n"+config)
	o := &office{cloud: c, ports: map[string]object{}, vms: map[string]*lab.VM{}}
	o.lab = lab.ForTest(t, lab.Options{Hosts: 2, Controllers: []string{c.managers}})
	public, _ := c.network("", "public", "203.0.113.0/24", object{
		"router:external": true, "provider:network_type": "flat", "provider:physical_network": "physnet1",
	})
	front, frontSubnet := c.network("blue", "front", "10.0.0.0/24", nil)
	back, backSubnet := c.network("blue", "back", "10.0.1.0/24", nil)
	green, _ := c.network("green", "green", "10.0.0.0/24", nil)
	o.edge = c.create("router", "routers", object{"name": "edge", "tenant_id": "blue", "external_gateway_info": object{"network_id": public}})["id"].(string)
	for _, subnet := range []string{frontSubnet, backSubnet} {
		c.call(http.MethodPut, "/v2.0/routers/"+o.edge+"/add_router_interface", object{"subnet_id": subnet}, http.StatusOK)
	}
	c.call(http.MethodPut, "/v2.0/routers/"+o.edge, object{"router": object{"routes": []object{{"destination": "10.200.0.0/16", "nexthop": "10.0.0.77"}}}}, http.StatusOK)
	sql := c.create("security_group", "security-groups", object{"name": "sql", "tenant_id": "blue"})["id"].(string)
	c.create("security_group_rule", "security-group-rules", object{
		"security_group_id": sql, "direction": "ingress", "protocol": "tcp", "port_range_min": 5432, "port_range_max": 5432, "tenant_id": "blue",
	})
	o.ports["web"] = c.port("blue", "web", front, nil)
	o.ports["app"] = c.port("blue", "app", front, nil)
	o.ports["db"] = c.port("blue", "db", back, object{"security_groups": []string{sql}})
	o.ports["shop"] = c.port("green", "shop", green, nil)
	o.ports["spare"] = c.port("blue", "spare", front, object{"binding:host_id": "host1"})
	for name, host := range map[string]string{"web": "host1", "app": "host2", "db": "host2", "shop": "host1"} {
		o.plug(name, host)
	}
	c.create("floatingip", "floatingips", object{"floating_network_id": public, "port_id": o.ports["web"]["id"], "tenant_id": "blue"})
	return o
}

func (o *office) plug(name, host string) {
	o.Helper()
	p := o.ports[name]
	id := p["id"].(string)
	vm, err := o.lab.AddVM(o.Context(), host, name, lab.VMPort{ID: id, MAC: p["mac_address"].(string), MTU: 1458})
	if err != nil {
		o.Fatal(err)
	}
	o.vms[name] = vm
	o.eventually("port "+name+" is ACTIVE", func() error {
		if s := o.status(id); s != "ACTIVE" {
			return fmt.Errorf("it is %s", s)
		}
		return nil
	})
}

func (o *office) id(name string) string { return o.ports[name]["id"].(string) }

// traffic lets web talk to app.
func (o *office) traffic() {
	o.Helper()
	for _, name := range []string{"web", "app"} {
		if _, err := o.vms[name].DHCP(o.Context()); err != nil {
			o.Fatal(err)
		}
	}
	o.eventually("web reaches app", func() error {
		if _, received, err := o.vms["web"].Ping(o.Context(), address(o.ports["app"]), 2, "-W", "1"); received == 0 {
			return fmt.Errorf("no answer, %v", err)
		}
		return nil
	})
}

// box selects the box of a port in the topology.
func (o *office) box(name string) string { return `.topology [data-key="port-` + o.id(name) + `"]` }

func TestConsoleShowsTheCloud(t *testing.T) {
	o := newOffice(t, "")
	o.traffic()
	p := newPage(t, o.url)
	p.open("")

	t.Log("the topology has everything, with its status")
	for _, name := range []string{"web", "app", "db", "shop"} {
		p.until(name+" is ACTIVE", "document.querySelector('"+o.box(name)+".ACTIVE')")
	}
	p.until("spare is DOWN", "document.querySelector('"+o.box("spare")+".DOWN')")
	for _, text := range []string{"public (external)", "203.0.113.0/24", "edge", "front", "back", "10.0.1.0/24", "green", "project blue", "host1", "host2"} {
		p.says(".topology text", text)
	}
	p.says(".head", "4 networks · 1 router · 5 VM ports: 4 ACTIVE, 1 DOWN · 1 floating IP · 2 hosts")
	p.fits("the topology")
	p.picture("topology")
	p.scheme("dark")
	p.picture("dark")
	p.scheme("light")

	o.search(p)
	p.says(".facts", o.ports["db"]["mac_address"].(string))
	p.says(".facts", "sql")
	p.says(".findings", "Nothing is wrong")

	t.Log("the page of a port has what is wrong with it, and its flows with counters")
	p.open("#/port/" + o.id("spare"))
	p.says(".findings", "no interface with external_ids:iface-id="+o.id("spare")+" is plugged on host host1")
	p.fits("the page of spare")
	p.open("#/port/" + o.id("web"))
	p.says(".findings", "Nothing is wrong")
	p.says(".flows h3", "host1 br-int")
	p.until("a flow of web counts packets", `[...document.querySelectorAll('.flows tbody tr')].some((r) =>
		r.cells[0].textContent === '0 Classify' && Number(r.cells[2].textContent.replaceAll(',', '')) > 0)`)
	p.says(".facts", "203.0.113.")
	p.fits("the page of web")
	p.picture("port")

	t.Log("a trace names the group that drops")
	p.open("#/trace?from=web&to=db&protocol=tcp&dport=8080")
	p.says(".verdict", "dropped on host host2 by security group sql of port db: no rule allows tcp/8080 from "+address(o.ports["web"])+" in")
	p.says(".hosts > .host:first-child h2", "Host host1")
	p.says(".hosts > .host:last-child .steps .end", "sql")
	p.fits("a trace")
	p.size(1280, 1080)
	p.picture("trace")
	p.size(1280, 800)
	p.click("form.trace button")
	p.until("the form keeps the question", `location.hash.includes('from=web') && document.querySelector('[name=dport]').value === '8080'`)
	p.open("#/trace?from=web&to=db&protocol=tcp&dport=5432")
	p.says(".verdict", "delivered")

	o.changes(p)
	o.pages(p)
	o.keys(p)
	o.narrow(p)

	t.Log("what is unplugged becomes DOWN on the page, which is not loaded anew")
	p.size(1280, 800)
	p.open("")
	p.until("app is ACTIVE", "document.querySelector('"+o.box("app")+".ACTIVE')")
	evaluate[bool](p, "window.same = true; document.querySelector('"+o.box("web")+"').focus(); true")
	if err := o.vms["app"].Unplug(); err != nil {
		t.Fatal(err)
	}
	p.until("app is DOWN", "document.querySelector('"+o.box("app")+".DOWN')")
	p.until("the page and its focus are the same", "window.same && document.activeElement === document.querySelector('"+o.box("web")+"')")
}

// search finds by IP, MAC and id.
func (o *office) search(p *page) {
	o.Helper()
	o.Log("an IP, a MAC and an id lead to the page of their port, a floating IP to the port that has it")
	floating := o.call(http.MethodGet, "/v2.0/floatingips", nil, http.StatusOK)["floatingips"].([]any)[0].(object)
	inner := o.call(http.MethodGet, "/v2.0/ports?device_id="+floating["id"].(string), nil, http.StatusOK)["ports"].([]any)[0].(object)
	db := o.ports["db"]
	for _, c := range []struct{ typed, title string }{
		{db["mac_address"].(string), "Port db"}, {o.id("db")[:13], "Port db"}, {o.edge[:13], "Router edge"},
		{floating["floating_ip_address"].(string), "Port web"}, {inner["mac_address"].(string), "Floating IP 203.0.113."}, {address(db), "Port db"},
	} {
		p.press("/")
		for _, key := range strings.Split(c.typed, "") {
			p.press(key)
		}
		p.press(enter)
		p.says("h1", c.title)
	}
}

// pages looks at all others.
func (o *office) pages(p *page) {
	o.Helper()
	o.Log("each page has what it is for")
	for _, page := range []struct{ hash, selector, text string }{
		{"#/networks", "tbody", "front"},
		{"#/routers", "tbody", "203.0.113."},
		{"#/ports", "tbody", address(o.ports["shop"])},
		{"#/ports?filter=shop", "[role=status]", "1 of "},
		{"#/floatingips", "tbody", "web"},
		{"#/groups", "tbody", "sql"},
		{"#/hosts", "tbody", "connected"},
		{"#/host/host1", "tbody", "br-int"},
		{"#/cluster", "main", "the only one"},
		{"#/router/" + o.edge, "tbody", "back"},
		{"#/router/" + o.edge, ".findings", "Nothing is wrong"},
		{"#/router/" + o.edge, ".about", "on host host"},
		{"#/router/" + o.edge, ".facts", "10.200.0.0/16 by 10.0.0.77"},
		{"#/changes", ".changes", "host1 br-int"},
		{"#/network/" + o.ports["web"]["network_id"].(string), "tbody", "spare"},
		{"#/nowhere", "main", "no such page"},
	} {
		p.open(page.hash)
		p.says(page.selector, page.text)
		p.fits(page.hash)
	}
	p.open("#/groups")
	p.says("tbody", "sql")
	evaluate[bool](p, "[...document.querySelectorAll('tbody a')].find((a) => a.textContent === 'sql').click(); true")
	p.says("tbody", "5432")
}

// keys walks about without a mouse.
func (o *office) keys(p *page) {
	o.Helper()
	o.Log("the keyboard leads everywhere")
	p.open("#/networks")
	p.says("tbody", "back")
	p.press("j", "j")
	p.until("the second line has the focus", "document.activeElement.textContent === 'front'")
	p.press("k", enter)
	p.says("h1", "Network back")
	p.press(escape)
	p.says("h1", "Topology")
	p.press("?")
	p.until("the keys are shown", "document.querySelector('dialog').open")
	p.press(escape)
	p.until("they are gone", "!document.querySelector('dialog').open")
	p.press("j")
	p.until("the external network has the focus", "document.activeElement.textContent.includes('public (external)')")
	evaluate[bool](p, "document.querySelector('.router').focus(); true")
	p.press(down)
	p.until("a network below the router has the focus", "document.activeElement.matches('.bar')")
	p.press(down)
	p.until("a VM below it has the focus", "document.activeElement.matches('.vm')")
}

// narrow looks at everything on a telephone.
func (o *office) narrow(p *page) {
	o.Helper()
	o.Log("nothing is too wide for a telephone")
	for _, width := range []int64{390, 700, 1110} {
		p.size(width, 844)
		for _, page := range []struct{ hash, selector, text string }{
			{"", ".topology text", "edge"}, {"#/networks", "tbody", "front"}, {"#/ports", "tbody", address(o.ports["shop"])}, {"#/hosts", "tbody", "host2"},
			{"#/host/host1", "tbody", "br-int"}, {"#/router/" + o.edge, "tbody", "back"}, {"#/port/" + o.id("web"), ".flows h3", "host1 br-int"},
			{"#/trace?from=web&to=db&protocol=tcp&dport=8080", ".verdict", "sql"},
		} {
			p.open(page.hash)
			p.says(page.selector, page.text)
			p.fits(fmt.Sprintf("%s at %d pixels", page.hash, width))
			if page.hash == "" && width == 390 {
				p.picture("narrow")
			}
		}
	}
	p.size(320, 640)
	p.open("")
	p.says(".topology text", "edge")
	p.fits("the topology at 320 pixels")
}

// changes goes from a port to the request that changed it, and to its flows.
func (o *office) changes(p *page) {
	o.Helper()
	o.Log("the page of a port tells what changed it last, and leads to who did")
	rename := func(name string) {
		o.call(http.MethodPut, "/v2.0/ports/"+o.id("shop"), object{"port": object{"name": name}}, http.StatusOK)
	}
	rename("store")
	p.open("#/port/" + o.id("shop"))
	p.says("[aria-label=Changes] .attribute", `name: "shop" → "store"`)
	p.fits("the page of shop")
	evaluate[bool](p, "[...document.querySelectorAll('[aria-label=Changes] a')].find((a) => a.textContent.startsWith('req-')).click(); true")
	p.says("h1", "Changes of request req-")
	p.says(".changes .objects", `name: "shop" → "store"`)
	rename("shop")
	p.open("#/changes?port=" + o.id("web"))
	p.says("h1", "Changes of port web")
	p.says(".changes summary", "host1 br-int")
	evaluate[bool](p, "document.querySelector('.changes details[data-key^=at-]').open = true")
	p.says(".changes details[open] code", "actions=")
	p.fits("changes of web")
	p.open("#/changes?host=nowhere")
	p.until("a host that is not there is told", "document.querySelector('main [role=alert], main .muted')")
}

func TestConsoleShowsWhatSwitchesRefuseAndWhoIsAway(t *testing.T) {
	o := newOffice(t, "[openflow]\naudit_interval = 1\n")
	vlan, _ := o.network("blue", "vlan", "10.0.9.0/24", object{
		"provider:network_type": "vlan", "provider:physical_network": "physnet1", "provider:segmentation_id": 101,
	})
	spare := o.port("blue", "vlan-spare", vlan, nil)
	o.ports["spare"] = spare
	o.plug("spare", "host1")
	// A flow of the operator's own takes the place of one of the network.
	o.eventually("the port is in state ERROR", func() error {
		if _, err := o.lab.Host("host1").Ofctl("add-flow", "br-ex", "table=0,priority=40000,dl_vlan=101,actions=drop"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second) // for an audit, or two
		if s := o.status(o.id("spare")); s != "ERROR" {
			return fmt.Errorf("it is %s", s)
		}
		return nil
	})
	p := newPage(t, o.url)
	p.open("")
	p.until("spare is in state ERROR", "document.querySelector('"+o.box("spare")+".ERROR')")
	p.says(".head", "1 ERROR")
	p.open("#/port/" + o.id("spare"))
	p.says("h1 .ERROR", "ERROR")
	p.says(".findings", "host host1 refuses flows that it needs")
	p.open("#/ports?filter=vlan-spare")
	p.says("tbody .ERROR", "ERROR")

	if err := o.lab.Host("host2").LinkDown(lab.Management); err != nil {
		t.Fatal(err)
	}
	p.open("")
	p.until("VMs of a host that is away do not look well", "document.querySelector('"+o.box("app")+".AWAY')")
	p.until("those of the other host do", "document.querySelector('"+o.box("web")+".ACTIVE')")
	p.says(".head", "(2 on a host that is away)")
	p.fits("a topology with a host that is away")
}

func TestConsoleShowsTheMembersOfACluster(t *testing.T) {
	dsn := pg.Start(t)
	var members []*cloud
	for _, name := range []string{"anna", "bert", "cara"} {
		members = append(members, newCloud(t, fmt.Sprintf("[database]\nconnection = %s\n[cluster]\nname = %s\n", dsn, name)))
	}
	p := newPage(t, members[0].url)
	p.open("#/cluster")
	for _, name := range []string{"anna", "bert", "cara"} {
		p.says("tbody tr", name+"alive")
	}
	p.says("main", "As anna knows it; generation")
	p.fits("the cluster")
	p.size(390, 844)
	p.fits("the cluster at 390 pixels")
	if err := members[2].process.Kill(); err != nil {
		t.Fatal(err)
	}
	p.says("tbody tr", "caradead")
	p.says("tbody tr", "bertalive")
}
