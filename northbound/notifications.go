package northbound

import (
	"bytes"
	"fmt"

	"planck/network"
	"planck/northbound/notify"
)

// notify queues a notification with the transaction: what has happened is told
// if, and only if, it has happened.
func (c *call) notify(tx *network.Tx, event string, payload []byte) {
	o := c.server.notifications
	if o == nil {
		return
	}
	by := notify.Context{RequestID: c.track.requestID, ProjectID: c.who.ProjectID, UserID: c.who.UserID,
		Roles: c.who.Roles, Admin: c.rules().admin(c.who)}
	for _, m := range o.Messages(by, event, payload) {
		tx.Send(m)
	}
}

// notifies reports whether anybody wants notifications.
func (c *call) notifies() bool { return c.server.notifications != nil }

// notifyCreated tells of new objects: the body of the request, then the answer.
func (rs *resource[T]) notifyCreated(c *call, tx *network.Tx, ids []string, bulk bool) {
	if !c.notifies() {
		return
	}
	c.notify(tx, rs.name+".create.start", c.raw)
	c.notify(tx, rs.name+".create.end", bytes.Clone(rs.encodeCreated(c.reader(tx.View), ids, bulk)))
}

// notifyUpdated tells of a changed object.
func (rs *resource[T]) notifyUpdated(c *call, tx *network.Tx) {
	o := rs.get(tx.View, c.id)
	if !c.notifies() || o == nil {
		return
	}
	start := appendString(append(bytes.Clone(c.raw[:bytes.LastIndexByte(c.raw, '}')]), `, "id": `...), c.id)
	c.notify(tx, rs.name+".update.start", append(start, '}'))
	c.notify(tx, rs.name+".update.end", rs.encodeOne(c.reader(tx.View), o, nil))
}

// notifyDeleted tells of an object that is about to go.
func (rs *resource[T]) notifyDeleted(c *call, ch *change, o *T) {
	if !c.notifies() {
		return
	}
	id := appendString(fmt.Appendf(nil, `"%s_id": `, rs.name), c.id)
	c.notify(ch.tx, rs.name+".delete.start", fmt.Appendf(nil, "{%s}", id))
	gone := rs.encodeOne(ch.r, o, nil)
	c.notify(ch.tx, rs.name+".delete.end", fmt.Appendf(nil, "%s, %s}", gone[:len(gone)-1], id))
}
