package bench

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"planck/test/keystone"
	"planck/test/pg"
)

// keystoneConfig makes a controller ask Keystone about tokens.
const keystoneConfig = `[DEFAULT]
auth_strategy = keystone
[keystone_authtoken]
auth_url = %s
username = %s
password = %s
project_name = %s
user_domain_id = default
project_domain_id = default
http_connect_timeout = 120
[QUOTAS]
quota_network = -1
quota_subnet = -1
quota_port = -1
`

// BenchmarkAPIBesideNeutron measures authenticated requests beside neutron-server
// with the same Keystone and PostgreSQL, one after the other.
func BenchmarkAPIBesideNeutron(b *testing.B) {
	ks, database := keystone.Start(b), pg.StartDurable(b)
	own := ks.Account(b, "network", "admin", "service")
	operator := ks.Account(b, "operator", "admin")
	t := newTable("api beside Neutron")
	config := fmt.Sprintf(keystoneConfig, ks.URL, own.User, own.Password, own.Project)
	ours := &sideBySide{server: serve(b, database.Database(b), config), table: t}
	ours.token = ks.Token(b, operator)
	if n, err := serveNeutron(b, database.Database(b), ks.URL, own); err != nil {
		b.Logf("not compared with Neutron: %v", err)
	} else {
		n.token = ks.Token(b, operator)
		ours.peer = &sideBySide{server: n}
	}
	ours.run()
	ours.tokens(ks, serve(b, database.Database(b), ""))
}

// sideBySide is a server, and another that is measured beside it.
type sideBySide struct {
	*server
	peer  *sideBySide // nil for none
	table *table

	network string
	port    string
}

func (s *sideBySide) run() {
	s.Helper()
	post := func(collection string, attributes func(*sideBySide) object) func(*sideBySide) request {
		return func(on *sideBySide) request {
			return request{http.MethodPost, "/v2.0/" + collection + "s", object{collection: attributes(on)}, http.StatusCreated}
		}
	}
	get := func(path func(*sideBySide) string) func(*sideBySide) request {
		return func(on *sideBySide) request { return request{http.MethodGet, path(on), nil, http.StatusOK} }
	}
	network := post("network", func(*sideBySide) object { return object{"name": "n"} })
	port := post("port", func(on *sideBySide) object {
		return object{"network_id": on.network, "name": "vm", "device_id": deviceID(1), "device_owner": "compute:nova"}
	})
	all := get(func(*sideBySide) string { return "/v2.0/ports" })
	one := get(func(on *sideBySide) string { return "/v2.0/ports/" + on.port })
	s.compare("POST /networks, 1 at once", "≥ 150×", 1, 300, 20, network)
	s.compare("POST /networks, 8 at once", "≥ 150×", 8, 300, 30, network)
	s.each((*sideBySide).makeNetwork)
	s.compare("POST /ports, 1 at once", "≥ 150×", 1, 200, 20, port)
	s.compare("POST /ports, 8 at once", "≥ 150×", 8, 300, 40, port)
	s.each((*sideBySide).fill)
	s.compare("GET /ports, all 1,000", "≥ 50×", 1, 100, 10, all)
	s.compare("GET /ports, all 1,000, 8 at once", "≥ 50×", 8, 200, 16, all)
	s.compare("GET /ports/ID, of 1,000", "", 1, 1000, 50, one)
	r := row{what: "memory with 1,000 ports", ours: fmt.Sprintf("%.0f MiB", s.memory()), aim: "≤ 80 MiB"}
	if s.peer != nil {
		r.peer = fmt.Sprintf("%.0f MiB (%d processes)", s.peer.memory(), len(s.peer.processes()))
		r.ratio = times(s.memory() / s.peer.memory())
	}
	s.table.add(r)
}

// each does something on both servers.
func (s *sideBySide) each(do func(*sideBySide)) {
	do(s)
	if s.peer != nil {
		do(s.peer)
	}
}

// compare makes a number of requests on ours, and fewer on the peer.
func (s *sideBySide) compare(what, aim string, connections, n, fewer int, make func(*sideBySide) request) {
	s.Helper()
	l := s.drive(n, connections, func(int) request { return make(s) })
	r := row{what: what, ours: l.String(), aim: aim}
	if s.peer != nil {
		p := s.peer.drive(fewer, connections, func(int) request { return make(s.peer) })
		r.peer = p.precisely()
		r.ratio = fmt.Sprintf("%.0f×", l.rate()/p.rate())
	}
	s.table.add(r)
}

func (s *sideBySide) makeNetwork() {
	s.network = s.mustCreate("network", object{"name": "ports"})
	s.mustCreate("subnet", object{"network_id": s.network, "cidr": "10.0.0.0/16", "ip_version": 4})
}

// fill makes ports by bulk requests until there are 1,000.
func (s *sideBySide) fill() {
	s.Helper()
	have := s.countPorts()
	for have < 1000 {
		bulk := min(100, 1000-have)
		ports := make([]object, bulk)
		for i := range ports {
			ports[i] = object{"network_id": s.network, "name": "vm", "device_id": deviceID(1), "device_owner": "compute:nova"}
		}
		ids, err := s.createMany("ports", ports)
		if err != nil {
			s.Fatal(err)
		}
		have, s.port = have+bulk, ids[0]
	}
}

func (s *sideBySide) countPorts() int {
	s.Helper()
	var answer struct{ Ports []struct{ ID string } }
	if err := s.get("/v2.0/ports?fields=id", &answer); err != nil {
		s.Fatal(err)
	}
	return len(answer.Ports)
}

// tokens measures what the checks of a token and of the policy add to a request:
// open is a controller that wants no token.
func (s *sideBySide) tokens(ks *keystone.Server, open *server) {
	s.Helper()
	const n = 4000
	operator := s.token
	member := ks.Account(s.TB, "member", "member")
	each := func(c *server, id string) string {
		used := c.cpu()
		c.drive(n, 1, func(int) request { return request{http.MethodGet, "/v2.0/networks/" + id, nil, http.StatusOK} })
		return us((c.cpu() - used) / n)
	}
	free := each(open, open.mustCreate("network", object{"name": "n"}))
	s.token = ks.Token(s.TB, member)
	id := s.mustCreate("network", object{"name": "n"})
	asMember := each(s.server, id)
	s.token = operator
	asOperator := each(s.server, id)
	s.table.add(row{
		what: "CPU of GET /networks/ID: without tokens / an administrator's / a member's",
		ours: fmt.Sprintf("%s / %s / %s", free, asOperator, asMember),
	})
	var first, second []time.Duration
	for range 20 {
		s.token = ks.Token(s.TB, member)
		get := func(int) request { return request{http.MethodGet, "/v2.0/networks/" + id, nil, http.StatusOK} }
		first = append(first, s.drive(1, 1, get).each...)
		second = append(second, s.drive(1, 1, get).each...)
	}
	s.table.add(row{
		what: "GET /networks/ID by a token that is new, so that Keystone is asked / again",
		ours: fmt.Sprintf("p50 %s / %s", ms(percentile(first, 50)), ms(percentile(second, 50))),
	})
}
