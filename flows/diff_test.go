package flows

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// texts are the delta as what an operator would say, in the order of sending.
func (d *Delta) texts() []string {
	var all []string
	for _, m := range d.MeterAdds {
		all = append(all, "add "+m.String())
	}
	for _, m := range d.MeterMods {
		all = append(all, "mod "+m.String())
	}
	for _, g := range d.GroupAdds {
		all = append(all, "add "+g.String())
	}
	for _, g := range d.GroupMods {
		all = append(all, "mod "+g.String())
	}
	for _, f := range d.FlowAdds {
		all = append(all, "add "+f.String())
	}
	for _, f := range d.FlowDeletes {
		all = append(all, "del "+f.String())
	}
	for _, id := range d.GroupDeletes {
		all = append(all, "del "+ToGroup(id).String())
	}
	for _, id := range d.MeterDeletes {
		all = append(all, "del "+ApplyMeter(id).String())
	}
	return all
}

func setOf(t *testing.T, entries ...any) *Set {
	t.Helper()
	s := NewSet()
	for _, e := range entries {
		switch e := e.(type) {
		case string:
			f, err := ParseFlow(e)
			if err != nil {
				t.Fatal(err)
			}
			s.AddFlow(&f)
		case *Group:
			s.AddGroup(e)
		case *Meter:
			s.AddMeter(e)
		}
	}
	return s
}

