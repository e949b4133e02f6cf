package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// parseLine parses a command line without quotes.
func parseLine(t *testing.T, line string) (*arguments, error) {
	t.Helper()
	words := strings.Fields(line)
	cmd := allCommands()[words[0]]
	if cmd == nil {
		t.Fatalf("no command %s", words[0])
	}
	least, most := cmd.counts()
	return parseArgs(cmd.known(), least, most, words[1:])
}

type m = map[string]any

func TestCommandLinesOfTheGuideParse(t *testing.T) {
	tests := []struct {
		line        string
		positionals string
		given       map[string]string
		extras      m
	}{
		{line: "net-create net1", positionals: "net1"},
		{line: "net-create net1 --tenant_id=T", positionals: "net1", given: map[string]string{"tenant-id": "T"}},
		{line: "net-create public-net --shared True", positionals: "public-net", given: map[string]string{"shared": "true"}},
		{line: "net-create public-net --shared", positionals: "public-net", given: map[string]string{"shared": "true"}},
		{line: "net-create --shared=False public-net", positionals: "public-net", given: map[string]string{"shared": "false"}},
		{line: "net-create X --tenant_id T --provider:network_type vlan --provider:physical_network physnet1 --provider:segmentation_id 101",
			positionals: "X", given: map[string]string{"tenant-id": "T"},
			extras: m{"provider:network_type": "vlan", "provider:physical_network": "physnet1", "provider:segmentation_id": "101"}},
		{line: "net-create public --router:external=True", positionals: "public", extras: m{"router:external": "True"}},
		{line: "net-create --router:external=True public", positionals: "public", extras: m{"router:external": "True"}},
		{line: "net-create public --router:external", positionals: "public", extras: m{"router:external": true}},
		{line: "subnet-create net1 10.0.0.0/24", positionals: "net1 10.0.0.0/24"},
		{line: "subnet-create --gateway 10.0.0.254 net1 10.0.0.0/24", positionals: "net1 10.0.0.0/24", given: map[string]string{"gateway": "10.0.0.254"}},
		{line: "subnet-create net1 10.0.0.0/24 --gateway 10.0.0.254", positionals: "net1 10.0.0.0/24", given: map[string]string{"gateway": "10.0.0.254"}},
		{line: "subnet-create --no-gateway net1 10.0.0.0/24", positionals: "net1 10.0.0.0/24", given: map[string]string{"no-gateway": "true"}},
		{line: "subnet-create --no_gateway net1 10.0.0.0/24", positionals: "net1 10.0.0.0/24", given: map[string]string{"no-gateway": "true"}},
		{line: "subnet-create net1 10.0.0.0/24 --enable_dhcp False", positionals: "net1 10.0.0.0/24", extras: m{"enable_dhcp": "False"}},
		{line: "subnet-create test-net1 40.0.0.0/24 --host_routes type=dict list=true destination=40.0.1.0/24,nexthop=40.0.0.2",
			positionals: "test-net1 40.0.0.0/24", extras: m{"host_routes": []any{m{"destination": "40.0.1.0/24", "nexthop": "40.0.0.2"}}}},
		{line: "subnet-create test-net1 40.0.0.0/24 --dns_nameservers list=true 8.8.8.7 8.8.8.8",
			positionals: "test-net1 40.0.0.0/24", extras: m{"dns_nameservers": []any{"8.8.8.7", "8.8.8.8"}}},
		{line: "subnet-create --dns_nameservers list=true 8.8.8.7 8.8.8.8 test-net1 40.0.0.0/24",
			positionals: "test-net1 40.0.0.0/24", extras: m{"dns_nameservers": []any{"8.8.8.7", "8.8.8.8"}}},
		{line: "net-create --provider:network_type local X", positionals: "X", extras: m{"provider:network_type": "local"}},
		{line: "port-create --fixed-ip subnet_id=S,ip_address=192.168.57.101 net1", positionals: "net1",
			given: map[string]string{"fixed-ip": "subnet_id=S,ip_address=192.168.57.101"}},
		{line: "port-list -- --device_id=V", extras: m{"device_id": "V"}},
		{line: "port-list -c mac_address -- --device_id=V", given: map[string]string{"column": "mac_address"}, extras: m{"device_id": "V"}},
		{line: "port-list -c id -c fixed_ips -- --device_id=V", given: map[string]string{"column": "id fixed_ips"}, extras: m{"device_id": "V"}},
		{line: "port-list -cid --device_id V", given: map[string]string{"column": "id"}, extras: m{"device_id": "V"}},
		{line: "port-list -- --network_id N", extras: m{"network_id": "N"}},
		{line: "net-list -- --router:external=True", extras: m{"router:external": "True"}},
		{line: "port-update P --admin_state_up=False", positionals: "P", extras: m{"admin_state_up": "False"}},
		{line: "port-update P --admin_state_up type=bool False", positionals: "P", extras: m{"admin_state_up": false}},
		{line: "port-update P -- --admin-state-up False", positionals: "P", extras: m{"admin_state_up": "False"}},
		{line: "subnet-update S --gateway_ip action=clear", positionals: "S", extras: m{"gateway_ip": nil}},
		{line: "subnet-update S --dns_nameservers list=true", positionals: "S", extras: m{"dns_nameservers": []any{}}},
		{line: "port-update P --x type=int 5 -7 --y type=float 1.5", positionals: "P", extras: m{"x": []any{int64(5), int64(-7)}, "y": 1.5}},
		{line: "floatingip-create --port_id P ext", positionals: "ext", given: map[string]string{"port-id": "P"}},
		{line: "net-list -F id --field name -D -P 20 --sort-key name --sort-dir desc",
			given: map[string]string{"field": "id name", "show-details": "true", "page-size": "20", "sort-key": "name", "sort-dir": "desc"}},
		{line: "net-show -f json net1 --os-url http://h:1", positionals: "net1", given: map[string]string{"format": "json", "os-url": "http://h:1"}},
		{line: "port-delete a b c", positionals: "a b c"},
	}
	for _, test := range tests {
		t.Run(test.line, func(t *testing.T) {
			args, err := parseLine(t, test.line)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(args.positionals, " "); got != test.positionals {
				t.Errorf("positionals %q, want %q", got, test.positionals)
			}
			given := map[string]string{}
			for name, values := range args.given {
				given[name] = strings.Join(values, " ")
			}
			if test.given == nil {
				test.given = map[string]string{}
			}
			if diff := cmp.Diff(test.given, given); diff != "" {
				t.Errorf("options (-want +got):\n%s", diff)
			}
			extras := m{}
			for _, e := range args.extras {
				extras[e.attr] = e.value
			}
			if test.extras == nil {
				test.extras = m{}
			}
			if diff := cmp.Diff(test.extras, extras); diff != "" {
				t.Errorf("extras (-want +got):\n%s", diff)
			}
		})
	}
}

