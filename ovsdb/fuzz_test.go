package ovsdb

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/ovn-kubernetes/libovsdb/cache"
	"github.com/ovn-kubernetes/libovsdb/client"
	"github.com/ovn-kubernetes/libovsdb/model"
	"github.com/ovn-kubernetes/libovsdb/ovsdb"

	"planck/network"
	"planck/ovsdb/vswitch"
)

// hostRows are the rows of a host as its switch tells them, after the join.
const hostRows = `{
 "Open_vSwitch": {"00000000-0000-4000-8000-000000000001": {"initial": {
  "bridges": ["set", [["uuid", "00000000-0000-4000-8000-000000000010"], ["uuid", "00000000-0000-4000-8000-000000000011"], ["uuid", "00000000-0000-4000-8000-000000000012"]]],
  "external_ids": ["map", [["hostname", "h1"], ["system-id", "s1"], ["planck-local-ip", "10.250.0.1"], ["planck-bridge-mappings", "physnet1:br-ex"], ["planck-datapath-type", "netdev"]]],
  "manager_options": ["uuid", "00000000-0000-4000-8000-000000000002"], "cur_cfg": 3, "next_cfg": 3, "ovs_version": "3.1.0"}}},
 "Manager": {"00000000-0000-4000-8000-000000000002": {"initial": {"target": "tcp:10.0.0.1:6640"}}},
 "Controller": {"00000000-0000-4000-8000-000000000003": {"initial": {"target": "tcp:10.0.0.1:6653", "connection_mode": "in-band", "external_ids": ["map", [["planck", "controller"]]]}}},
 "Bridge": {
  "00000000-0000-4000-8000-000000000010": {"initial": {"name": "br-int", "datapath_id": "INT", "datapath_type": "netdev", "fail_mode": "secure",
   "ports": ["set", [["uuid", "00000000-0000-4000-8000-000000000020"], ["uuid", "00000000-0000-4000-8000-000000000021"], ["uuid", "00000000-0000-4000-8000-000000000022"]]]}},
  "00000000-0000-4000-8000-000000000011": {"initial": {"name": "br-tun", "datapath_id": "TUN", "datapath_type": "netdev",
   "ports": ["set", [["uuid", "00000000-0000-4000-8000-000000000023"], ["uuid", "00000000-0000-4000-8000-000000000024"]]]}},
  "00000000-0000-4000-8000-000000000012": {"initial": {"name": "br-ex", "datapath_id": "00000000000000ee", "datapath_type": "netdev", "protocols": ["set", ["OpenFlow10", "OpenFlow13"]],
   "controller": ["uuid", "00000000-0000-4000-8000-000000000003"],
   "ports": ["set", [["uuid", "00000000-0000-4000-8000-000000000025"], ["uuid", "00000000-0000-4000-8000-000000000026"]]]}}},
 "Port": {
  "00000000-0000-4000-8000-000000000020": {"initial": {"name": "patch-tun", "interfaces": ["uuid", "00000000-0000-4000-8000-000000000030"], "external_ids": ["map", [["planck", "patch"]]]}},
  "00000000-0000-4000-8000-000000000021": {"initial": {"name": "int-br-ex", "interfaces": ["uuid", "00000000-0000-4000-8000-000000000031"]}},
  "00000000-0000-4000-8000-000000000022": {"initial": {"name": "tap1", "interfaces": ["uuid", "00000000-0000-4000-8000-000000000032"]}},
  "00000000-0000-4000-8000-000000000023": {"initial": {"name": "patch-int", "interfaces": ["uuid", "00000000-0000-4000-8000-000000000033"]}},
  "00000000-0000-4000-8000-000000000024": {"initial": {"name": "planck-gre", "interfaces": ["uuid", "00000000-0000-4000-8000-000000000034"]}},
  "00000000-0000-4000-8000-000000000025": {"initial": {"name": "phy-br-ex", "interfaces": ["uuid", "00000000-0000-4000-8000-000000000035"]}},
  "00000000-0000-4000-8000-000000000026": {"initial": {"name": "eth1", "interfaces": ["uuid", "00000000-0000-4000-8000-000000000036"]}}},
 "Interface": {
  "00000000-0000-4000-8000-000000000030": {"initial": {"name": "patch-tun", "type": "patch", "ofport": 65024, "ofport_request": 65024, "options": ["map", [["peer", "patch-int"]]]}},
  "00000000-0000-4000-8000-000000000031": {"initial": {"name": "int-br-ex", "type": "patch", "ofport": 65025}},
  "00000000-0000-4000-8000-000000000032": {"initial": {"name": "tap1", "ofport": 5, "external_ids": ["map", [["iface-id", "00000000-0000-4000-8000-0000000000aa"], ["iface-status", "active"]]]}},
  "00000000-0000-4000-8000-000000000033": {"initial": {"name": "patch-int", "type": "patch", "ofport": 1}},
  "00000000-0000-4000-8000-000000000034": {"initial": {"name": "planck-gre", "type": "gre", "ofport": 2}},
  "00000000-0000-4000-8000-000000000035": {"initial": {"name": "phy-br-ex", "type": "patch", "ofport": 65024}},
  "00000000-0000-4000-8000-000000000036": {"initial": {"name": "eth1", "ofport": -1, "error": "no such device"}}}}`

