package controller

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"planck/network"
	"planck/pipeline"
)

// ChangeRecord is a revision of the model with what it changed on switches, or
// what was sent to one switch for another reason.
type ChangeRecord struct {
	Position string    `json:"position"` // for ChangesQuery.Before
	At       time.Time `json:"at"`
	// Cause is request or event for a revision; else why a switch was sent
	// something: audit (it was changed behind the controller's back), connect,
	// unknown (it had not answered), restored (the operator's flows were put
	// back), or change, where it is not known which revision is the reason.
	Cause     string `json:"cause"`
	Revision  uint64 `json:"revision"`
	Operation string `json:"operation,omitempty"`
	RequestID string `json:"request_id,omitempty"`
	ProjectID string `json:"project_id,omitempty"`
	UserID    string `json:"user_id,omitempty"`
	Host      string `json:"host,omitempty"` // that was sent something, and its bridge; "" for a revision
	Bridge    string `json:"bridge,omitempty"`
	// Since is the revision that the switch had before, 0 when that is not known.
	Since   uint64         `json:"since_revision,omitempty"`
	Objects []ObjectChange `json:"objects"`
	Flows   []FlowChange   `json:"flows"`
	// MoreFlows is how many were left out, or are not kept.
	MoreFlows int `json:"more_flows,omitempty"`

	position Position
}

// ObjectChange is an object of the model that a revision wrote.
type ObjectChange struct {
	Resource
	// Change is added, changed or deleted; "" when the model is not kept that far back.
	Change     string            `json:"change"`
	Attributes []AttributeChange `json:"attributes,omitempty"` // of one that changed
}

// AttributeChange is an attribute before and after, as the store writes it.
type AttributeChange struct {
	Name   string          `json:"name"`
	Before json.RawMessage `json:"before"`
	After  json.RawMessage `json:"after"`
}

// FlowChange is a flow, group or meter that a switch was told.
type FlowChange struct {
	At        time.Time `json:"at"`
	Host      string    `json:"host"`
	Bridge    string    `json:"bridge"`
	Kind      string    `json:"kind"`   // flow, group or meter
	Change    string    `json:"change"` // added, changed or deleted
	Table     uint8     `json:"table"`
	TableName string    `json:"table_name"`
	Cookie    string    `json:"cookie,omitempty"`
	Feature   string    `json:"feature"`
	Resource  Resource  `json:"resource"`
	Text      string    `json:"text"`          // as ovs-ofctl writes it
	Was       string    `json:"was,omitempty"` // of one that changed
	// Revisions are those of which at least one is the reason; none are known
	// where a switch was read.
	Revisions []uint64 `json:"revisions"`
	Refused   string   `json:"refused,omitempty"` // by the switch: why
	// Unknown says that the switch gave no answer.
	Unknown bool `json:"unknown,omitempty"`
}

// past is the model as it is and was.
type past struct {
	store Store
	now   *network.View
}

// at is the model at a revision, nil where that is not kept.
func (p past) at(revision uint64) *network.View {
	v, err := p.store.ViewAt(revision)
	if err != nil {
		return nil
	}
	return v
}

// around are the model after and before a revision, then as it is now; without
// those that are not kept.
func (p past) around(revision uint64) []*network.View {
	return slices.DeleteFunc([]*network.View{p.at(revision), p.at(revision - 1), p.now}, func(v *network.View) bool { return v == nil })
}

// resource is what a cookie led to when something was sent.
func (p past) resource(cookie pipeline.Cookie, x sentIn) Resource {
	first := x.revision
	if revisions := x.sent.why.Revisions(); revisions != nil {
		first = revisions[0]
	} else if x.since != 0 {
		first = x.since + 1
	}
	return resourceIn(append(p.around(x.revision), p.around(first)...), cookie)
}

// record is a revision as it is shown; false when it is not asked for.
func (s *changeScan) record(l *network.Logged) (ChangeRecord, bool) {
	if s.query.Project != "" && l.Cause.ProjectID != s.query.Project || s.query.Revision != 0 && l.Revision != s.query.Revision {
		return ChangeRecord{}, false
	}
	list := s.sent[l.Revision]
	if s.filter.ofFlows() && !s.filter.objects(l) {
		if list = slices.DeleteFunc(slices.Clone(list), func(x sentIn) bool { return !s.filter.passes(x.pass, x.sent) }); len(list) == 0 {
			return ChangeRecord{}, false
		}
	}
	r := ChangeRecord{
		position: Position{Revision: l.Revision}, At: l.At, Cause: causeRequest, Revision: l.Revision, Operation: l.Cause.Operation,
		RequestID: l.Cause.RequestID, ProjectID: l.Cause.ProjectID, UserID: l.Cause.UserID, Objects: []ObjectChange{},
	}
	if r.RequestID == "" {
		r.Cause = causeEvent
	}
	r.Position = r.position.String()
	after, before := s.at(l.Revision), s.at(l.Revision-1)
	for _, o := range l.Objects {
		r.Objects = append(r.Objects, s.object(o, before, after))
	}
	slices.SortStableFunc(r.Objects, func(a, b ObjectChange) int {
		return cmp.Or(cmp.Compare(rank(a.Kind), rank(b.Kind)), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.ID, b.ID))
	})
	r.Flows, r.MoreFlows = s.flows(list)
	return r, true
}