func TestDiff(t *testing.T) {
	all := &Dirty{All: true}
	one := func(port uint32) Bucket { return Bucket{Actions: []Action{Output(port)}} }
	onlyARP := &Dirty{}
	onlyARP.AddFlow(Key{Table: 1, Priority: 5, Match: NewMatch(ARP)}, nil)
	onlyGroup1 := &Dirty{}
	onlyGroup1.AddGroup(1, nil)
	onlyMeter1 := &Dirty{}
	onlyMeter1.AddMeter(1, nil)
	cookie9 := func(f *Flow) bool { return f.Cookie == 9 }

	for _, c := range []struct {
		what                          string
		desired, installed, permitted *Set
		dirty                         *Dirty
		foreign                       func(*Flow) bool
		want                          []string
	}{
		{what: "nothing where all is right",
			desired:   setOf(t, "priority=5,arp actions=output:1", NewGroup(1, GroupAll, one(1)), NewMeterPPS(1, 5, 5)),
			installed: setOf(t, "priority=5,arp actions=output:1", NewGroup(1, GroupAll, one(1)), NewMeterPPS(1, 5, 5))},
		{what: "an empty switch gets meters, groups, then flows by table and priority",
			desired:   setOf(t, "table=1,priority=1 actions=drop", "priority=5,arp actions=group:1", "priority=7,arp actions=meter:1,group:1", NewGroup(2, GroupAll), NewGroup(1, GroupAll), NewMeterPPS(1, 5, 5)),
			installed: NewSet(),
			want: []string{"add meter=1 pktps burst stats bands= type=drop rate=5 burst_size=5",
				"add group_id=1,type=all", "add group_id=2,type=all",
				"add priority=7,arp actions=meter:1,group:1", "add priority=5,arp actions=group:1", "add table=1, priority=1 actions=drop"}},
		{what: "a changed flow is added over the old one",
			desired:   setOf(t, "priority=5,arp actions=output:1", "priority=6,arp actions=drop", "priority=7,cookie=2,arp actions=drop", "priority=8,idle_timeout=3,arp actions=drop"),
			installed: setOf(t, "priority=5,arp actions=output:2", "priority=6,arp actions=drop", "priority=7,cookie=1,arp actions=drop", "priority=8,arp actions=drop"),
			want:      []string{"add idle_timeout=3, priority=8,arp actions=drop", "add cookie=0x2, priority=7,arp actions=drop", "add priority=5,arp actions=output:1"}},
		{what: "groups and meters that exist are modified",
			desired:   setOf(t, NewGroup(1, GroupAll, one(1)), NewMeterPPS(1, 5, 5)),
			installed: setOf(t, NewGroup(1, GroupAll, one(2)), NewMeterPPS(1, 5, 6)),
			want:      []string{"mod meter=1 pktps burst stats bands= type=drop rate=5 burst_size=5", "mod group_id=1,type=all,bucket=actions=output:1"}},
		{what: "what is not desired goes: flows, then groups, then meters",
			desired:   NewSet(),
			installed: setOf(t, "priority=5,arp actions=group:1", NewGroup(1, GroupAll), NewMeterPPS(1, 5, 6)),
			want:      []string{"del priority=5,arp actions=group:1", "del group:1", "del meter:1"}},
		{what: "a delete comes after the adds",
			desired:   setOf(t, "priority=5,arp actions=output:1"),
			installed: setOf(t, "priority=6,arp actions=output:1"),
			want:      []string{"add priority=5,arp actions=output:1", "del priority=6,arp actions=output:1"}},
		{what: "permitted flows stay, but only as they are permitted, and none is added",
			desired:   NewSet(),
			installed: setOf(t, "priority=5,arp actions=IN_PORT", "priority=6,arp actions=output:2"),
			permitted: setOf(t, "priority=5,arp actions=IN_PORT", "priority=6,arp actions=IN_PORT", "priority=7,arp actions=IN_PORT"),
			want:      []string{"del priority=6,arp actions=output:2"}},
		{what: "desired goes before permitted",
			desired:   setOf(t, "priority=5,arp actions=output:1"),
			installed: setOf(t, "priority=5,arp actions=IN_PORT"),
			permitted: setOf(t, "priority=5,arp actions=IN_PORT"),
			want:      []string{"add priority=5,arp actions=output:1"}},
		{what: "foreign flows stay",
			desired:   NewSet(),
			installed: setOf(t, "cookie=9,priority=5,arp actions=NORMAL", "cookie=8,priority=6,arp actions=NORMAL"),
			foreign:   cookie9,
			want:      []string{"del cookie=0x8, priority=6,arp actions=NORMAL"}},
		{what: "only the dirty flow is looked at",
			desired:   setOf(t, "table=1,priority=5,arp actions=output:1", "table=2,priority=5,arp actions=output:1", NewGroup(1, GroupAll)),
			installed: setOf(t, "table=3,priority=5,arp actions=output:1", NewMeterPPS(1, 5, 6)),
			dirty:     onlyARP,
			want:      []string{"add table=1, priority=5,arp actions=output:1"}},
		{what: "only the dirty group is looked at",
			desired: setOf(t, "priority=5,arp actions=output:1", NewGroup(1, GroupAll), NewGroup(2, GroupAll)), installed: NewSet(),
			dirty: onlyGroup1, want: []string{"add group_id=1,type=all"}},
		{what: "only the dirty meter is looked at",
			desired: NewSet(), installed: setOf(t, NewMeterPPS(1, 5, 6), NewMeterPPS(2, 5, 6)),
			dirty: onlyMeter1, want: []string{"del meter:1"}},
		{what: "nothing dirty, nothing sent",
			desired: setOf(t, "priority=5,arp actions=output:1"), installed: NewSet(), dirty: &Dirty{}},
	} {
		dirty := c.dirty
		if dirty == nil {
			dirty = all
		}
		d := Diff(c.desired, c.installed, c.permitted, dirty, c.foreign)
		if diff := cmp.Diff(c.want, d.texts()); diff != "" {
			t.Errorf("%s:\n%s", c.what, diff)
		}
		if d.Len() != len(c.want) || d.Empty() != (len(c.want) == 0) {
			t.Errorf("%s: %d messages, empty: %v", c.what, d.Len(), d.Empty())
		}
		d.Apply(c.installed)
		if again := Diff(c.desired, c.installed, c.permitted, dirty, c.foreign); !again.Empty() {
			t.Errorf("%s: applied, there is still to do: %q", c.what, again.texts())
		}
	}
}

func TestDirtyMerges(t *testing.T) {
	var d, o Dirty
	if !d.Empty() {
		t.Error("a new Dirty is not empty")
	}
	o.AddFlow(Key{Table: 1}, nil)
	o.AddGroup(2, nil)
	o.AddMeter(3, nil)
	d.AddGroup(4, nil)
	d.Merge(&o)
	d.Merge(nil)
	if len(d.Flows) != 1 || len(d.Groups) != 2 || len(d.Meters) != 1 || d.Empty() || d.All {
		t.Errorf("merged: %+v", d)
	}
	d.Merge(&Dirty{All: true})
	if !d.All {
		t.Error("all is lost in a merge")
	}
}
