package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"planck/pipeline"
)

// listener is where the controller listens for api, ovsdb or openflow.
func (c *cloud) listener(name string) string {
	c.Helper()
	for i, arg := range c.args {
		if arg == "--"+name+"-listen" {
			_, port, err := net.SplitHostPort(c.args[i+1])
			if err != nil {
				c.Fatal(err)
			}
			return net.JoinHostPort("127.0.0.1", port)
		}
	}
	c.Fatalf("the controller was not told where to listen for %s", name)
	return ""
}

// dial connects to a port of the controller and sends some bytes.
func (c *cloud) dial(name string, bytes string) net.Conn {
	c.Helper()
	conn, err := net.Dial("tcp", c.listener(name))
	if err != nil {
		c.Fatal(err)
	}
	c.Cleanup(func() { conn.Close() })
	if _, err := io.WriteString(conn, bytes); err != nil {
		c.Fatal(err)
	}
	return conn
}

// hungUp checks that the controller ends a connection.
func (c *cloud) hungUp(what string, conn net.Conn) {
	c.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(settle)); err != nil {
		c.Fatal(err)
	}
	var timeout net.Error
	if _, err := io.Copy(io.Discard, conn); errors.As(err, &timeout) && timeout.Timeout() {
		c.Errorf("%s: the connection is open after %v", what, settle)
	}
}

func TestGarbageOnThePortsOfSwitchesHarmsNobody(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 1, nil, "")
	id := c.network("blue", "10.0.0.0/24", nil)
	a, b := c.boot("a", "host1", id, nil), c.boot("b", "host1", id, nil)
	c.dhcp(a)
	c.dhcp(b)
	c.allLive()
	stream, err := a.PingStream(t.Context(), b.ip())
	if err != nil {
		t.Fatal(err)
	}
	goroutines, transactions := c.metric("go_goroutines", ""), c.metric("planck_ovsdb_transactions_total", "")

	hello := "\x04\x00\x00\x08\x00\x00\x00\x01"
	garbage := map[string]map[string]string{
		"openflow": {
			"HTTP":                       "GET / HTTP/1.1\r\n\r\n",
			"a length below the header":  "\x04\x00\x00\x04\x00\x00\x00\x01",
			"another version":            "\x01\x00\x00\x08\x00\x00\x00\x01",
			"no HELLO":                   "\x04\x05\x00\x08\x00\x00\x00\x01",
			"half a message":             hello + "\x04\x06\x00\x20\x00",
			"a long message, never sent": hello + "\x04\x13\xff\xff\x00\x00\x00\x02",
			"zeros":                      strings.Repeat("\x00", 4096),
		},
		"ovsdb": {
			"HTTP":            "GET / HTTP/1.1\r\n\r\n",
			"unbalanced":      `{"method":"echo","params":[]}}}}`,
			"a number":        "42\n",
			"half a message":  `{"id":1,"method":"monit`,
			"a long message":  `{"id":"` + strings.Repeat("x", 1<<20),
			"deeply nested":   strings.Repeat("[", 100_000),
			"a made-up reply": `{"id":99,"result":[{"Open_vSwitch":7}],"error":null}`,
		},
	}
	open := []net.Conn{c.dial("api", "GET / HT")}
	for port, inputs := range garbage {
		for what, bytes := range inputs {
			conn := c.dial(port, bytes)
			if strings.HasPrefix(what, "half") {
				// Its sender goes away.
				conn.Close()
				continue
			}
			if what == "a long message, never sent" || what == "a made-up reply" {
				open = append(open, conn)
				continue
			}
			c.hungUp(port+": "+what, conn)
		}
		open = append(open, c.dial(port, ""))
	}
	if n := c.metric("planck_openflow_closed_total", `reason="garbage"`); n < 4 {
		t.Errorf("%v OpenFlow connections counted as garbage", n)
	}
	if n := c.metric("planck_ovsdb_refused_total", `reason="garbage"`); n < 3 {
		t.Errorf("%v OVSDB connections counted as garbage", n)
	}

	// With silent ones open, real switches and clients are served.
	d := c.boot("d", "host1", id, nil)
	c.dhcp(d)
	c.reaches(d.Node, a.ip())
	for _, conn := range open {
		c.hungUp("silence", conn)
	}
	stats, err := stream.Stop()
	if err := errors.Join(err, stats.Whole()); err != nil {
		t.Error(err)
	}
	c.eventually("nothing is left of them", func() error {
		if n := c.metric("go_goroutines", ""); n > goroutines+10 {
			return fmt.Errorf("%v goroutines instead of %v", n, goroutines)
		}
		return nil
	})
	if n := c.metric("planck_ovsdb_transactions_total", ""); n != transactions {
		t.Errorf("%v transactions on hosts for nothing", n-transactions)
	}
}

