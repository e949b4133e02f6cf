package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"planck/test/lab"
)

const portID = "0a0a0a0a-1111-4111-8111-000000000001"

// planckLab runs the command in this process.
func planckLab(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cmd := newCommand()
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func mustRun(t *testing.T, args ...string) string {
	t.Helper()
	out, err := planckLab(t, args...)
	if err != nil {
		t.Fatalf("planck-lab %s: %v", strings.Join(args, " "), err)
	}
	return out
}

// api answers like Neutron for one port on a GRE network.
func api(t *testing.T) string {
	mux := http.NewServeMux()
	for path, body := range map[string]string{
		"/v2.0/ports/" + portID: `{"port": {"mac_address": "fa:16:3e:00:00:01", "network_id": "n1", "device_id": "i1"}}`,
		"/v2.0/networks/n1":     `{"network": {"mtu": 1458}}`,
	} {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			if _, err := w.Write([]byte(body)); err != nil {
				t.Error(err)
			}
		})
	}
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL
}

func TestVMTakesItsPortFromTheAPI(t *testing.T) {
	l := lab.ForTest(t, lab.Options{Hosts: 1})
	if _, err := l.Host("host1").Vsctl("add-br", "br-int", "--", "set", "Bridge", "br-int", "datapath_type=netdev"); err != nil {
		t.Fatal(err)
	}
	t.Setenv("OS_URL", api(t))
	mustRun(t, "--lab", l.Name(), "vm", "host1", "a", "--port", portID)
	want := lab.VMPort{ID: portID, MAC: "fa:16:3e:00:00:01", MTU: 1458, DeviceID: "i1"}
	if got := l.VM("a").Port; got != want {
		t.Errorf("VM has port %+v, want %+v", got, want)
	}
	mustRun(t, "--lab", l.Name(), "unplug", "a")
	mustRun(t, "--lab", l.Name(), "plug", "a")
	mustRun(t, "--lab", l.Name(), "phys", "server", "--vlan", "100", "--ip", "10.1.0.9/24")
	var status lab.Status
	if err := json.Unmarshal([]byte(mustRun(t, "--lab", l.Name(), "ps", "-o", "json")), &status); err != nil || len(status.Nodes) != 5 {
		t.Errorf("ps: %+v, %v; want a, ext, host1, phys, server", status.Nodes, err)
	}
	mustRun(t, "--lab", l.Name(), "rm", "a")
	out := mustRun(t, "--lab", l.Name(), "ps")
	if strings.Contains(out, portID) || !strings.Contains(out, "VLAN 100") {
		t.Errorf("ps after rm:\n%s", out)
	}
}

func TestErrorsSayWhatIsWrong(t *testing.T) {
	l := lab.ForTest(t, lab.Options{})
	url := api(t)
	for want, args := range map[string][]string{
		"404 Not Found":              {"--lab", l.Name(), "vm", "host1", "a", "--port", "nope", "--api", url},
		"--port is missing":          {"--lab", l.Name(), "vm", "host1", "a"},
		"has no host host9":          {"--lab", l.Name(), "vm", "host9", "a", "--port", portID, "--api", url},
		"has no VM ext":              {"--lab", l.Name(), "dhcp", "ext"},
		"has no a; see planck-lab":   {"--lab", l.Name(), "exec", "a", "true"},
		"belongs to the lab itself":  {"--lab", l.Name(), "rm", "ext"},
		"take it down first":         {"--lab", l.Name(), "up", "1"},
		"make it with planck-lab up": {"--lab", "absent", "ps"},
		"want the number of hosts":   {"--lab", "absent", "up", "many"},
		"VLAN 5000":                  {"--lab", l.Name(), "phys", "server", "--vlan", "5000"},
	} {
		if out, err := planckLab(t, args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("planck-lab %s: %s, %v; want %q", strings.Join(args, " "), out, err, want)
		}
	}
	if out, err := planckLab(t, "--lab", "absent", "down"); err != nil || out != "" {
		t.Errorf("down of nothing: %s, %v", out, err)
	}
}