// monitorReply is the answer to libovsdb's monitor with the rows of a host.
func monitorReply() string {
	rows := bytes.ReplaceAll([]byte(hostRows), []byte(`"INT"`), []byte(`"`+datapathID("h1", "s1", network.BridgeIntegration)+`"`))
	rows = bytes.ReplaceAll(rows, []byte(`"TUN"`), []byte(`"`+datapathID("h1", "s1", network.BridgeTunnel)+`"`))
	return `{"id": 3, "error": null, "result": [false, "00000000-0000-4000-8000-000000000000", ` + string(rows) + `]}`
}

func update3(rows string) string {
	return `{"method": "update3", "id": null, "params": [{"databaseName": "Open_vSwitch", "id": "m"}, "00000000-0000-4000-8000-0000000000ff", ` + rows + `]}`
}

// FuzzMessages plays a switch that says anything: what passes the splice must
// do no harm to libovsdb, and the facts that are read from its rows are such
// that the model takes them.
func FuzzMessages(f *testing.F) {
	schema, err := json.Marshal(vswitch.Schema())
	if err != nil {
		f.Fatal(err)
	}
	const tap = "00000000-0000-4000-8000-000000000032"
	f.Add([]byte(monitorReply()))
	f.Add([]byte(`{"id": 2, "error": null, "result": ` + string(schema) + `}` + monitorReply()))
	for _, rows := range []string{
		`{"Interface": {"` + tap + `": {"modify": {"ofport": 9, "external_ids": ["map", [["iface-status", "active"], ["iface-id", "x\u0000"]]]}}}}`,
		`{"Interface": {"` + tap + `": {"delete": null}}}`,
		`{"Port": {"00000000-0000-4000-8000-000000000022": {"modify": {"interfaces": ["set", []]}}}}`,
		`{"Open_vSwitch": {"00000000-0000-4000-8000-000000000001": {"modify": {"external_ids": ["map", [["planck-local-ip", "::ffff:1.2.3.4"], ["hostname", "h\u0000"]]]}}}}`,
	} {
		f.Add([]byte(monitorReply() + update3(rows)))
	}
	f.Add([]byte(`{"id": 2, "error": null, "result": {"name": "Open_vSwitch", "tables": {"Bridge": {"columns": {"name": {}}}}}}`))
	f.Add([]byte(`{"id": 4, "error": null, "result": [{"count": 1}, {"error": "constraint violation", "details": "x"}, null]}`))
	tables := hostModel(f)
	store, err := network.Open(f.Context(), "sqlite://"+filepath.Join(f.TempDir(), "planck.db"), network.DefaultConfig())
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { store.Close() })
	f.Fuzz(func(t *testing.T, stream []byte) {
		c := newRowCache(t, tables)
		s := &splice{cookies: map[cookie]bool{{"Open_vSwitch", "m"}: true}}
		if !bytes.Contains(stream, []byte(`"tables"`)) {
			s.schema = &tables.Schema
		}
		dec := json.NewDecoder(bytes.NewReader(stream))
		for {
			var raw json.RawMessage
			if dec.Decode(&raw) != nil || s.check(raw) != nil {
				break
			}
			c = feed(t, c, raw)
			_, _ = takeSnapshot(c)
		}
		readFacts(t, store, c)
	})
}

func hostModel(f *testing.F) model.DatabaseModel {
	f.Helper()
	tables, err := vswitch.FullDatabaseModel()
	if err != nil {
		f.Fatal(err)
	}
	full, errs := model.NewDatabaseModel(vswitch.Schema(), tables)
	if len(errs) > 0 {
		f.Fatal(errs)
	}
	return full
}