// state is everything that the API lists, as text.
func (c *cloud) state() string {
	c.Helper()
	var text strings.Builder
	for _, resource := range []string{"networks", "subnets", "ports", "routers", "floatingips"} {
		status, out := c.call(http.MethodGet, "/v2.0/"+resource+"?sort_key=id&sort_dir=asc", nil)
		if status != http.StatusOK {
			c.Fatalf("list %s: %d %v", resource, status, out)
		}
		b, err := json.MarshalIndent(out, "", " ")
		if err != nil {
			c.Fatal(err)
		}
		text.Write(b)
	}
	return text.String()
}

func TestBadRequestsAreRefusedAndChangeNothing(t *testing.T) {
	t.Parallel()
	c := newController(t, "[OVS]\nnetwork_vlan_ranges = physnet1:100:199\n")
	blue := c.network("blue", "", object{"provider:network_type": "gre", "provider:segmentation_id": 7})
	subnet := c.subnet(blue, "10.0.0.0/24", nil)
	port := c.create("port", c.portBody("p", blue, object{"fixed_ips": []any{object{"ip_address": "10.0.0.5"}}}))
	portID, mac := port["id"].(string), port["mac_address"].(string)
	before := c.state()

	network := func(attrs string) string { return `{"network": {` + attrs + `}}` }
	onBlue := func(kind, attrs string) string {
		return fmt.Sprintf(`{"%s": {"network_id": "%s"%s}}`, kind, blue, attrs)
	}
	v4 := func(attrs string) string { return onBlue("subnet", `, "ip_version": 4, `+attrs) }
	withIP := func(ip string) string { return onBlue("port", `, "fixed_ips": [{"ip_address": "`+ip+`"}]`) }
	for _, bad := range []struct {
		what, method, path, body string
		status                   int
		kind                     string
	}{
		{"malformed JSON", "POST", "networks", `{"network": {"name": "x"`, 400, "HTTPBadRequest"},
		{"no JSON", "POST", "networks", "name=x", 400, "HTTPBadRequest"},
		{"nothing", "POST", "networks", "", 400, "HTTPBadRequest"},
		{"a list instead of an object", "POST", "networks", `[]`, 400, "HTTPBadRequest"},
		{"another resource", "POST", "networks", `{"port": {}}`, 400, "HTTPBadRequest"},
		{"invalid UTF-8", "POST", "networks", network("\"name\": \"\xff\xfe\""), 400, "HTTPBadRequest"},
		{"an unknown attribute", "POST", "networks", network(`"nmae": "x"`), 400, "HTTPBadRequest"},
		{"a read-only attribute", "POST", "networks", network(`"status": "ACTIVE"`), 400, "HTTPBadRequest"},
		{"a string for a boolean", "POST", "networks", network(`"admin_state_up": "maybe"`), 400, "InvalidInput"},
		{"a number for a name", "POST", "networks", network(`"name": 7`), 400, "HTTPBadRequest"},
		{"a long name", "POST", "networks", network(`"name": "` + strings.Repeat("x", 256) + `"`), 400, "HTTPBadRequest"},
		{"one bad network of a bulk", "POST", "networks", `{"networks": [{"name": "good"}, {"nmae": "bad"}]}`, 400, "HTTPBadRequest"},
		{"an unknown network type", "POST", "networks", network(`"provider:network_type": "pigeon"`), 400, "InvalidInput"},
		{"an unknown physical network", "POST", "networks", network(`"provider:network_type": "flat", "provider:physical_network": "nowhere"`), 400, "InvalidInput"},
		{"a VLAN id that is none", "POST", "networks", network(`"provider:network_type": "vlan", "provider:physical_network": "physnet1", "provider:segmentation_id": 4095`), 400, "InvalidInput"},
		{"a tunnel id in use", "POST", "networks", network(`"provider:network_type": "gre", "provider:segmentation_id": 7`), 409, "TunnelIdInUse"},
		{"no CIDR", "POST", "subnets", onBlue("subnet", `, "ip_version": 4`), 400, "BadRequest"},
		{"a CIDR that is none", "POST", "subnets", v4(`"cidr": "10.0.0.0/33"`), 400, "InvalidInput"},
		{"an overlapping subnet", "POST", "subnets", v4(`"cidr": "10.0.0.128/25"`), 400, "InvalidInput"},
		{"a gateway in the pool", "POST", "subnets", v4(`"cidr": "10.1.0.0/24", "gateway_ip": "10.1.0.9", "allocation_pools": [{"start": "10.1.0.2", "end": "10.1.0.99"}]`), 409, "GatewayConflictWithAllocationPools"},
		{"a pool outside the subnet", "POST", "subnets", v4(`"cidr": "10.1.0.0/24", "allocation_pools": [{"start": "10.2.0.2", "end": "10.2.0.99"}]`), 400, "OutOfBoundsAllocationPool"},
		{"a subnet of no network", "POST", "subnets", `{"subnet": {"network_id": "00000000-0000-0000-0000-000000000000", "ip_version": 4, "cidr": "10.1.0.0/24"}}`, 404, "NetworkNotFound"},
		{"a used address", "POST", "ports", withIP("10.0.0.5"), 409, "IpAddressAlreadyAllocated"},
		{"an address outside all subnets", "POST", "ports", withIP("192.0.2.5"), 400, "InvalidIpForNetwork"},
		{"an address that is none", "POST", "ports", withIP("10.0.0.555"), 400, "HTTPBadRequest"},
		{"a used MAC", "POST", "ports", onBlue("port", `, "mac_address": "`+mac+`"`), 409, "MacAddressInUse"},
		{"a MAC that is none", "POST", "ports", onBlue("port", `, "mac_address": "fa:16:3e"`), 400, "HTTPBadRequest"},
		{"a bulk that is one address short", "POST", "ports", fmt.Sprintf(`{"ports": [{"network_id": "%s"}, {"network_id": "%s", "fixed_ips": [{"ip_address": "10.0.0.5"}]}]}`, blue, blue), 409, "IpAddressAlreadyAllocated"},
		{"a port of no network", "POST", "ports", `{"port": {"network_id": "00000000-0000-0000-0000-000000000000"}}`, 404, "NetworkNotFound"},
		{"a port without a network", "POST", "ports", `{"port": {}}`, 400, "HTTPBadRequest"},
		{"a used address, later", "PUT", "ports/" + portID, `{"port": {"fixed_ips": [{"ip_address": "10.0.0.2"}]}}`, 409, "IpAddressAlreadyAllocated"},
		{"another network, later", "PUT", "ports/" + portID, onBlue("port", ""), 400, "HTTPBadRequest"},
		{"another CIDR, later", "PUT", "subnets/" + subnet, `{"subnet": {"cidr": "10.9.0.0/24"}}`, 400, "HTTPBadRequest"},
		{"a subnet in use", "DELETE", "subnets/" + subnet, "", 409, "SubnetInUse"},
		{"a network in use", "DELETE", "networks/" + blue, "", 409, "NetworkInUse"},
		{"nobody's port", "GET", "ports/00000000-0000-0000-0000-000000000000", "", 404, "PortNotFound"},
		{"no such collection", "GET", "pigeons", "", 404, "HTTPNotFound"},
		{"a method that is not there", "PATCH", "networks/" + blue, "{}", 405, "HTTPMethodNotAllowed"},
		{"an unknown sort key", "GET", "networks?sort_key=pigeon", "", 400, "HTTPBadRequest"},
		{"a limit that is none", "GET", "networks?limit=pigeon", "", 400, "BadRequest"},
	} {
		if status, kind := c.raw(bad.method, bad.path, bad.body); status != bad.status || kind != bad.kind {
			t.Errorf("%s: %d %s, want %d %s", bad.what, status, kind, bad.status, bad.kind)
		}
	}
	if diff := cmp.Diff(before, c.state()); diff != "" {
		t.Errorf("bad requests changed something (-before +after):\n%s", diff)
	}

	for _, bytes := range []string{"\x16\x03\x01\x00\xa5\r\n\r\n", "GET\r\n\r\n", "POST /v2.0/networks HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n"} {
		c.hungUp("garbage on the API port", c.dial("api", bytes))
	}
	// A client that promises a body and goes away.
	c.dial("api", "POST /v2.0/networks HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{").Close()
	if diff := cmp.Diff(before, c.state()); diff != "" {
		t.Errorf("garbage changed something (-before +after):\n%s", diff)
	}
}

