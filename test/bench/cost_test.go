package bench

import "testing"

// TestOneMorePortCostsTheSameAtEverySize counts what one more port leads to:
// neither the units compiled nor the messages to switches grow with the cloud.
func TestOneMorePortCostsTheSameAtEverySize(t *testing.T) {
	const hosts = 20
	var first step
	for _, size := range []int{30, 1000, 10_000} {
		w, _, _ := newCompiled(t, newCloud(t, hosts, size))
		one := w.onePort(w.ports)
		t.Logf("%d ports: %d units, %d messages", size, one.units, one.changed)
		one.cpu = 0
		if first == (step{}) {
			first = one
		}
		if one != first {
			t.Errorf("one more port at %d ports leads to %d units and %d messages, at 30 ports to %d and %d",
				size, one.units, one.changed, first.units, first.changed)
		}
		if perHost := 12; one.changed > perHost*portsPerNetwork {
			t.Errorf("one more port leads to %d messages to %d hosts", one.changed, portsPerNetwork)
		}
	}
}
