package ovsdb

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"planck/network"
)

func TestSecondLiveHostOfTheSameNameIsRefused(t *testing.T) {
	store := openStore(t)
	srv := startServer(t, Options{Store: store})
	first, second := startSwitch(t, ""), startSwitch(t, "")
	first.join("h1", "id1", srv.addr)
	before := waitHost(t, store, "h1", "is there", any1)
	second.join("h1", "id2", srv.addr)
	eventually(t, "the refusal is shown", func() bool {
		s, ok := srv.state("h1", "id2")
		return ok && !s.Connected && strings.Contains(s.Problem, "id1")
	})
	eventually(t, "it is refused again and again", func() bool { return srv.refusals(reasonIdentity) >= 2 })
	if s, _ := srv.state("h1", "id1"); !s.Connected || s.Problem != "" {
		t.Errorf("the first is troubled: %+v", s)
	}
	if got := second.vsctl("list-br"); got != "" {
		t.Errorf("the second was set up: %s", got)
	}
	if got := store.View().Host("h1"); got.SystemID != "id1" || got.Key != before.Key {
		t.Errorf("the model has %+v", got)
	}

	// The first goes away for good: the second is the host, after a reinstallation say.
	first.kill(&first.server)
	h := waitHost(t, store, "h1", "is the second", func(h *network.Host) bool { return h.SystemID == "id2" })
	if h.Key != before.Key || h.Bridges["br-int"].DatapathID == before.Bridges["br-int"].DatapathID {
		t.Errorf("before %+v, now %+v", before, h)
	}
	eventually(t, "no refusal is shown", func() bool {
		s, ok := srv.state("h1", "id2")
		return ok && s.Connected && s.Problem == ""
	})
}

func TestRefusalIsNotShownOnceTheMachineGoesByItsOwnName(t *testing.T) {
	store := openStore(t)
	srv := startServer(t, Options{Store: store})
	first, second := startSwitch(t, ""), startSwitch(t, "")
	first.join("h1", "id1", srv.addr)
	waitHost(t, store, "h1", "is there", any1)
	second.join("h1", "id2", srv.addr)
	eventually(t, "the refusal is shown", func() bool {
		s, ok := srv.state("h1", "id2")
		return ok && s.Problem != ""
	})
	second.vsctl("set", "Open_vSwitch", ".", "external_ids:hostname=h2")
	waitHost(t, store, "h2", "is there", any1)
	if s, ok := srv.state("h1", "id2"); ok {
		t.Errorf("the refusal under its former name is shown: %+v", s)
	}
}

func TestHungHostLosesItsPlace(t *testing.T) {
	store := openStore(t)
	srv := startServer(t, Options{Store: store})
	first, second := startSwitch(t, ""), startSwitch(t, "")
	first.join("h1", "id1", srv.addr)
	waitHost(t, store, "h1", "is there", any1)
	if err := first.server.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	second.join("h1", "id2", srv.addr)
	waitHost(t, store, "h1", "is the second", func(h *network.Host) bool { return h.SystemID == "id2" })
}

func TestHungHostIsNoticed(t *testing.T) {
	store := openStore(t)
	srv := startServer(t, Options{Store: store})
	sw := startSwitch(t, "")
	sw.join("h1", "id1", srv.addr)
	waitHost(t, store, "h1", "is there", any1)
	if err := sw.server.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it counts as away", func() bool { return !srv.Connected("h1") })
	if err := sw.server.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is back", func() bool { return srv.Connected("h1") })
}

func TestHostIsForgottenOnlyWhenAway(t *testing.T) {
	store := openStore(t)
	srv := startServer(t, Options{Store: store})
	sw := startSwitch(t, "")
	sw.join("h1", "id1", srv.addr)
	waitHost(t, store, "h1", "is there", any1)
	if err := srv.Forget(t.Context(), network.Cause{}, "h1"); err == nil {
		t.Fatal("a connected host was forgotten")
	}
	sw.kill(&sw.server)
	eventually(t, "it is away", func() bool {
		s, ok := srv.state("h1", "id1")
		return ok && !s.Connected && !s.Since.IsZero()
	})
	if err := srv.Forget(t.Context(), network.Cause{}, "h1"); err != nil {
		t.Fatal(err)
	}
	if hosts := srv.Hosts(); len(hosts) != 0 {
		t.Errorf("still there: %+v", hosts)
	}
	if err := srv.Forget(t.Context(), network.Cause{}, "h1"); err == nil {
		t.Error("a host was forgotten twice")
	}
}

func TestHostWithoutNameWaitsForOne(t *testing.T) {
	store := openStore(t)
	srv := startServer(t, Options{Store: store})
	sw := startSwitch(t, "")
	sw.vsctl("--no-wait", "set-manager", "tcp:"+srv.addr.String())
	eventually(t, "the lack is shown", func() bool {
		s, ok := srv.state("", "")
		return ok && strings.Contains(s.Problem, "hostname")
	})
	sw.vsctl("--no-wait", "set", "Open_vSwitch", ".", "external_ids:system-id=only-id")
	waitHost(t, store, "only-id", "has its system-id for a name", any1)
}