func TestBadRequestsAboutRoutersAreRefusedAndChangeNothing(t *testing.T) {
	t.Parallel()
	c := newController(t, physicalNetwork)
	public, private := c.outside(), c.network("blue", "", nil)
	net := func(cidr string, attrs object) (id, subnet string) {
		id = c.network("blue", "", nil)
		return id, c.subnet(id, cidr, attrs)
	}
	blue, subnet := net("10.0.0.0/24", nil)
	_, overlapping := net("10.0.0.128/25", nil)
	_, noGateway := net("10.0.1.0/24", object{"gateway_ip": nil})
	away, _ := net("10.0.2.0/24", nil)
	r := c.create("router", object{"name": "r", "tenant_id": "blue"})["id"].(string)
	c.attachSubnet(r, subnet)
	c.setGateway(r, public, nil)
	c.update("router", r, object{"routes": []object{{"destination": "172.16.0.0/12", "nexthop": "10.0.0.9"}}})
	plain := c.create("router", object{"name": "plain", "tenant_id": "blue"})["id"].(string)
	port := c.create("port", c.portBody("p", blue, nil))["id"].(string)
	unreachable := c.create("port", c.portBody("away", away, nil))["id"].(string)
	nowhere := c.create("port", c.portBody("nowhere", private, nil))["id"].(string)
	floating := c.create("floatingip", object{"floating_network_id": public, "port_id": port})
	interfaceID := c.list("ports", "device_owner=network:router_interface")[0]["id"].(string)
	before := c.state()

	const nobody = "00000000-0000-0000-0000-000000000000"
	add, remove := "routers/"+r+"/add_router_interface", "routers/"+r+"/remove_router_interface"
	float := func(network, attrs string) string {
		return fmt.Sprintf(`{"floatingip": {"floating_network_id": "%s"%s}}`, network, attrs)
	}
	onPort := func(id string) string { return float(public, fmt.Sprintf(`, "port_id": "%s"`, id)) }
	router := func(attrs string) string { return `{"router": {` + attrs + `}}` }
	gateway := func(network string) string {
		return router(fmt.Sprintf(`"external_gateway_info": {"network_id": "%s"}`, network))
	}
	bySubnet := func(id string) string { return fmt.Sprintf(`{"subnet_id": "%s"}`, id) }
	byPort := func(id string) string { return fmt.Sprintf(`{"port_id": "%s"}`, id) }
	for _, bad := range []struct {
		what, method, path, body string
		status                   int
		kind                     string
	}{
		{"an interface that is there", "PUT", add, bySubnet(subnet), 400, "BadRequest"},
		{"an interface on a subnet without a gateway", "PUT", add, bySubnet(noGateway), 400, "BadRequest"},
		{"an interface on a subnet that overlaps", "PUT", add, bySubnet(overlapping), 400, "BadRequest"},
		{"an interface on no subnet", "PUT", add, bySubnet(nobody), 404, "SubnetNotFound"},
		{"an interface by no port", "PUT", add, byPort(nobody), 404, "PortNotFound"},
		{"an interface by a port in use", "PUT", add, byPort(interfaceID), 409, "PortInUse"},
		{"an interface by a port without an address", "PUT", add, byPort(nowhere), 400, "BadRequest"},
		{"an interface by a port and a subnet", "PUT", add, fmt.Sprintf(`{"subnet_id": "%s", "port_id": "%s"}`, subnet, port), 400, "BadRequest"},
		{"an interface by neither", "PUT", add, `{}`, 400, "BadRequest"},
		{"an interface of no router", "PUT", "routers/" + nobody + "/add_router_interface", bySubnet(subnet), 404, "RouterNotFound"},
		{"removing an interface that is not there", "PUT", remove, bySubnet(overlapping), 404, "RouterInterfaceNotFoundForSubnet"},
		{"removing the interface of another router", "PUT", "routers/" + plain + "/remove_router_interface", byPort(interfaceID), 404, "RouterInterfaceNotFound"},
		{"removing an interface that a floating IP needs", "PUT", remove, bySubnet(subnet), 409, "RouterInterfaceInUseByFloatingIP"},
		{"a gateway network that is not external", "PUT", "routers/" + r, gateway(away), 400, "BadRequest"},
		{"no gateway network", "PUT", "routers/" + r, gateway(nobody), 404, "NetworkNotFound"},
		{"a new router whose gateway network is not external", "POST", "routers", gateway(away), 400, "BadRequest"},
		{"taking the gateway that a floating IP needs", "PUT", "routers/" + r, router(`"external_gateway_info": {}`), 409, "RouterExternalGatewayInUseByFloatingIp"},
		{"a route over a next hop elsewhere", "PUT", "routers/" + r, router(`"routes": [{"destination": "192.0.2.0/24", "nexthop": "198.51.100.1"}]`), 400, "InvalidRoutes"},
		{"a route over the router itself", "PUT", "routers/" + r, router(`"routes": [{"destination": "192.0.2.0/24", "nexthop": "10.0.0.1"}]`), 400, "InvalidRoutes"},
		{"a floating IP of a network that is not external", "POST", "floatingips", float(away, ""), 400, "BadRequest"},
		{"a floating IP of no network", "POST", "floatingips", float(nobody, ""), 404, "NetworkNotFound"},
		{"a floating IP of a port that no router reaches", "POST", "floatingips", onPort(unreachable), 404, "ExternalGatewayForFloatingIPNotFound"},
		{"a floating IP of a port without an address", "POST", "floatingips", onPort(nowhere), 400, "BadRequest"},
		{"a floating IP of no port", "POST", "floatingips", onPort(nobody), 404, "PortNotFound"},
		{"a second floating IP of an address", "POST", "floatingips", onPort(port), 409, "FloatingIPPortAlreadyAssociated"},
		{"a floating IP that is taken", "POST", "floatingips", float(public, fmt.Sprintf(`, "floating_ip_address": "%s"`, floating["floating_ip_address"])), 409, "IpAddressAlreadyAllocated"},
		{"a floating IP outside the subnet", "POST", "floatingips", float(public, `, "floating_ip_address": "198.51.100.9"`), 400, "InvalidIpForNetwork"},
		{"a floating IP with a fixed address and no port", "POST", "floatingips", float(public, `, "fixed_ip_address": "10.0.0.5"`), 400, "BadRequest"},
		{"a router in use", "DELETE", "routers/" + r, "", 409, "RouterInUse"},
		{"a router's interface", "DELETE", "ports/" + interfaceID, "", 409, "ServicePortInUse"},
		{"a floating IP's port", "DELETE", "ports/" + c.list("ports", "device_owner=network:floatingip")[0]["id"].(string), "", 409, "ServicePortInUse"},
		{"a subnet that a router joins", "DELETE", "subnets/" + subnet, "", 409, "SubnetInUse"},
		{"an external network in use", "DELETE", "networks/" + public, "", 409, "NetworkInUse"},
		{"an external network in use that is to be none", "PUT", "networks/" + public, `{"network": {"router:external": false}}`, 409, "ExternalNetworkInUse"},
		{"no router", "GET", "routers/" + nobody, "", 404, "RouterNotFound"},
		{"no floating IP", "DELETE", "floatingips/" + nobody, "", 404, "FloatingIPNotFound"},
	} {
		if status, kind := c.raw(bad.method, bad.path, bad.body); status != bad.status || kind != bad.kind {
			t.Errorf("%s: %d %s, want %d %s", bad.what, status, kind, bad.status, bad.kind)
		}
	}
	if diff := cmp.Diff(before, c.state()); diff != "" {
		t.Errorf("bad requests changed something (-before +after):\n%s", diff)
	}
}