func TestMistakesInCommandLinesAreUsageErrors(t *testing.T) {
	tests := map[string]string{
		"net-create":                          "too few arguments",
		"subnet-create net1":                  "too few arguments",
		"net-create a b":                      "unrecognized arguments: b",
		"net-show":                            "too few arguments",
		"net-create a --shared=maybe":         "neither True nor False",
		"net-create a --tenant-id":            "expected one argument",
		"net-list -f xml":                     "invalid choice",
		"net-show n -f csv":                   "invalid choice",
		"subnet-create n c --ip-version 5":    "invalid choice",
		"net-list -- foo":                     "invalid values_specs foo",
		"net-list -- --a=1 b":                 "invalid values_specs b",
		"net-list -- --a 1 -x":                "invalid values_specs -x",
		"net-list --a 1 --a 2":                "duplicated options --a",
		"net-list ---a":                       "invalid values_specs ---a",
		"net-update n --a type=int x":         "invalid int value",
		"net-update n --a type=dict x":        "expected key1=value1",
		"net-update n --a type=os.system x":   "unknown type",
		"net-list -x":                         "unknown option -x",
		"net-list --request-format xml":       "invalid choice",
		"net-update n --a type=float 1.x":     "invalid float value",
		"port-create n --fixed-ip --mac-addr": "expected one argument",
	}
	for line, want := range tests {
		t.Run(line, func(t *testing.T) {
			_, err := parseLine(t, line)
			var usage *usageError
			if !errors.As(err, &usage) || !strings.Contains(err.Error(), want) {
				t.Fatalf("got %v, want a usage error with %q", err, want)
			}
		})
	}
}

// FuzzParseArgs looks for command lines that the parser cannot bear.
func FuzzParseArgs(f *testing.F) {
	for _, line := range []string{
		"net1 --host_routes type=dict list=true destination=40.0.1.0/24,nexthop=40.0.0.2",
		"-c id -- --device_id=V", "--shared True", "-vv -", "--= --a action=clear", "-c=x -F", "-1 --x -1",
	} {
		f.Add(line)
	}
	known := allCommands()["subnet-create"].known()
	f.Fuzz(func(t *testing.T, line string) {
		words := strings.Split(line, " ")
		args, err := parseArgs(known, 1, 2, words)
		if err != nil {
			return
		}
		if n := len(args.positionals); n < 1 || n > 2 {
			t.Fatalf("%d positionals from %q", n, words)
		}
	})
}