func TestGarbageOnThePortIsRefusedAndCounted(t *testing.T) {
	store := openStore(t)
	srv := startServer(t, Options{Store: store})
	for name, bytes := range map[string]string{
		"HTTP":                "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"TLS":                 "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
		"no object":           "[1,2,3]",
		"response without id": `{"result":[],"error":null}`,
		"null id":             `{"result":[],"error":null,"id":null}`,
		"unknown method":      `{"method":"transact","params":[],"id":7}`,
		"no parameters":       `{"method":"echo","id":7}`,
		"update for nothing":  `{"method":"update3","params":[{"databaseName":"Open_vSwitch","ID":"x"},"",{}],"id":null}`,
		"short update":        `{"method":"update3","params":[],"id":null}`,
		"too long":            `{"method":"` + strings.Repeat("x", maxEarlyMessage) + `"}`,
	} {
		t.Run(name, func(t *testing.T) {
			before := srv.refusals(reasonGarbage)
			conn, err := net.Dial("tcp", srv.addr.String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			go func() { _, _ = io.WriteString(conn, bytes) }()
			if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, conn); err != nil && strings.Contains(err.Error(), "timeout") {
				t.Error("the connection stays open")
			}
			eventually(t, "it is counted", func() bool { return srv.refusals(reasonGarbage) == before+1 })
		})
	}
	if hosts := srv.Hosts(); len(hosts) != 0 {
		t.Errorf("hosts: %+v", hosts)
	}
}

// pretender answers as an OVSDB server until the monitor is set up, and then
// sends what it is told to. Without rows it claims to be too old for that monitor.
func pretender(t *testing.T, conn net.Conn, schema json.RawMessage, rows string, then func(cookie string) string) {
	defer conn.Close()
	dec := json.NewDecoder(conn)
	for {
		var m struct {
			Method string            `json:"method"`
			Params []json.RawMessage `json:"params"`
			ID     *int              `json:"id"`
		}
		if dec.Decode(&m) != nil || m.ID == nil {
			return
		}
		result := `[]`
		switch m.Method {
		case "list_dbs":
			result = `["Open_vSwitch"]`
		case "get_schema":
			result = string(schema)
		case "monitor_cond_since":
			result = fmt.Sprintf(`[false,"00000000-0000-0000-0000-000000000000",%s]`, rows)
		case "monitor_cond", "monitor":
			t.Errorf("%s got as far as the switch", m.Method)
			return
		}
		if m.Method == "monitor_cond_since" && rows == "" {
			_, _ = fmt.Fprintf(conn, `{"id":%d,"result":null,"error":"unknown method"}`, *m.ID)
			continue
		}
		if _, err := fmt.Fprintf(conn, `{"id":%d,"result":%s,"error":null}`, *m.ID, result); err != nil {
			return
		}
		if m.Method == "monitor_cond_since" {
			if _, err := io.WriteString(conn, then(string(m.Params[1]))); err != nil {
				return
			}
		}
	}
}

func TestHostileServerIsRefused(t *testing.T) {
	store := openStore(t)
	srv := startServer(t, Options{Store: store})
	sw := startSwitch(t, "")
	schema := json.RawMessage(sw.run("ovsdb-client", "get-schema", "unix:"+sw.path("db.sock"), "Open_vSwitch"))
	const root = `{"Open_vSwitch":{"11111111-1111-1111-1111-111111111111":{"initial":{"external_ids":["map",[]]}}}}`
	none := func(string) string { return "" }
	for name, c := range map[string]struct {
		rows string
		then func(string) string
	}{
		"null row at first": {`{"Open_vSwitch":{"11111111-1111-1111-1111-111111111111":null}}`, none},
		"null columns":      {`{"Bridge":{"11111111-1111-1111-1111-111111111111":{"initial":null}}}`, none},
		"null row later":    {root, func(c string) string { return update(c, `{"Port":{"22222222-1111-1111-1111-111111111111":null}}`) }},
		"no change": {root, func(c string) string {
			return update(c, `{"Port":{"22222222-1111-1111-1111-111111111111":{}}}`)
		}},
		"no monitor_cond_since": {"", none},
		"older update of a row that is not there": {root, func(c string) string {
			return `{"method":"update","params":[` + c + `,{"Port":{"22222222-1111-1111-1111-111111111111":{"old":{},"new":{}}}}],"id":null}`
		}},
		"parameters missing": {root, func(c string) string { return `{"method":"update3","params":[` + c + `],"id":null}` }},
		"other cookie":       {root, func(string) string { return update(`{"databaseName":"Open_vSwitch","ID":"y"}`, `{}`) }},
		"column of another type": {root, func(c string) string {
			return update(c, `{"Port":{"22222222-1111-1111-1111-111111111111":{"insert":{"name":["map",[[1,2]]],"interfaces":7}}}}`) + "garbage"
		}},
		"row that is not there": {root, func(c string) string {
			return update(c, `{"Port":{"22222222-1111-1111-1111-111111111111":{"modify":{"name":"x"}}}}`) + "garbage"
		}},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", srv.addr.String())
			if err != nil {
				t.Fatal(err)
			}
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				pretender(t, conn, schema, c.rows, c.then)
			}()
			select {
			case <-ended:
			case <-time.After(patience):
				t.Error("the connection stays open")
				conn.Close()
				<-ended
			}
		})
	}
	sw.join("h1", "id1", srv.addr)
	waitHost(t, store, "h1", "is served all the same", any1)
}

func update(cookie, tables string) string {
	return `{"method":"update3","params":[` + cookie + `,"",` + tables + `],"id":null}`
}

func TestOldSchemaIsReported(t *testing.T) {
	store := openStore(t)
	srv := startServer(t, Options{Store: store})
	conn, err := net.Dial("tcp", srv.addr.String())
	if err != nil {
		t.Fatal(err)
	}
	old := json.RawMessage(`{"name":"Open_vSwitch","version":"1.0.0","tables":{"Open_vSwitch":{"columns":{"bridges":{"type":{"key":"uuid","min":0,"max":"unlimited"}}}}}}`)
	go pretender(t, conn, old, `{}`, func(string) string { return "" })
	eventually(t, "the schema is refused", func() bool { return srv.refusals(reasonSchema) == 1 })
}