// raw makes an API request with a body as it is, and returns the status and the type of the error.
func (c *cloud) raw(method, path, body string) (status int, kind string) {
	c.Helper()
	req, err := http.NewRequest(method, c.api+"/v2.0/"+path, strings.NewReader(body))
	if err != nil {
		c.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		c.Fatal(err)
	}
	defer resp.Body.Close()
	var answer struct {
		NeutronError struct{ Type, Message string }
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		c.Errorf("%s %s: the answer is no JSON: %v", method, path, err)
	}
	if resp.StatusCode >= 400 && answer.NeutronError.Message == "" {
		c.Errorf("%s %s: %d without a message", method, path, resp.StatusCode)
	}
	return resp.StatusCode, answer.NeutronError.Type
}

func TestOddFramesOfVMsAreCountedAndDropped(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 1, nil, "[openflow]\npunt_rate_per_port = 0\n")
	id := c.network("blue", "10.0.0.0/24", nil)
	odd, neighbour := c.boot("odd", "host1", id, nil), c.boot("neighbour", "host1", id, nil)
	mac, nobody := odd.mac(), "00:00:00:00:00:00"
	dhcp := func(change func(b []byte) []byte) []byte {
		return ethernet(t, everybody, mac, etherIPv4, udp4("0.0.0.0", "255.255.255.255", 68, 67, change(discover(t, mac))))
	}
	set := func(at int, v byte) func([]byte) []byte {
		return func(b []byte) []byte { b[at] = v; return b }
	}
	cut := func(n int) func([]byte) []byte { return func(b []byte) []byte { return b[:n] } }
	add := func(options ...byte) func([]byte) []byte {
		return func(b []byte) []byte { return append(b[:len(b)-1], options...) }
	}
	frames := map[string][]byte{
		"an empty message":               dhcp(cut(0)),
		"half a message":                 dhcp(cut(100)),
		"no options":                     dhcp(cut(240)),
		"hlen 255":                       dhcp(set(2, 255)),
		"htype 7":                        dhcp(set(1, 7)),
		"a reply":                        dhcp(set(0, 2)),
		"no magic cookie":                dhcp(set(236, 0)),
		"another client's":               dhcp(set(33, 0xee)),
		"a relay's":                      dhcp(set(24, 10)),
		"an option longer than the rest": dhcp(add(12, 200, 'x')),
		"an option without a length":     dhcp(add(12)),
		"message type 99":                dhcp(set(242, 99)),
		"an ARP question cut short":      ethernet(t, everybody, mac, etherARP, arpPacket(t, 1, mac, odd.ip(), nobody, "10.0.0.99")[:20]),
		"an ARP question of hlen 255":    ethernet(t, everybody, mac, etherARP, append([]byte{0, 1, 8, 0, 255, 4}, arpPacket(t, 1, mac, odd.ip(), nobody, "10.0.0.99")[6:]...)),
		"an ARP question of plen 16":     ethernet(t, everybody, mac, etherARP, append([]byte{0, 1, 8, 0, 6, 16}, arpPacket(t, 1, mac, odd.ip(), nobody, "10.0.0.99")[6:]...)),
		"an ARP question about oneself":  ethernet(t, everybody, mac, etherARP, arpPacket(t, 1, mac, odd.ip(), nobody, odd.ip())),
		"an IPv4 header cut short":       ethernet(t, everybody, mac, etherIPv4, []byte{0x45, 0, 0}),
		"an Ethernet header only":        ethernet(t, everybody, mac, etherIPv4, nil),
	}
	for _, frame := range frames {
		c.send(odd, frame)
	}
	c.eventually("what reached the controller is counted", func() error {
		if n := c.metric("planck_packet_ins_total", `feature="dhcp"`); n < 12 {
			return fmt.Errorf("%v DHCP packets: %s", n, c.metrics("planck_packet_ins_total"))
		}
		return nil
	})
	if n := c.metric("planck_packet_ins_total", `outcome="answered"`); n != 0 {
		t.Errorf("%v were answered", n)
	}
	for reason, least := range map[pipeline.DropReason]int{pipeline.DropForgedIPv4: 2, pipeline.DropForgedARP: 3} {
		c.eventually("what the switch dropped is counted", func() error {
			if n := c.dropped("host1", reason); n < least {
				return fmt.Errorf("%d frames because of %q, want %d", n, pipeline.DropReasons[reason], least)
			}
			return nil
		})
	}
	c.dhcp(odd)
	c.dhcp(neighbour)
	c.reaches(odd.Node, neighbour.ip())
}

// dropped is how many packets a host has dropped for a reason.
func (c *cloud) dropped(host string, reason pipeline.DropReason) int {
	c.Helper()
	var list []object
	if err := json.Unmarshal([]byte(c.planck("flows", host, "br-int", "-o", "json")), &list); err != nil {
		c.Fatal(err)
	}
	for _, f := range list {
		if f["table_name"] == "Dropped" && f["match"] == fmt.Sprintf("reg6=%#x", reason) {
			return int(f["packets"].(float64))
		}
	}
	c.Fatalf("%s does not count drops for the reason %d", host, reason)
	return 0
}