// rank puts resources of the API before the rest.
func rank(kind string) int {
	switch network.Kind(kind) {
	case network.KindNetwork, network.KindSubnet, network.KindPort, network.KindRouter, network.KindFloatingIP,
		network.KindSecurityGroup, network.KindSecurityGroupRule, network.KindSubnetPool:
		return 0
	}
	return 1
}

// passRecord is what was sent to a switch without a known revision.
func (s *changeScan) passRecord(p *pass) ChangeRecord {
	r := ChangeRecord{
		position: Position{p.revision, p.number}, At: p.at, Cause: p.cause, Revision: p.revision, Since: p.since,
		Host: p.of.Host, Bridge: p.of.Bridge, Objects: []ObjectChange{},
	}
	r.Position = r.position.String()
	list := make([]sentIn, len(p.sent))
	for i := range p.sent {
		list[i] = sentIn{p, &p.sent[i]}
	}
	r.Flows, r.MoreFlows = s.flows(list)
	r.MoreFlows += p.more
	return r
}

// object says what a revision did to an object; before and after are nil where
// they are not kept.
func (s *changeScan) object(ref network.Ref, before, after *network.View) ObjectChange {
	o := ObjectChange{Resource: Resource{Kind: string(ref.Kind), ID: ref.ID}}
	for _, v := range []*network.View{after, before, s.now} {
		if v == nil || o.Name != "" {
			continue
		}
		if named, ok := v.Object(ref).(interface{ ObjectName() string }); ok {
			o.Name = named.ObjectName()
		}
	}
	if before == nil || after == nil {
		return o
	}
	was, is := before.Object(ref), after.Object(ref)
	switch {
	case was == nil && is != nil:
		o.Change = changeAdded
	case was != nil && is == nil:
		o.Change = changeDeleted
	case was != nil:
		o.Change, o.Attributes = changeChanged, attributes(was, is)
	}
	return o
}

// attributes are those in which two states of an object differ, but for those
// that every change touches.
func attributes(was, is network.Object) []AttributeChange {
	before, after := fields(was), fields(is)
	all := maps.Clone(before)
	maps.Copy(all, after)
	for _, name := range []string{"updated_at", "revision_number"} {
		delete(all, name)
	}
	var list []AttributeChange
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if !bytes.Equal(before[name], after[name]) {
			list = append(list, AttributeChange{name, before[name], after[name]})
		}
	}
	return list
}

// fields is an object as the store writes it.
func fields(o network.Object) map[string]json.RawMessage {
	m := map[string]json.RawMessage{}
	text, err := json.Marshal(o)
	if err == nil {
		err = json.Unmarshal(text, &m)
	}
	if err != nil {
		panic(fmt.Sprintf("controller: %s %s: %s", o.ObjectKind(), o.ObjectID(), err)) // it was stored like that
	}
	return m
}

// flows are changes of flows as they are shown, by host, bridge and table, and
// how many are too many.
func (s *changeScan) flows(list []sentIn) (changes []FlowChange, more int) {
	changes = []FlowChange{}
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b sentIn) int {
		return cmp.Or(cmp.Compare(a.of.Host, b.of.Host), cmp.Compare(a.of.Bridge, b.of.Bridge), cmp.Compare(a.number, b.number))
	})
	if len(list) > s.query.MostFlows {
		list, more = list[:s.query.MostFlows], len(list)-s.query.MostFlows
	}
	for _, x := range list {
		changes = append(changes, s.flow(x))
	}
	return changes, more
}

func (s *changeScan) flow(x sentIn) FlowChange {
	c := FlowChange{
		At: x.at, Host: x.of.Host, Bridge: x.of.Bridge, Change: x.sent.what, Unknown: x.unknown,
		Revisions: append([]uint64{}, x.sent.why.Revisions()...),
	}
	if x.sent.refused != nil {
		c.Refused = x.sent.refused.Error()
	}
	switch f := x.sent.flow; {
	case x.sent.group != nil:
		c.Kind, c.Text = "group", x.sent.group.String()
	case x.sent.meter != nil:
		c.Kind, c.Text = "meter", x.sent.meter.String()
	default:
		cookie := pipeline.Cookie(f.Cookie)
		c.Kind, c.Text, c.Was = "flow", f.String(), flowText(x.sent.was)
		c.Table, c.TableName, c.Cookie = f.Table, pipeline.TableName(c.Bridge, f.Table), fmt.Sprintf("%#x", f.Cookie)
		if cookie.Ours() {
			c.Feature, c.Resource = pipeline.FeatureName(cookie.Feature()), s.resource(cookie, x)
		}
	}
	return c
}
