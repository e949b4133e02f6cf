package e2e

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"planck/test/lab"
)

// The files that the guide shows run a cloud as they stand: its database and
// message queue are not there, and what only agents need is passed over.
func TestFilesOfTheGuideRunACloud(t *testing.T) {
	t.Parallel()
	c := newController(t, "")
	if code := c.kill(syscall.SIGTERM); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	for _, name := range []string{"quantum.conf", "ovs_quantum_plugin.ini", "l3_agent.ini"} {
		c.args = append(c.args, "--config-file", filepath.Join("../../cmd/planck/testdata/guide", name))
	}
	c.start()
	c.lab = lab.ForTest(t, lab.Options{Hosts: 2, Controllers: []string{c.ovsdb}})

	id := c.network("blue", "192.168.57.0/24", nil)
	shown := c.show("network", id)
	if key, ok := shown["provider:segmentation_id"].(float64); shown["provider:network_type"] != "gre" || !ok || key < 1 || key > 1000 {
		t.Errorf("not the guide's GRE: %v", shown)
	}
	a, b := c.boot("a", "host1", id, nil), c.boot("b", "host2", id, nil)
	c.dhcp(a)
	c.dhcp(b)
	c.reaches(a.Node, b.ip())

	_, out := c.call(http.MethodGet, "/v2.0/quotas/blue", nil)
	if quota := out["quota"].(object); quota["network"] != 10.0 || quota["port"] != 50.0 || quota["subnet"] != 10.0 {
		t.Errorf("not the guide's quotas: %v", quota)
	}
	log, err := os.ReadFile(c.log)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(log), "sql_connection: MySQL is not supported") {
		t.Error("nothing is said of MySQL, which is not used")
	}
}