func newRowCache(t *testing.T, tables model.DatabaseModel) *cache.TableCache {
	t.Helper()
	log := logr.FromSlogHandler(slog.DiscardHandler)
	c, err := cache.NewTableCache(tables, nil, &log)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// feed gives a message to the parts of libovsdb that would get it, and returns
// the cache, which is a new one after a schema.
func feed(t *testing.T, c *cache.TableCache, raw []byte) *cache.TableCache {
	var m struct {
		Method string            `json:"method"`
		Params []json.RawMessage `json:"params"`
		Result json.RawMessage   `json:"result"`
	}
	if json.Unmarshal(raw, &m) != nil {
		return c
	}
	if m.Method == "" {
		return feedResponse(t, c, m.Result)
	}
	var u ovsdb.TableUpdates2
	if m.Method == "update3" && json.Unmarshal(m.Params[2], &u) == nil {
		_ = c.Update2(nil, u)
	}
	return c
}

func feedResponse(t *testing.T, c *cache.TableCache, result []byte) *cache.TableCache {
	var names []string
	_ = json.Unmarshal(result, &names)
	var outcome []ovsdb.OperationResult
	if json.Unmarshal(result, &outcome) == nil {
		_, _ = ovsdb.CheckOperationResults(outcome, make([]ovsdb.Operation, len(outcome)))
	}
	var rows ovsdb.MonitorCondSinceReply
	if json.Unmarshal(result, &rows) == nil {
		_ = c.Update2(nil, rows.Updates)
	}
	var schema ovsdb.DatabaseSchema
	if json.Unmarshal(result, &schema) != nil || schema.Name == "" {
		return c
	}
	if tables, ok := modelOf(t, schema); ok {
		return newRowCache(t, tables)
	}
	return c
}

// modelOf is what libovsdb does with a schema while it connects, where a
// connection is prepared for a panic.
func modelOf(t *testing.T, schema ovsdb.DatabaseSchema) (full model.DatabaseModel, ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	tables, err := vswitch.FullDatabaseModel()
	if err != nil {
		t.Fatal(err)
	}
	full, errs := model.NewDatabaseModel(schema, tables)
	return full, len(errs) == 0
}

// readFacts does with the rows what a connection does, and checks what comes out.
func readFacts(t *testing.T, store *network.Store, c *cache.TableCache) {
	t.Helper()
	s, err := takeSnapshot(c)
	if err != nil {
		return
	}
	want := &contract{settings: readSettings(s.root), target: "tcp:10.0.0.1:6653", serviceTarget: "tcp:10.0.0.1:06653", inBandWorks: true, makesPorts: true, tunnelTypes: tunnelTypes}
	if want.host == "" {
		return
	}
	want.difference(planned{}, s)
	var f facts
	now := time.Now()
	var r *reading
	for _, after := range []time.Duration{0, unplugGrace, settleGrace} {
		r = f.read(now.Add(after), want, s, nil, nil)
		checkFacts(t, r)
	}
	if r.host == nil || uniqueDatapaths(store.View(), r.host) != nil {
		return
	}
	_, err = store.Update(t.Context(), network.Cause{Operation: "host"}, func(tx *network.Tx) error {
		host := *r.host
		if err := tx.PutHost(&host); err != nil {
			return err
		}
		return tx.SyncVIFs(host.Name, slices.Clone(r.vifs))
	})
	if err != nil {
		t.Fatalf("the model does not take %+v %+v: %v", r.host, r.vifs, err)
	}
	if _, err := store.Update(t.Context(), network.Cause{}, func(tx *network.Tx) error { return tx.DeleteHost(r.host.Name) }); err != nil {
		t.Fatal(err)
	}
}

func checkFacts(t *testing.T, r *reading) {
	t.Helper()
	if r.again < 0 {
		t.Fatalf("look again after %v", r.again)
	}
	ports := map[string]bool{}
	for _, v := range r.vifs {
		if v.PortID == "" || v.OFPort == 0 || v.OFPort >= maxOFPort || ports[v.PortID] || v.Host == "" {
			t.Fatalf("VIFs %+v", r.vifs)
		}
		ports[v.PortID] = true
	}
	if r.host == nil {
		return
	}
	for name, b := range r.host.Bridges {
		if b.DatapathID == 0 {
			t.Fatalf("bridge %s of %+v", name, r.host)
		}
		for peer, port := range b.Patches {
			if port == 0 {
				t.Fatalf("patch port to %s of bridge %s of %+v", peer, name, r.host)
			}
		}
	}
}

// planned stands for the client for which a transaction is planned.
type planned struct{ client.Client }

func (planned) Create(...model.Model) ([]ovsdb.Operation, error) { return nil, nil }
func (planned) Where(...model.Model) client.ConditionalAPI       { return plannedRow{} }

type plannedRow struct{ client.ConditionalAPI }

func (plannedRow) Update(model.Model, ...any) ([]ovsdb.Operation, error)            { return nil, nil }
func (plannedRow) Mutate(model.Model, ...model.Mutation) ([]ovsdb.Operation, error) { return nil, nil }
