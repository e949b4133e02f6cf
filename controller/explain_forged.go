package controller

import (
	"fmt"
	"slices"
	"strings"

	"planck/network"
	"planck/pipeline"
)

// forged is how many packets of a port its host dropped in PortSecurity, and why.
// The drops there count for the whole host: those of a port are what came from its
// interface and was not let pass.
type forged struct {
	packets uint64
	recent  *uint64 // of them between two looks, nil after one
	why     []string
}

// forgedIn compares what came from a port with what port security let pass, and
// with what it dropped on the whole host: more than that can't be of this port,
// and says that flows which counted for it are gone.
func forgedIn(own *FlowDump, drops []Dropped) (f forged) {
	var sent, passed, dropped uint64
	for _, r := range own.Flows {
		if r.Bridge != network.BridgeIntegration || r.Feature == "" {
			continue
		}
		switch r.TableName {
		case pipeline.Classify.Name:
			sent += r.Packets
		case pipeline.PortSecurity.Name:
			passed += r.Packets
		}
	}
	for _, d := range drops {
		if d.TableName == pipeline.PortSecurity.Name && d.Counts == countsHost {
			dropped += d.Packets
			f.why = append(f.why, d.Why)
		}
	}
	if sent > passed && sent-passed <= dropped {
		f.packets = sent - passed
	}
	return f
}

// since tells what came between two looks.
func (f forged) since(before forged) forged {
	f.recent = new(f.packets - min(f.packets, before.packets))
	return f
}

// forgedBy says that the machine of a port uses what is not the port's.
func forgedBy(p *network.Port, f forged) []Finding {
	if f.packets == 0 || !p.PortSecurityEnabled {
		return nil
	}
	own := []string{p.MAC.String()}
	for _, ip := range p.FixedIPs {
		own = append(own, ip.IP.String())
	}
	slices.Sort(f.why)
	return []Finding{{
		fmt.Sprintf("port security dropped %s that its machine sent%s: %s", packets(f.packets), goesOn(f.recent), strings.Join(slices.Compact(f.why), ", or ")),
		fmt.Sprintf("let the machine use what the port has (%s), or add what it uses to allowed_address_pairs of the port", strings.Join(own, ", ")),
	}}
}

// goesOn says whether something was dropped while it was looked at.
func goesOn(recent *uint64) string {
	switch {
	case recent == nil:
		return ""
	case *recent > 0:
		return ", and goes on"
	}
	return ", none just now"
}
