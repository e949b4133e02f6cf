package fleet

import (
	"bytes"
	"encoding/json"
	"net"
	"slices"
)

// session is an OVSDB connection to a controller: it dialled, and is the server.
type session struct {
	host     *Host
	out      *outbox
	monitors []monitor // guarded by Host.mu
}

type monitor struct {
	cookie  json.RawMessage
	columns map[string][]string // by table; nil for all
}

// rpc is a request, a notification or a reply.
type rpc struct {
	Method string            `json:"method"`
	Params []json.RawMessage `json:"params"`
	ID     json.RawMessage   `json:"id"`
}

func (h *Host) serveOVSDB(l *link, conn net.Conn) {
	s := &session{host: h, out: &outbox{conn: conn}}
	l.onSilence(func() { s.out.send([]byte(`{"method":"echo","params":[],"id":"echo"}`)) })
	l.up.Store(true)
	h.mu.Lock()
	h.sessions = append(h.sessions, s)
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.sessions = slices.DeleteFunc(h.sessions, func(o *session) bool { return o == s })
	}()
	in := json.NewDecoder(conn)
	for {
		var m rpc
		if in.Decode(&m) != nil {
			return
		}
		l.hear()
		if m.Method != "" {
			s.serve(&m)
		}
	}
}

func (s *session) serve(m *rpc) {
	switch {
	case m.Method == "echo":
		list, _ := json.Marshal(m.Params)
		s.reply(m, list, nil)
	case m.Method == "list_dbs":
		s.reply(m, []byte(`["Open_vSwitch"]`), nil)
	case m.Method == "get_schema":
		s.reply(m, s.host.db.text, nil)
	case m.Method == "monitor_cond_since" && len(m.Params) >= 3:
		s.monitor(m)
	case m.Method == "transact" && len(m.Params) > 0:
		s.transact(m)
	default:
		s.reply(m, nil, "unknown method")
	}
}

func (s *session) reply(m *rpc, result []byte, problem any) {
	if result == nil {
		result = []byte("null")
	}
	text, _ := json.Marshal(problem)
	s.out.send(slices.Concat([]byte(`{"id":`), m.ID, []byte(`,"result":`), result, []byte(`,"error":`), text, []byte("}")))
}

func (s *session) transact(m *rpc) {
	h := s.host
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.db.begin()
	results, err := t.perform(m.Params[1:])
	var changes []change
	if err == nil {
		if changes, err = t.commit(); err != nil {
			results = append(results, map[string]any{"error": "constraint violation", "details": err.Error()})
		}
	}
	text, problem := json.Marshal(results)
	if problem != nil {
		s.reply(m, nil, problem.Error())
		return
	}
	// Who asked hears of the change before the answer, as from ovsdb-server.
	h.changed(changes)
	s.reply(m, text, nil)
	if len(changes) > 0 {
		h.configure()
	}
}

// noTransaction is told in place of an id: the next monitor begins anew.
const noTransaction = `"00000000-0000-0000-0000-000000000000"`

func (s *session) monitor(m *rpc) {
	var tables map[string]json.RawMessage
	if err := json.Unmarshal(m.Params[2], &tables); err != nil {
		s.reply(m, nil, err.Error())
		return
	}
	watch := monitor{cookie: bytes.Clone(m.Params[1]), columns: map[string][]string{}}
	for name, raw := range tables {
		var request struct{ Columns []string } // alone, or in a list
		if one := bytes.TrimSuffix(bytes.TrimPrefix(raw, []byte("[")), []byte("]")); json.Unmarshal(one, &request) != nil || s.host.db.tables[name] == nil {
			s.reply(m, nil, "a request for the table "+name+" that is not understood")
			return
		}
		watch.columns[name] = request.Columns
	}
	h := s.host
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []change
	for id, r := range h.db.rows {
		all = append(all, change{id: id, after: r})
	}
	s.monitors = append(s.monitors, watch)
	s.reply(m, slices.Concat([]byte("[false,"+noTransaction+","), watch.updates(all, "initial"), []byte("]")), nil)
}

// changed tells the monitors. h.mu is held.
func (h *Host) changed(changes []change) {
	if len(changes) == 0 {
		return
	}
	for _, s := range h.sessions {
		for i := range s.monitors {
			w := &s.monitors[i]
			if updates := w.updates(changes, "insert"); len(updates) > len("{}") {
				s.out.send(slices.Concat([]byte(`{"id":null,"method":"update3","params":[`), w.cookie, []byte(","+noTransaction+","), updates, []byte("]}")))
			}
		}
	}
}

// updates are changes in the form of ovsdb-server(7), 4.1.14; added is what a
// row that was not there before is called.
func (w *monitor) updates(changes []change, added string) []byte {
	byTable := map[string][]byte{}
	for _, c := range changes {
		of := c.after
		if of == nil {
			of = c.before
		}
		columns, ok := w.columns[of.table.name]
		if !ok {
			continue
		}
		body := c.append(nil, columns, added)
		if body == nil {
			continue
		}
		b := byTable[of.table.name]
		if b != nil {
			b = append(b, ',')
		}
		b = append(append(append(b, '"'), c.id...), `":`...)
		byTable[of.table.name] = append(b, body...)
	}
	b := []byte("{")
	for name, rows := range byTable {
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = append(append(append(b, '"'), name...), `":{`...)
		b = append(append(b, rows...), '}')
	}
	return append(b, '}')
}

// append writes a change as far as it concerns some columns; nil when it does not.
func (c *change) append(b []byte, columns []string, added string) []byte {
	if c.after == nil {
		return append(b, `{"delete":null}`...)
	}
	kind := "modify"
	if c.before == nil {
		kind = added
	}
	b = append(append(append(b, `{"`...), kind...), `":{`...)
	start := len(b)
	for _, col := range c.after.table.columns {
		if columns != nil && !slices.Contains(columns, col.name) {
			continue
		}
		value, before := c.after.get(col.name), col.initial
		if c.before != nil {
			before = c.before.get(col.name)
		}
		if value.equal(before) {
			continue
		}
		if c.before != nil {
			value = col.difference(before, value)
		}
		if len(b) > start {
			b = append(b, ',')
		}
		b = append(append(append(b, '"'), col.name...), `":`...)
		b = value.append(b, col)
	}
	if c.before != nil && len(b) == start {
		return nil
	}
	return append(b, "}}"...)
}
