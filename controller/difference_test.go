package controller

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"planck/network"
)

func TestDiffNamesWhatASwitchHasOtherwise(t *testing.T) {
	w := newWorld(t)
	w.host("h1", 1)
	p := w.vm(w.network("net1"), "h1")
	w.plug("h1", p)
	o := w.switches(1)
	o.ofctl("add-flow", "br-ex", "table=0,priority=0,actions=drop") // in place of ours, see giveWay
	c := w.start(nil)
	c.eventuallyRight("h1", "br-int", "br-tun")
	w.eventuallyStatus(p, network.StatusActive)
	eventually(t, 20*time.Second, func() error {
		if !c.Reads("h1") {
			return errors.New("not all bridges are connected")
		}
		return nil
	})
	differences := func(bridge string) []Difference {
		t.Helper()
		d, err := c.Diff(t.Context(), "h1", bridge, 0)
		if err != nil || len(d.Problems) > 0 {
			t.Fatalf("%+v, %v", d, err)
		}
		return d.Differences
	}
	eventually(t, 20*time.Second, func() error {
		if d := differences(""); len(d) > 0 {
			return fmt.Errorf("a switch that is right differs: %+v", d)
		}
		return nil
	})

	o.ofctl("add-flow", "br-int", "table=3,priority=77,udp,tp_dst=4242 actions=drop")
	o.ofctl("add-flow", "br-ex", "table=3,priority=77,udp,tp_dst=4242 actions=drop")
	o.ofctl("del-flows", "br-tun", "table=20")
	o.ofctl("add-flow", "br-int", "table=60,priority=0,actions=drop")
	o.ofctl("add-group", "br-int", "group_id=7777,type=all,bucket=actions=output:1")
	var got []string
	for _, d := range differences("") {
		got = append(got, strings.TrimSpace(fmt.Sprintf("%s %s %s %s", d.Bridge, d.State, d.Kind, d.TableName)))
		if d.State == driftChanged && (!strings.Contains(d.Desired, "goto_table:250") || !strings.Contains(d.Installed, "drop") ||
			d.Resource != (Resource{"host", "h1", "h1"})) {
			t.Errorf("changed: %+v", d)
		}
	}
	slices.Sort(got)
	got = slices.Compact(got)
	want := []string{"br-int changed flow L2Lookup", "br-int unexpected flow", "br-int unexpected group", "br-tun missing flow Decap"}
	if !slices.Equal(got, want) {
		t.Errorf("differences %q, want %q", got, want)
	}
	if d := differences("br-ex"); len(d) > 0 {
		t.Errorf("flows of the operator are differences: %+v", d)
	}

	var refused *network.Error
	for _, at := range [][2]string{{"pigeon", ""}, {"h1", "br-pigeon"}} {
		if _, err := c.Diff(t.Context(), at[0], at[1], 0); !errors.As(err, &refused) || refused.Class != network.NotFound {
			t.Errorf("%v: %v", at, err)
		}
	}
	o.killVswitch()
	eventually(t, 20*time.Second, func() error {
		d, err := c.Diff(t.Context(), "h1", "", 0)
		if err != nil || len(d.Problems) != 3 {
			return fmt.Errorf("the switch is gone: %+v, %v", d, err)
		}
		return nil
	})
}
