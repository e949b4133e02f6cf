package main

import (
	"encoding"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"planck/network"
)

var update = flag.Bool("update", false, "rewrite generated documentation")

// configFile writes a configuration file and gives its name.
func configFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// load reads one file that must be right.
func load(t *testing.T, text string) (*Config, []string) {
	t.Helper()
	c, warnings, err := LoadConfig([]string{configFile(t, "planck.conf", text)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c, warnings
}

func TestOptionTableIsSound(t *testing.T) {
	seen := map[string]bool{}
	once := func(key string) {
		if seen[key] {
			t.Errorf("%s is there twice", key)
		}
		seen[key] = true
	}
	for _, o := range options {
		if o.Flag != "" {
			once("--" + o.Flag)
		}
		if len(o.Names) == 0 && o.Flag == "" {
			t.Errorf("an option has neither name nor flag: %s", o.Doc)
		}
		for _, section := range o.Sections {
			for _, name := range o.Names {
				once(strings.ToLower(section) + " " + name)
			}
		}
		target := o.Into(&Config{})
		if _, ok := target.(encoding.TextUnmarshaler); !ok && typeName(target) == "" {
			t.Errorf("%s: values of type %T cannot be read", o.title(), target)
		}
		if typeName(target) == "" {
			t.Errorf("%s: type %T has no name for the documentation", o.title(), target)
		}
		if o.Doc == "" || !strings.HasSuffix(o.Doc, ".") {
			t.Errorf("%s: documentation %q", o.title(), o.Doc)
		}
	}
}

func TestEverythingHasADefault(t *testing.T) {
	c, warnings, err := LoadConfig(nil, nil)
	if err != nil || len(warnings) > 0 {
		t.Fatalf("%v %v", err, warnings)
	}
	got := []any{c.APIListen(), c.OpenFlowListen, c.OVSDBListen, c.Database, c.StateDir, c.AuthStrategy, c.LogLevel, c.LogFormat,
		c.ARPResponder, time.Duration(c.DHCPLeaseDuration), int(c.PaginationMaxLimit), c.AllowBulk}
	want := []any{"127.0.0.1:9696", listenAddr(":6653"), listenAddr(":6640"), databaseURL("sqlite:////var/lib/planck/planck.db"),
		"/var/lib/planck", "noauth", slog.LevelInfo, logFormat("text"), "cached", 24 * time.Hour, 0, true}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(network.DefaultConfig(), c.NetworkConfig()); diff != "" {
		t.Errorf("the model's own defaults differ (-theirs +ours):\n%s", diff)
	}
}

func TestFilesOfTheGuideAreReadAsTheyStand(t *testing.T) {
	files := []string{"testdata/guide/quantum.conf", "testdata/guide/ovs_quantum_plugin.ini", "testdata/guide/l3_agent.ini"}
	c, warnings, err := LoadConfig(files, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"testdata/guide/ovs_quantum_plugin.ini:1: [DEFAULT] sql_connection: MySQL is not supported: " +
			"use PostgreSQL, postgresql://user:password@host/database; the default is used",
		"ignored, without a meaning here: [DEFAULT] admin_password, [DEFAULT] admin_tenant_name, [DEFAULT] admin_user, " +
			"[DEFAULT] auth_url, [DEFAULT] core_plugin, [DEFAULT] external_network_bridge, " +
			"[DEFAULT] gateway_external_network_id, [DEFAULT] handle_internal_only_routers, " +
			"[DEFAULT] interface_driver, [DEFAULT] local_ip, [DEFAULT] metadata_port, [DEFAULT] router_id, [DEFAULT] use_namespaces",
	}
	if diff := cmp.Diff(want, warnings); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
	n := c.NetworkConfig()
	if diff := cmp.Diff([]network.IDRange{{First: 1, Last: 1000}}, n.TunnelRanges["gre"]); diff != "" {
		t.Errorf("GRE ids:\n%s", diff)
	}
	if n.AllowOverlappingIPs || c.Database != "sqlite:////var/lib/planck/planck.db" {
		t.Errorf("allow_overlapping_ips %v, database %s", n.AllowOverlappingIPs, c.Database)
	}
}

// Whoever copies a file out of the documents gets what it says.
func TestFilesOfTheDocumentsAreReadAsTheyStand(t *testing.T) {
	for doc, after := range map[string]string{"cluster.md": "### A whole configuration", "install-openstack.md": "## 2. planck.conf"} {
		text, err := os.ReadFile("../../docs/" + doc)
		if err != nil {
			t.Fatal(err)
		}
		_, rest, found := strings.Cut(string(text), after)
		blocks := strings.SplitN(rest, "```", 3)
		if !found || len(blocks) < 3 {
			t.Fatalf("docs/%s has no file after %q", doc, after)
		}
		c, warnings := load(t, strings.TrimPrefix(blocks[1], "ini"))
		if len(warnings) > 0 || c.AuthStrategy != "keystone" {
			t.Errorf("docs/%s: %q, %s", doc, warnings, c.AuthStrategy)
		}
		if doc == "cluster.md" && (c.ClusterName != "member2" || c.ClusterAdvertise != "192.0.2.12") {
			t.Errorf("docs/%s: member %q at %q", doc, c.ClusterName, c.ClusterAdvertise)
		}
	}
}

func TestLaterFilesWinAndFlagsWinOverAll(t *testing.T) {
	first := configFile(t, "a.conf", "bind_host = 127.0.0.2\nbind_port=1000\ndebug = True\n[openflow]\nlisten = :1\n[ovsdb]\nlisten = :2\n")
	second := configFile(t, "b.conf", "[DEFAULT]\nbind_port = 2000\ndebug = no\n[OpenFlow]\nlisten = 10.0.0.1:3\n")
	c, _, err := LoadConfig([]string{first, second}, map[string]string{"ovsdb-listen": ":4", "database": "postgresql://h/d"})
	if err != nil {
		t.Fatal(err)
	}
	if c.APIListen() != "127.0.0.2:2000" || c.OpenFlowListen != "10.0.0.1:3" || c.OVSDBListen != ":4" || c.LogLevel != slog.LevelInfo {
		t.Errorf("%s %s %s %s", c.APIListen(), c.OpenFlowListen, c.OVSDBListen, c.LogLevel)
	}
	c, _, err = LoadConfig([]string{first, second}, map[string]string{"api-listen": "[::1]:99", "log-level": "error"})
	if err != nil || c.APIListen() != "[::1]:99" || c.LogLevel != slog.LevelError {
		t.Errorf("%v %v", c, err)
	}
}

func TestAFlagGoesBeforeMySQLInAFileWhichIsAWarningAnyway(t *testing.T) {
	file := configFile(t, "a.conf", "[database]\nconnection = mysql://u:secret@h/q\n")
	c, warnings, err := LoadConfig([]string{file}, map[string]string{"database": "postgresql+psycopg2://u:p@h/d?sslmode=disable"})
	if err != nil || c.Database != "postgresql://u:p@h/d?sslmode=disable" {
		t.Errorf("%v %v", c, err)
	}
	if len(warnings) != 1 || !strings.Contains(warnings[0], "a.conf:2: ") || !strings.Contains(warnings[0], "PostgreSQL") ||
		!strings.HasSuffix(warnings[0], "--database is used") || strings.Contains(warnings[0], "secret") {
		t.Errorf("warnings %q", warnings)
	}
	_, _, err = LoadConfig(nil, map[string]string{"database": "mysql://u:secret@h/q"})
	if err == nil || !strings.Contains(err.Error(), "PostgreSQL") || strings.Contains(err.Error(), "secret") {
		t.Errorf("--database mysql://: %v", err)
	}
}

func TestABadValueInAFileIsAnErrorAlsoWhenAFlagGoesBeforeIt(t *testing.T) {
	file := configFile(t, "a.conf", "[openflow]\nlisten = nowhere\n")
	_, _, err := LoadConfig([]string{file}, map[string]string{"openflow-listen": ":6653"})
	if err == nil || !strings.Contains(err.Error(), "a.conf:2: [openflow] listen") {
		t.Errorf("got %v", err)
	}
}

func TestSQLConnectionIsKnownInEverySection(t *testing.T) {
	for _, section := range []string{"DATABASE", "database", "DEFAULT"} {
		c, warnings := load(t, "["+section+"]\nsql_connection = postgresql://u@h/d\n")
		if c.Database != "postgresql://u@h/d" || len(warnings) > 0 {
			t.Errorf("[%s]: %s %v", section, c.Database, warnings)
		}
	}
	c, _ := load(t, "sql_connection = postgresql://u@h/d\n[database]\nconnection = mysql://h/d\n")
	if c.Database != "sqlite:////var/lib/planck/planck.db" {
		t.Errorf("MySQL after PostgreSQL: %s", c.Database)
	}
	for _, url := range []string{"sqlite://", "sqlite:///:memory:", "mysql+pymysql://u:secret@h/q"} {
		c, warnings := load(t, "[database]\nconnection = "+url+"\n")
		if c.Database != "sqlite:////var/lib/planck/planck.db" || len(warnings) != 1 || !strings.Contains(warnings[0], "planck.conf:2: ") ||
			strings.Contains(warnings[0], "secret") {
			t.Errorf("%s: %s %q", url, c.Database, warnings)
		}
	}
}

func TestUnknownOptionsAreWarningsWithFileAndLine(t *testing.T) {
	_, warnings := load(t, "# one\n[DEFAULT]\nbind_prot = 1\nbind_port = 2\n\n[OVS]\n  \ntunnel_ranges = 1:2\n[nonsense]\nx: y\nx = z\n")
	var got []string
	for _, w := range warnings {
		got = append(got, filepath.Base(w))
	}
	want := []string{"planck.conf:3: unknown option [DEFAULT] bind_prot", "planck.conf:8: unknown option [OVS] tunnel_ranges",
		"planck.conf:11: unknown option [nonsense] x"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestBadValuesAreErrorsWithFileLineSectionAndOption(t *testing.T) {
	tests := map[string]string{
		"bind_port = many":                                      `planck.conf:2: [DEFAULT] bind_port: "many" is not an integer`,
		"bind_port =":                                           `planck.conf:2: [DEFAULT] bind_port: "" is not an integer`,
		"bind_port = -1":                                        `planck.conf:2: [DEFAULT] bind_port: -1 is below 0`,
		"bind_port = 70000":                                     `planck.conf:2: [DEFAULT] bind_port: 70000 is above 65535`,
		"debug = perhaps":                                       `planck.conf:2: [DEFAULT] debug: "perhaps" is neither True nor False`,
		"auth_strategy = open":                                  `planck.conf:2: [DEFAULT] auth_strategy: "open" is not one of keystone, noauth`,
		"base_mac = fa:16:3e":                                   `planck.conf:2: [DEFAULT] base_mac: "fa:16:3e" is not a MAC address`,
		"base_mac = ff:16:3e:00:00:00":                          `planck.conf:2: [DEFAULT] base_mac: ff:16:3e:00:00:00 is a multicast address`,
		"log_format = xml":                                      `planck.conf:2: [DEFAULT] log_format: "xml" is neither text nor json`,
		"max_fixed_ips_per_port = 0":                            `planck.conf:2: [DEFAULT] max_fixed_ips_per_port: 0 is below 1`,
		"dhcp_lease_duration = 1h":                              `planck.conf:2: [DEFAULT] dhcp_lease_duration: "1h" is not a number of seconds`,
		"dhcp_lease_duration = 0":                               `planck.conf:2: [DEFAULT] dhcp_lease_duration: 0 is no lease`,
		"pagination_max_limit = 0":                              `planck.conf:2: [DEFAULT] pagination_max_limit: "0" is neither a number nor "infinite"`,
		"[openflow]\nlisten = 6653":                             `planck.conf:3: [openflow] listen: "6653" is not host:port`,
		"[openflow]\nlisten = :http":                            `planck.conf:3: [openflow] listen: ":http": the port is not a number`,
		"[ovsdb]\nlisten = a/b:1":                               `planck.conf:3: [ovsdb] listen: "a/b:1": bad host`,
		"[openflow]\nadvertise = h:1":                           `planck.conf:3: [openflow] advertise: "h:1" is neither an address nor a host name`,
		"[openflow]\nadvertise = 0.0.0.0":                       `planck.conf:3: [openflow] advertise: "0.0.0.0" is not an address`,
		"[openflow]\narp_responder = on":                        `planck.conf:3: [openflow] arp_responder: "on" is not one of cached, packet-in, proactive`,
		"[openflow]\npunt_rate_per_port = -5":                   `planck.conf:3: [openflow] punt_rate_per_port: -5 is below 0`,
		"[openflow]\naudit_interval = -5":                       `planck.conf:3: [openflow] audit_interval: it must be above 0`,
		"[openflow]\ncert = /x":                                 `planck.conf:3: [openflow] cert: cert, key and ca go together`,
		"[OVS]\ntenant_network_type = flat":                     `planck.conf:3: [OVS] tenant_network_type: "flat" is not one of local, vlan, gre, vxlan, geneve`,
		"[ovs]\ntenant_network_types = gre,gre":                 `planck.conf:3: [ovs] tenant_network_types: "gre" is there twice`,
		"[OVS]\ntunnel_id_ranges = 1-5":                         `planck.conf:3: [OVS] tunnel_id_ranges: "1-5" is not min:max`,
		"[OVS]\ntunnel_id_ranges = 5:1":                         `planck.conf:3: [OVS] tunnel_id_ranges: "5:1": the lower end is above the upper one`,
		"[OVS]\ntunnel_id_ranges = 0:1":                         `planck.conf:3: [OVS] tunnel_id_ranges: "0:1": outside 1 to 4294967295`,
		"[OVS]\nvni_ranges = 1:16777216":                        `planck.conf:3: [OVS] vni_ranges: "1:16777216": outside 1 to 16777215`,
		"[OVS]\nvni_ranges = a:1":                               `planck.conf:3: [OVS] vni_ranges: "a:1": the lower end is not a number`,
		"[OVS]\nnetwork_vlan_ranges = p:1":                      `planck.conf:3: [OVS] network_vlan_ranges: "p:1" is not physical_network`,
		"[OVS]\nnetwork_vlan_ranges = p:1:4095":                 `planck.conf:3: [OVS] network_vlan_ranges: "p:1:4095": outside 1 to 4094`,
		"[OVS]\nnetwork_vlan_ranges = :1:2":                     `planck.conf:3: [OVS] network_vlan_ranges: ":1:2" is not physical_network`,
		"[OVS]\ntunnel_types = stt":                             `planck.conf:3: [OVS] tunnel_types: "stt" is not one of gre, vxlan, geneve`,
		"[OVS]\nenable_tunneling=no\ntenant_network_type=gre":   `planck.conf:4: [OVS] tenant_network_type: networks of tenants of type gre (tenant_network_types) need gre tunnels`,
		"[OVS]\ntunnel_types = gre\ntenant_network_types=vxlan": `planck.conf:4: [OVS] tenant_network_types: networks of tenants of type vxlan`,
		"[database]\nconnection = oracle://u:secret@h":          `planck.conf:3: [database] connection: "oracle" is not a database that is supported`,
		"bind_host = 0.0.0.0":                                   `planck.conf:2: [DEFAULT] bind_host: auth_strategy (--auth-strategy) must be given`,
		"auth_strategy = keystone":                              `planck.conf:2: [DEFAULT] auth_strategy: keystone needs [keystone_authtoken] auth_url, username, password, project_name`,
		"[keystone_authtoken]\nauth_type = v2token":             `planck.conf:3: [keystone_authtoken] auth_type: "v2token" is not one of password, v3password`,
		"[QUOTAS]\nquota_driver = quantum.quota.MyDriver":       `planck.conf:3: [QUOTAS] quota_driver: "quantum.quota.MyDriver" is not a ConfDriver`,
		"[keystone_authtoken]\nauth_port = https":               `planck.conf:3: [keystone_authtoken] auth_port: "https" is not an integer`,
		"[openflow]\nkey = /x\nca = /y":                         `planck.conf:3: [openflow] key: cert, key and ca go together`,
		"[OVS]\npath_mtu = 100":                                 `planck.conf:3: [OVS] path_mtu: 100 is below 576`,
		"[database]\nconnection = here":                         `planck.conf:3: [database] connection: not a database URL`,
		"[database]\nconnection = sqlite:///":                   `planck.conf:3: [database] connection: sqlite needs a file`,
		"[database]\nconnection = postgresql://u:secret@%zz/d":  `planck.conf:3: [database] connection: malformed PostgreSQL URL`,
	}
	for text, want := range tests {
		t.Run(text, func(t *testing.T) {
			_, _, err := LoadConfig([]string{configFile(t, "planck.conf", "[DEFAULT]\n"+text+"\n")}, nil)
			if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(want, "planck.conf:") || strings.Contains(err.Error(), "secret") {
				t.Errorf("got %v, want %s", err, want)
			}
		})
	}
}

func TestAllBadValuesAreToldAtOnce(t *testing.T) {
	_, _, err := LoadConfig([]string{configFile(t, "planck.conf", "bind_port = a\ndebug = b\n")}, map[string]string{"ovsdb-listen": "c", "nonsense": ""})
	for _, want := range []string{"bind_port", "debug", "--ovsdb-listen", "--nonsense: unknown flag"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing: %v", want, err)
		}
	}
}

func TestFilesThatAreNoINIFilesAreErrorsWithTheLine(t *testing.T) {
	tests := map[string]string{
		"[DEFAULT]\nbind_port = 1\nwhat is this secret\n": "planck.conf:3: neither [section] nor name = value",
		"\n= secret\n":        "planck.conf:2: a value without a name",
		"a = 1\n[open\n":      "planck.conf:2: a section without its closing bracket",
		"[]\n":                "planck.conf: a section without a name",
		"a = `secret\n":       "planck.conf: a quotation mark that is not closed",
		"bind_port = 1\x00\n": "planck.conf: not a text file",
	}
	for text, want := range tests {
		_, _, err := LoadConfig([]string{configFile(t, "planck.conf", text)}, nil)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: got %v, want %s", text, err, want)
		}
	}
	if _, _, err := LoadConfig([]string{"/nonexistent/planck.conf"}, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
}

func TestPolicyFileIsBesideTheFileThatNamesIt(t *testing.T) {
	path := configFile(t, "planck.conf", "[oslo_policy]\npolicy_file = policy.json\n")
	c, _, err := LoadConfig([]string{path}, nil)
	if want := filepath.Join(filepath.Dir(path), "policy.json"); err != nil || c.PolicyFile != want {
		t.Errorf("%s, %v; want %s", c.PolicyFile, err, want)
	}
	c, _, err = LoadConfig([]string{path}, map[string]string{"policy-file": "here.json"})
	if err != nil || c.PolicyFile != "here.json" {
		t.Errorf("by the flag: %s, %v", c.PolicyFile, err)
	}
}

func TestSyntaxOfOsloFiles(t *testing.T) {
	c, warnings := load(t, `
bind_host : 127.0.0.9
policy_file = /etc/a policy # with all of this.json
[OVS]
network_vlan_ranges = physnet1:100:199,
    physnet1:300:399,
	physnet2
; comment
# tenant_network_type = local
tenant_network_type = "vlan"
[ ml2_type_flat ]
flat_networks = physnet3, physnet2
`)
	if len(warnings) != 0 {
		t.Error(warnings)
	}
	if c.BindHost != "127.0.0.9" || c.PolicyFile != "/etc/a policy # with all of this.json" {
		t.Errorf("bind_host %q, policy_file %q", c.BindHost, c.PolicyFile)
	}
	n := c.NetworkConfig()
	want := map[string][]network.IDRange{"physnet1": {{First: 100, Last: 199}, {First: 300, Last: 399}}, "physnet2": nil, "physnet3": nil}
	if diff := cmp.Diff(want, n.VLANRanges); diff != "" {
		t.Errorf("VLAN ranges (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"vlan"}, n.TenantNetworkTypes); diff != "" {
		t.Errorf("tenant types (-want +got):\n%s", diff)
	}
}

func TestTypesOfTenantNetworksAgreeWithTunnels(t *testing.T) {
	tests := []struct {
		text    string
		tenant  []string
		tunnels int
	}{
		{"", []string{"gre"}, 3},
		{"tenant_network_types = vxlan, vlan,geneve", []string{"vxlan", "vlan", "geneve"}, 3},
		{"tenant_network_type = none", nil, 3},
		{"enable_tunneling = False", []string{"local"}, 0},
		{"enable_tunneling = False\nnetwork_vlan_ranges = p", []string{"local"}, 0},
		{"enable_tunneling = False\nnetwork_vlan_ranges = p:1:9", []string{"vlan"}, 0},
		{"tunnel_types = vxlan\ntenant_network_types = vxlan", []string{"vxlan"}, 1},
		{"tunnel_types = geneve,vxlan", []string{"geneve"}, 2},
		{"tunnel_types = vxlan,gre", []string{"gre"}, 2},
	}
	for _, test := range tests {
		c, _ := load(t, "[OVS]\n"+test.text+"\n")
		n := c.NetworkConfig()
		if diff := cmp.Diff(test.tenant, n.TenantNetworkTypes); diff != "" || len(n.TunnelRanges) != test.tunnels {
			t.Errorf("%s: tunnels %v, tenant types (-want +got):\n%s", test.text, n.TunnelRanges, diff)
		}
	}
}

func TestNoAuthenticationMustBeAskedForBeyondLoopback(t *testing.T) {
	for _, listen := range []string{"127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1"} {
		if c, _, err := LoadConfig(nil, map[string]string{"api-listen": listen}); err != nil || c.AuthStrategy != "noauth" {
			t.Errorf("%s: %v", listen, err)
		}
	}
	for _, listen := range []string{":9696", "0.0.0.0:1", "10.0.0.1:1", "controller:1", "[::]:1"} {
		_, _, err := LoadConfig(nil, map[string]string{"api-listen": listen})
		if err == nil || !strings.Contains(err.Error(), "auth_strategy (--auth-strategy) must be given") {
			t.Errorf("%s: %v", listen, err)
		}
		if _, _, err := LoadConfig(nil, map[string]string{"api-listen": listen, "auth-strategy": "noauth"}); err != nil {
			t.Errorf("%s with noauth: %v", listen, err)
		}
	}
}

func TestVariablesAreReplaced(t *testing.T) {
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	file := configFile(t, "planck.conf", "state_path = /srv/$name\nname = p$$1\nlog_dir = ${state_path}/log\nlog_file = $host-%(bind_port)s$unknown.log\n"+
		"[database]\nconnection = sqlite:///$state_path/x.db\n[openflow]\ncert = $key\nkey = $cert\nca = $a\na = $b$b\nb = $a$a$a\n")
	c, _, err := LoadConfig([]string{file}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if want := "/srv/p$1/log/" + host + "-9696$unknown.log"; c.LogFile != want {
		t.Errorf("log_file %s, want %s", c.LogFile, want)
	}
	if c.Database != "sqlite:////srv/p$1/x.db" {
		t.Errorf("connection %s", c.Database)
	}
	c, _, err = LoadConfig([]string{file}, map[string]string{"state-dir": "/flag"})
	if err != nil || c.Database != "sqlite:////flag/x.db" {
		t.Errorf("with --state-dir: %s %v", c.Database, err)
	}
}

func TestLogOptions(t *testing.T) {
	tests := []struct{ text, level, format, file string }{
		{"", "INFO", "text", ""},
		{"verbose = True", "INFO", "text", ""},
		{"debug = true\nlog_format = json", "DEBUG", "json", ""},
		{"log_dir = /var/log/planck", "INFO", "text", "/var/log/planck/planck.log"},
		{"log_dir = /var/log\nlog_file = p.log", "INFO", "text", "/var/log/p.log"},
		{"log_dir = /var/log\nlog_file = /p.log", "INFO", "text", "/p.log"},
		{"log_file =\nlog_dir =\n", "INFO", "text", ""},
		{"log_format = %(asctime)s %(levelname)8s [%(name)s] %(message)s", "INFO", "text", ""},
	}
	for _, test := range tests {
		c, _ := load(t, test.text)
		if got := fmt.Sprint(c.LogLevel, c.LogFormat, c.LogFile); got != fmt.Sprint(test.level, test.format, test.file) {
			t.Errorf("%s: %s", test.text, got)
		}
	}
	_, warnings := load(t, "log_format = %(asctime)s %(levelname)8s [%(name)s] %(message)s\nuse_syslog = True\n")
	if diff := cmp.Diff([]string{"ignored, without a meaning here: [DEFAULT] log_format, [DEFAULT] use_syslog"}, warnings); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestNumbersWithMeanings(t *testing.T) {
	c, _ := load(t, "dhcp_lease_duration = -1\npagination_max_limit = infinite\nglobal_physnet_mtu = 9000\ndhcp_domain = example.org\n[ml2]\npath_mtu = 8950\n")
	if c.DHCPLeaseDuration >= 0 || c.PaginationMaxLimit != 0 || c.DNSDomain != "example.org" {
		t.Errorf("%v", c)
	}
	if n := c.NetworkConfig(); n.GlobalPhysnetMTU != 9000 || n.PathMTU != 8950 {
		t.Errorf("%v", n)
	}
}

func TestFlagsOfTheCommandLine(t *testing.T) {
	fs := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	fs.String("other", "", "")
	addConfigFlags(fs)
	file := configFile(t, "a.conf", "bind_port = 5\n[ovsdb]\nlisten = :7\n")
	err := fs.Parse([]string{"--config-file", file, "--other=x", "--config-file=" + file, "--ovsdb-listen=:8", "--advertise", "10.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	c, _, err := configFromFlags(fs)
	if err != nil || c.APIListen() != "127.0.0.1:5" || c.OVSDBListen != ":8" || c.Advertise != "10.0.0.1" {
		t.Errorf("%v %v", c, err)
	}
	for _, name := range []string{"api-listen", "openflow-listen", "ovsdb-listen", "advertise", "database", "state-dir",
		"auth-strategy", "policy-file", "log-level", "log-format"} {
		if fs.Lookup(name) == nil {
			t.Errorf("--%s is missing", name)
		}
	}
}

// FuzzConfigFile looks for files that the reader cannot bear, and checks that
// every complaint says where.
func FuzzConfigFile(f *testing.F) {
	for _, name := range []string{"quantum.conf", "ovs_quantum_plugin.ini", "l3_agent.ini"} {
		data, err := os.ReadFile(filepath.Join("testdata", "guide", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte("[a\n]=b\n"))
	f.Add([]byte("ca = $a\na = $b$b\nb = $a$a\n"))
	f.Add([]byte("x = \"\"\"y\nz\"\"\"\n`k` = v\n- = 1\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, err := readINI("file", data)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "file") {
				t.Fatalf("error without the file: %v", err)
			}
			return
		}
		_, warnings, err := newConfig(entries, nil)
		for _, w := range warnings {
			if !strings.HasPrefix(w, "file") && !strings.HasPrefix(w, "ignored, ") && !strings.HasPrefix(w, "accepted, ") {
				t.Fatalf("warning without the file: %s", w)
			}
		}
		if err == nil {
			return
		}
		for line := range strings.Lines(err.Error()) {
			if !strings.HasPrefix(line, "file") && !strings.Contains(err.Error(), "\\n") {
				t.Fatalf("error that does not name the file: %s", line)
			}
		}
	})
}
