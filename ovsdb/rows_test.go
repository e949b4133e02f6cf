package ovsdb

import (
	"encoding/json"
	"flag"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"planck/network"
	"planck/ovsdb/vswitch"
)

// columnValues are values of a column as a switch may send them, right or wrong
// for its type. ID is one of rowIDs.
var columnValues = []string{
	`"br-int"`, `"br-tun"`, `"br-ex"`, `"patch-tun"`, `"patch-int"`, `"tap1"`, `""`, `"\u0000"`, `"00000000000000ee"`, `"zz"`, `"netdev"`, `"secure"`, `"patch"`,
	`1`, `5`, `65024`, `-1`, `0`, `1.5`, `1e999`, `99999999999999999999`, `true`, `null`, `{}`, `[]`, `["set", []]`, `["set", [1, 2]]`, `["set", ["a", "a"]]`, `["set", [["uuid", "ID"]]]`,
	`["uuid", "ID"]`, `["uuid", "ID"]`, `["set", [["uuid", "ID"], ["uuid", "ID"]]]`, `["set", [["uuid", "ID"], ["uuid", "ID"], 7]]`, `["uuid"]`, `["uuid", 3]`, `["named-uuid", "row1"]`,
	`["set", 3]`, `["set"]`, `["map", [["iface-id", "00000000-0000-4000-8000-0000000000aa"]]]`, `["map", [["iface-id", "x\u0000"], ["iface-status", "active"]]]`, `["map", [["a"]]]`, `["map", [[1, 2]]]`,
	`["map", {}]`, `["map", [["hostname", "h2"], ["planck-bridge-mappings", "physnet1:br-ex,physnet1:br-ex,:,x:br-int"]]]`, `["map", [["planck-local-ip", "fe80::1%eth0"]]]`,
	`["map", [["hostname", "h1"], ["system-id", "s1"], ["planck-local-ip", "::ffff:10.0.0.1"]]]`, `["map", [["planck", "controller"]]]`, `["set", [["set", []]]]`, `["set", [null]]`,
}

var rowIDs = []string{
	"00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000010", "00000000-0000-4000-8000-000000000012", "00000000-0000-4000-8000-000000000022",
	"00000000-0000-4000-8000-000000000032", "00000000-0000-4000-8000-000000000003", "00000000-0000-4000-8000-00000000beef", "x", "",
}

// TestAnyRowsDoNoHarm changes the rows of a host at random: what passes the
// splice must do no harm to libovsdb, and the model takes the facts.
// Random rows begin from one seed; -rapid.seed takes another one.
func init() {
	if err := flag.Set("rapid.seed", "1"); err != nil {
		panic(err)
	}
}

func TestAnyRowsDoNoHarm(t *testing.T) {
	store, err := network.Open(t.Context(), "sqlite://"+filepath.Join(t.TempDir(), "planck.db"), network.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	tables, ok := modelOf(t, vswitch.Schema())
	if !ok {
		t.Fatal("no model")
	}
	schema := vswitch.Schema()
	columns := map[string][]string{}
	for name, table := range schema.Tables {
		for column := range table.Columns {
			columns[name] = append(columns[name], column)
		}
		columns[name] = append(columns[name], "_uuid", "unknown")
		slices.Sort(columns[name])
	}
	rapid.Check(t, func(rt *rapid.T) {
		c := newRowCache(t, tables)
		s := &splice{cookies: map[cookie]bool{{"Open_vSwitch", "m"}: true}, schema: &schema}
		feed(t, c, []byte(monitorReply()))
		for range rapid.IntRange(1, 12).Draw(rt, "updates") {
			message := []byte(update3(anyRow(rt, columns)))
			if !json.Valid(message) {
				rt.Fatalf("%s", message)
			}
			if s.check(message) == nil {
				feed(t, c, message)
			}
			readFacts(t, store, c)
		}
	})
}

// anyRow is a change of one row.
func anyRow(rt *rapid.T, columns map[string][]string) string {
	table := rapid.SampledFrom([]string{"Open_vSwitch", "Bridge", "Bridge", "Port", "Interface", "Interface", "Controller", "Manager"}).Draw(rt, "table")
	kind := rapid.SampledFrom([]string{"modify", "modify", "modify", "insert", "initial", "delete", "MODIFY", "x"}).Draw(rt, "kind")
	var cells []string
	for range rapid.IntRange(0, 3).Draw(rt, "columns") {
		value := rapid.SampledFrom(columnValues).Draw(rt, "value")
		for strings.Contains(value, "ID") {
			value = strings.Replace(value, "ID", rapid.SampledFrom(rowIDs).Draw(rt, "reference"), 1)
		}
		cells = append(cells, fmt.Sprintf("%q: %s", rapid.SampledFrom(columns[table]).Draw(rt, "column"), value))
	}
	return fmt.Sprintf(`{%q: {%q: {%q: {%s}}}}`, table, rapid.SampledFrom(rowIDs).Draw(rt, "row"), kind, strings.Join(cells, ", "))
}
