//go:build nova

package nova

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"

	"planck/test/keystone"
	"planck/test/lab"
)

type object = map[string]any

// shell runs openstack commands.
type shell struct {
	mu sync.Mutex
	*service
}

func (c *cloud) startShell() {
	c.Helper()
	c.shell = &shell{service: c.keep(exec.Command(python, c.file("shell.py")), "shell")}
}

// try runs an openstack command as a user, and returns what it prints.
func (c *cloud) try(who keystone.Account, line string) (string, error) {
	c.shell.mu.Lock()
	defer c.shell.mu.Unlock()
	out, complaints := c.file("shell.out"), c.file("shell.err")
	job, err := json.Marshal(object{"args": strings.Fields(line), "out": out, "err": complaints, "env": object{
		"OS_AUTH_URL": c.keystone.URL, "OS_USERNAME": who.User, "OS_PASSWORD": who.Password, "OS_PROJECT_NAME": who.Project,
		"OS_USER_DOMAIN_ID": "default", "OS_PROJECT_DOMAIN_ID": "default", "OS_IDENTITY_API_VERSION": "3", "OS_REGION_NAME": "RegionOne",
	}})
	if err != nil {
		return "", err
	}
	if _, err := fmt.Fprintf(c.shell.input, "%s\n", job); err != nil {
		return "", fmt.Errorf("openstack: %w", err)
	}
	code, err := c.shell.replies.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("openstack %s: %w", line, err)
	}
	said, _ := os.ReadFile(out)
	if code != "0\n" {
		text, _ := os.ReadFile(complaints)
		return "", fmt.Errorf("openstack %s: exit code %s%s", line, code, text)
	}
	return string(said), nil
}

// run runs an openstack command of the demo user.
func (c *cloud) run(line string) string {
	c.Helper()
	return c.runAs(c.demo, line)
}

func (c *cloud) runAs(who keystone.Account, line string) string {
	c.Helper()
	out, err := c.try(who, line)
	if err != nil {
		c.Fatal(err)
	}
	return out
}

// show runs an openstack command of the demo user that prints one object.
func (c *cloud) show(line string) object {
	c.Helper()
	return c.showAs(c.demo, line)
}

func (c *cloud) showAs(who keystone.Account, line string) object {
	c.Helper()
	var o object
	if out := c.runAs(who, line+" -f json"); json.Unmarshal([]byte(out), &o) != nil {
		c.Fatalf("openstack %s: %s", line, out)
	}
	return o
}

// get reads an object of an API as the operator; its status is 404 when it is gone.
func (c *cloud) get(port int, path string) (int, object) {
	c.Helper()
	req, err := http.NewRequestWithContext(c.Context(), http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d%s", port, path), nil)
	if err != nil {
		c.Fatal(err)
	}
	req.Header.Set("X-Auth-Token", c.token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		c.Fatal(err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		c.Fatal(err)
	}
	var o object
	if err := json.Unmarshal(raw, &o); err != nil {
		c.Fatalf("GET %s: %s: %s", path, res.Status, raw)
	}
	return res.StatusCode, o
}

// server is what Nova says of a server, nil when it is gone.
func (c *cloud) server(id string) object {
	c.Helper()
	_, o := c.get(c.settings.ComputePort, "/v2.1/servers/"+id)
	s, _ := o["server"].(object)
	return s
}

// port is what the controller says of a port, nil when it is gone.
func (c *cloud) port(id string) object {
	c.Helper()
	_, o := c.get(c.settings.NetworkPort, "/v2.0/ports/"+id)
	p, _ := o["port"].(object)
	return p
}

// portsOf are the ports of a server.
func (c *cloud) portsOf(server string) []object {
	c.Helper()
	_, o := c.get(c.settings.NetworkPort, "/v2.0/ports?device_id="+server)
	var ports []object
	list, _ := o["ports"].([]any)
	for _, p := range list {
		ports = append(ports, p.(object))
	}
	return ports
}

// is waits until a server has a status.
func (c *cloud) is(server, status string) {
	c.Helper()
	c.eventually("server "+server+" is "+status, func() error {
		if s := c.server(server); s["status"] != status {
			return fmt.Errorf("it is %v: %v", s["status"], s["fault"])
		}
		return nil
	})
}

// has waits until an attribute of a port has a value.
func (c *cloud) has(port, attribute string, value any) {
	c.Helper()
	c.eventually(fmt.Sprintf("%s of port %s is %v", attribute, port, value), func() error {
		if got := c.port(port)[attribute]; got != value {
			return fmt.Errorf("it is %v", got)
		}
		return nil
	})
}

// plug is what libvirt and os-vif do on a host.
func (c *cloud) plug(host, name string, port object) *lab.VM {
	c.Helper()
	_, network := c.get(c.settings.NetworkPort, "/v2.0/networks/"+port["network_id"].(string))
	vm, err := c.lab.AddVM(c.Context(), host, name, lab.VMPort{
		ID: port["id"].(string), MAC: port["mac_address"].(string), DeviceID: port["device_id"].(string),
		MTU: int(network["network"].(object)["mtu"].(float64)),
	})
	if err != nil {
		c.Fatal(err)
	}
	return vm
}

// logged waits until the log of a service has a text.
func (c *cloud) logged(service, text string) {
	c.Helper()
	c.eventually(fmt.Sprintf("the log of %s has %q", service, text), func() error {
		if log, err := os.ReadFile(c.log(service)); err != nil || !bytes.Contains(log, []byte(text)) {
			return fmt.Errorf("it has not, %v", err)
		}
		return nil
	})
}
