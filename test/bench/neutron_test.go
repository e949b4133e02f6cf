package bench

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"planck/test/keystone"
)

// python is the one that Debian's packages are for.
const python = "/usr/bin/python3"

// neutronConfig is that of a small cloud: two API workers, OVS and the ML2
// plugin. Messages to agents go nowhere, which costs Neutron less than a broker.
const neutronConfig = `[DEFAULT]
core_plugin = ml2
service_plugins = router
auth_strategy = keystone
api_paste_config = %[1]s/api-paste.ini
state_path = %[1]s/state
log_file = %[1]s/neutron.log
bind_host = 127.0.0.1
bind_port = %[2]d
api_workers = 2
rpc_workers = 1
rpc_state_report_workers = 0
transport_url = fake://
notify_nova_on_port_status_changes = false
notify_nova_on_port_data_changes = false
[oslo_concurrency]
lock_path = %[1]s/lock
[database]
connection = %[3]s
[keystone_authtoken]
www_authenticate_uri = %[4]s
auth_url = %[4]s
auth_type = password
username = %[5]s
password = %[6]s
project_name = %[7]s
user_domain_id = default
project_domain_id = default
http_connect_timeout = 120
[quotas]
quota_network = -1
quota_subnet = -1
quota_port = -1
[ml2]
type_drivers = flat,vlan,gre,vxlan
tenant_network_types = gre
mechanism_drivers = openvswitch
extension_drivers = port_security
[ml2_type_gre]
tunnel_id_ranges = 1:100000
`

const neutronPaste = `[composite:neutron]
use = egg:Paste#urlmap
/v2.0: neutron_api
[pipeline:neutron_api]
pipeline = authtoken keystonecontext extensions neutron_app
[filter:authtoken]
paste.filter_factory = keystonemiddleware.auth_token:filter_factory
[filter:keystonecontext]
paste.filter_factory = neutron.auth:NeutronKeystoneContext.factory
[filter:extensions]
paste.filter_factory = neutron.api.extensions:plugin_aware_extension_middleware_factory
[app:neutron_app]
paste.app_factory = neutron.api.v2.router:APIRouter.factory
`

// serveNeutron starts Debian's neutron-server with two API workers; the error is
// why it can't be had.
func serveNeutron(tb testing.TB, database, keystoneURL string, own keystone.Account) (*server, error) {
	tb.Helper()
	if out, err := exec.Command(python, "-c", "import neutron").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("Debian's python3-neutron is not installed: %s", lastLine(string(out)))
	}
	dir := tb.TempDir()
	port := freePorts(tb, 1)[0]
	config := fmt.Sprintf(neutronConfig, dir, port, database, keystoneURL, own.User, own.Password, own.Project)
	file := filepath.Join(dir, "neutron.conf")
	err := errors.Join(os.WriteFile(file, []byte(config), 0o600),
		os.WriteFile(filepath.Join(dir, "api-paste.ini"), []byte(neutronPaste), 0o600))
	if err != nil {
		tb.Fatal(err)
	}
	migrate := neutronProgram("neutron.db.migration.cli", file, "upgrade", "heads")
	if out, err := migrate.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("neutron-db-manage: %w: %s", err, lastLine(string(out)))
	}
	n := &server{
		TB: tb, log: filepath.Join(dir, "neutron.log"), api: fmt.Sprintf("127.0.0.1:%d", port),
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}, group: true,
	}
	n.process = neutronProgram("neutron.cmd.eventlet.server", file)
	n.process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := n.process.Start(); err != nil {
		return nil, err
	}
	tb.Cleanup(n.end)
	return n, n.answers()
}

// neutronProgram runs one of Neutron's, which ends when we do.
func neutronProgram(module, config string, args ...string) *exec.Cmd {
	code := "import sys; from " + module + " import main; sys.argv[0] = 'neutron'; main()"
	return exec.Command(python, append([]string{"-c", code, "--config-file", config}, args...)...)
}

// answers waits until the server does, be it that it wants a token.
func (c *server) answers() error {
	var err error
	for begin := time.Now(); time.Since(begin) < 2*patience; time.Sleep(100 * time.Millisecond) {
		if _, _, err = c.request(http.MethodGet, "/v2.0/networks", nil); err == nil {
			return nil
		}
	}
	log, _ := os.ReadFile(c.log)
	return fmt.Errorf("neutron-server does not answer: %w: %s", err, lastLine(string(log)))
}

func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return text[strings.LastIndexByte(text, '\n')+1:]
}

// processes are those of the server: one, or its whole group.
func (c *server) processes() []int {
	leader := c.process.Process.Pid
	if !c.group {
		return []int{leader}
	}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	var found []int
	for _, file := range stats {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it ended
		}
		_, after, _ := strings.Cut(string(text), ") ")
		// state, parent, group
		if f := strings.Fields(after); len(f) > 2 && f[2] == strconv.Itoa(leader) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			found = append(found, pid)
		}
	}
	return found
}

// memory is what the server holds, in MiB: what processes share counts once.
func (c *server) memory() float64 {
	c.Helper()
	var sum float64
	for _, pid := range c.processes() {
		sum += proportionalMiB(c.TB, pid)
	}
	return sum
}
