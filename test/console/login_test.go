package console

import (
	"fmt"
	"net/http"
	"testing"

	"planck/test/keystone"
)

// keystoneConfig asks Keystone about each request, so that a revoked token is
// one at once.
const keystoneConfig = `[DEFAULT]
auth_strategy = keystone
[keystone_authtoken]
auth_url = %s
username = %s
password = %s
project_name = %s
http_connect_timeout = 120
token_cache_time = -1
`

// fill types a log-in and sends it.
func (p *page) fill(a keystone.Account, password string) {
	p.Helper()
	p.until("the log-in is asked for", "document.querySelector('form.login')")
	for name, text := range map[string]string{"username": a.User, "password": password, "project": a.Project} {
		evaluate[bool](p, "document.querySelector('[name="+name+"]').value = "+quoted(text)+"; true")
	}
	p.click("form.login button")
}

func TestConsoleAsksForAPasswordOfKeystone(t *testing.T) {
	ks := keystone.Start(t)
	own := ks.Account(t, "planck", "admin", "service")
	operator, tenant := ks.Account(t, "operator", "admin"), ks.Account(t, "blue", "member")
	c := newCloud(t, fmt.Sprintf(keystoneConfig, ks.URL, own.User, own.Password, own.Project))
	c.header.Set("X-Auth-Token", ks.Token(t, operator))
	blue, _ := c.network(tenant.ProjectID, "blue", "10.0.0.0/24", nil)
	c.network(operator.ProjectID, "secret", "10.0.0.0/24", nil)
	port := c.port(tenant.ProjectID, "web", blue, nil)

	p := newPage(t, c.url)
	p.open("")
	p.fill(tenant, "wrong")
	p.says("#login-message", "Keystone refuses: the user name, the password")
	p.fits("the log-in")

	t.Log("a member of a project sees what is its own")
	p.fill(tenant, tenant.Password)
	p.says(".topology text", "blue")
	p.says("#session", tenant.User+" in "+tenant.Project)
	p.until("there is nothing of others, and no host", "!document.querySelector('main').textContent.match(/secret|host/)")
	p.open("#/hosts")
	p.says(".note", "Hosts, flows and traces are for administrators.")
	p.open("#/trace")
	p.says(".note", "for administrators")
	p.open("#/port/" + port["id"].(string))
	p.says("h1", "Port web")
	p.says(".note", "for administrators")
	p.open("#/networks")
	p.says("tbody", "blue")

	t.Log("when its token ends it has to log in again")
	ks.Revoke(t, evaluate[string](p, "JSON.parse(sessionStorage.getItem('planck.session')).token"))
	c.network(tenant.ProjectID, "more", "10.0.5.0/24", nil)
	p.says("#login-message", "Your session has ended")
	p.until("the token is forgotten", "sessionStorage.length === 0")

	t.Log("an administrator sees everything, and logs out")
	p.fill(operator, operator.Password)
	p.says("tbody", "secret")
	p.open("#/hosts")
	p.says("main", "No host has joined")
	p.click("[data-action=logout]")
	p.until("the log-in is asked for", "document.querySelector('form.login') && sessionStorage.length === 0")
	c.header.Del("X-Auth-Token")
	c.call(http.MethodGet, "/planck/v1/hosts", nil, http.StatusUnauthorized)
}
