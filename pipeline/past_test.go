package pipeline

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"planck/network"
)

// textOf is what a host wants of its bridges, as world.text writes it.
func textOf(states map[string]State, host string) string {
	text := ""
	for _, bridge := range []string{"br-ex", "br-int", "br-tun"} {
		s, ok := states[bridge]
		if !ok {
			continue
		}
		name := func(id uint8) string { return TableName(bridge, id) }
		text += fmt.Sprintf("# %s %s\n%s", host, bridge, s.Desired.Text(name))
		if len(s.Permitted.Flows) > 0 {
			text += fmt.Sprintf("# %s %s, permitted\n%s", host, bridge, s.Permitted.Text(name))
		}
	}
	return text
}

func TestHostCompiledAtAnEarlierRevisionIsAsItWas(t *testing.T) {
	for _, s := range stories {
		t.Run(s.name, func(t *testing.T) {
			w := newWorld(t, s.options)
			s.tell(w)
			then, want := w.store.View(), w.text()
			w.network(&network.Network{Standard: network.Standard{ID: "later"}, NetworkType: "gre"}, "10.99.0.0/24")
			w.port(newPort("later", "later", "fa:16:3e:00:99:0a", "10.99.0.10"), "host1")
			view, err := w.store.ViewAt(then.Revision())
			if err != nil {
				t.Fatal(err)
			}
			var hosts []string
			for h := range view.Hosts() {
				hosts = append(hosts, h.Name)
			}
			slices.Sort(hosts)
			got := ""
			for _, host := range hosts {
				states, err := w.compiler.Compile(view, host)
				if err != nil {
					t.Fatal(err)
				}
				got += textOf(states, host)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("as it was (-), compiled again (+):\n%s", diff)
			}
		})
	}
}

// TestEveryDirtyFlowHasTheRevisionsThatChangedIt: changes that come in one batch
// are told apart by what the flows are made of.
func TestEveryDirtyFlowHasTheRevisionsThatChangedIt(t *testing.T) {
	w := newWorld(t, Options{})
	w.hosts(2)
	for _, id := range []string{"blue", "red"} {
		w.network(&network.Network{Standard: network.Standard{ID: id}, NetworkType: "gre"}, "10.0.0.0/24")
	}
	w.port(newPort("a", "blue", "fa:16:3e:00:00:0a", "10.0.0.10"), "host1")
	w.port(newPort("b", "red", "fa:16:3e:00:00:0b", "10.0.0.11"), "host2")
	address := func(port, ip string) func(*network.Tx) error {
		return func(tx *network.Tx) error {
			p := tx.Port(port).Clone()
			p.FixedIPs[0].IP = netip.MustParseAddr(ip)
			return tx.UpdatePort(p)
		}
	}
	commit := func(fn func(*network.Tx) error) uint64 {
		v, err := w.store.Update(t.Context(), network.Cause{}, fn)
		if err != nil {
			t.Fatal(err)
		}
		return v.Revision()
	}
	first := commit(address("a", "10.0.0.20"))
	second := commit(address("b", "10.0.0.21"))
	third := commit(address("a", "10.0.0.30"))
	batch, err := w.follower.Next(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	out := w.compiler.Apply(batch)
	for host, want := range map[string][]uint64{"host1": {first, third}, "host2": {second}} {
		dirty := out.Dirty[Target{host, "br-int"}]
		if dirty == nil || len(dirty.Flows) == 0 {
			t.Fatalf("nothing is dirty on %s", host)
		}
		for key, why := range dirty.Flows {
			if !slices.Equal(why.Revisions(), want) {
				t.Errorf("%s: a flow of table %d is dirty for %v, want %v", host, key.Table, why.Revisions(), want)
			}
		}
	}
	fourth := commit(func(tx *network.Tx) error { return tx.DeletePort("b") })
	for key, why := range w.compile().Dirty[Target{"host2", "br-int"}].Flows {
		if !slices.Equal(why.Revisions(), []uint64{fourth}) {
			t.Errorf("a flow of table %d is dirty for %v, want %d", key.Table, why.Revisions(), fourth)
		}
	}
}

func TestMoreRevisionsThanBitsShareThem(t *testing.T) {
	batch := network.Batch{}
	for r := range uint64(1000) {
		batch.Changes = append(batch.Changes, network.Change{Revisions: []uint64{r + 1}})
	}
	batch.Changes = append(batch.Changes, network.Change{})
	c := newCauses(batch)
	for i := range 1000 {
		if got := c.of(c.all([]int{i})).Revisions(); !slices.Contains(got, uint64(i+1)) || len(got) > 16 {
			t.Fatalf("change %d: revisions %v", i, got)
		}
	}
	if got := c.of(c.all([]int{0, 1000})); got != nil {
		t.Errorf("with a change of unknown revisions: %v", got.Revisions())
	}
}
