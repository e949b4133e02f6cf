// Package nova tells Nova what happens to the ports of its servers: by events
// that are queued in the transaction that causes them, and sent to
// os-server-external-events until Nova has taken them.
package nova

import (
	"cmp"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"planck/network"
)

// Queue is the queue of the store that holds the events.
const Queue = "nova"

// Event is one event as Nova reads it.
type Event struct {
	Name       string `json:"name"`
	ServerUUID string `json:"server_uuid"`
	Tag        string `json:"tag"` // the port
	Status     string `json:"status,omitempty"`
}

// The names and states of events.
const (
	vifPlugged     = "network-vif-plugged"
	vifUnplugged   = "network-vif-unplugged"
	vifDeleted     = "network-vif-deleted"
	networkChanged = "network-changed"

	completed = "completed"
	failed    = "failed"
)

// Triggers say what Nova is told of.
type Triggers struct {
	StatusChanges bool // notify_nova_on_port_status_changes
	DataChanges   bool // notify_nova_on_port_data_changes
}

// Messages are the events that follow from a transaction, for network.Config.
func (t Triggers) Messages(after *network.View, _ network.Cause, changes []network.Change) []network.Message {
	slices.SortFunc(changes, func(a, b network.Change) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.ID, b.ID))
	})
	var messages []network.Message
	send := func(p *network.Port, name, status string) {
		if !isServers(p) {
			return
		}
		body, _ := json.Marshal(Event{Name: name, ServerUUID: p.DeviceID, Tag: p.ID, Status: status}) // texts alone
		messages = append(messages, network.Message{Queue: Queue, Body: body})
	}
	if t.StatusChanges {
		for _, ch := range changes {
			statusEvent(after, ch, send)
		}
	}
	if t.DataChanges {
		dataEvents(after, changes, send)
	}
	return messages
}

// isServers reports whether a port belongs to a server of Nova.
func isServers(p *network.Port) bool {
	if p == nil || !strings.HasPrefix(p.DeviceOwner, "compute:") {
		return false
	}
	_, err := uuid.Parse(p.DeviceID)
	return err == nil
}

type sendFunc func(p *network.Port, name, status string)

// statusEvent tells that a port's interface was wired, that it can't be, or
// that it is no longer.
func statusEvent(after *network.View, ch network.Change, send sendFunc) {
	switch ch.Kind {
	case network.KindPortStatus:
		was, is := statusIn(ch.Before), statusIn(ch.After)
		p := after.Port(ch.ID)
		switch {
		case was == is:
		case is == network.StatusActive:
			send(p, vifPlugged, completed)
		case is == network.StatusError:
			send(p, vifPlugged, failed)
		case was == network.StatusActive:
			send(p, vifUnplugged, completed)
		}
	case network.KindReadiness:
		// A server that moves waits for this, though the port's status stays.
		if r, ok := ch.After.(*network.Readiness); ok && ch.Before == nil {
			send(after.Port(r.PortID), vifPlugged, completed)
		}
	}
}

func statusIn(o network.Object) string {
	if st, ok := o.(*network.PortStatus); ok {
		return st.Status
	}
	return network.StatusDown
}

// dataEvents tell that what Nova remembers of a server's network has changed.
func dataEvents(after *network.View, changes []network.Change, send sendFunc) {
	told := map[string]bool{}
	changed := func(portID string) {
		if p := after.Port(portID); p != nil && !told[portID] {
			told[portID] = true
			send(p, networkChanged, "")
		}
	}
	for _, ch := range changes {
		switch before := ch.Before.(type) {
		case *network.Port:
			if now, ok := ch.After.(*network.Port); !ok {
				send(before, vifDeleted, "")
			} else if differs(before, now) {
				changed(ch.ID)
			}
		case *network.FloatingIP:
			changed(before.PortID)
		}
		if now, ok := ch.After.(*network.FloatingIP); ok {
			changed(now.PortID)
		}
	}
}

// differs reports whether two states of a port differ in more than what is made
// ready for a move.
func differs(a, b *network.Port) bool {
	a, b = a.Clone(), b.Clone()
	for _, p := range []*network.Port{a, b} {
		p.Inactive, p.UpdatedAt, p.RevisionNumber = nil, time.Time{}, 0
	}
	return !reflect.DeepEqual(a, b)
}
