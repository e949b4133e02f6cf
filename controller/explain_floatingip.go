package controller

import (
	"cmp"
	"fmt"

	"planck/network"
)

// explainFloatingIP tells what a floating IP stands for, and why that is not reached by it.
func explainFloatingIP(v *network.View, f *network.FloatingIP, w witness) *Explanation {
	e := newExplanation(Resource{kindFloatingIP, f.ID, f.Name})
	e.Status = v.FloatingIPStatus(f)
	external := v.Network(f.FloatingNetworkID)
	e.about("%s on network %s", f.Address, titleOf(external))
	if external != nil && !external.AdminStateUp {
		e.find("admin_state_up of network "+called(external.Name, external.ID)+" is false: nothing comes from there", "set admin_state_up of the network to true")
	}
	p := v.Port(f.PortID)
	if p == nil {
		e.find("it stands for no port: nobody answers for it", "quantum floatingip-associate "+f.ID+" PORT")
		return e
	}
	host := v.FloatingHost(f)
	e.about("stands for %s of port %s, translated on host %s", f.FixedIP, called(p.Name, p.ID), cmp.Or(host, "none"))
	r := v.Router(f.RouterID)
	if r == nil || r.ExternalNetworkID != f.FloatingNetworkID {
		e.find("no router with a gateway on its network leads to "+f.FixedIP.String(), "set the gateway of the subnet's router to network "+f.FloatingNetworkID)
	} else {
		e.about("by router %s", called(r.Name, r.ID))
		e.found(unleading(v, r, w)...)
	}
	switch h := v.Host(host); {
	case host == "":
		e.find("no host can translate it", "a host needs a bridge on the physical network of the external network, and must be up; see planck hosts")
	case h != nil && !w.hostLive(host):
		e.find("host "+host+", which translates it, is away; it goes on with the flows that it has", "is ovs-vswitchd running there, and does it reach the controller? See planck hosts")
	case h != nil && external != nil:
		if err := w.hostRefused(h, external, f.Key); err != nil {
			e.find("host "+host+" refuses flows that it needs: "+err.Error(), "the log of the controller has each message that was refused")
		}
	}
	for _, of := range explainPort(v, p, w).Findings {
		e.find(fmt.Sprintf("port %s: %s", portName(p), of.What), of.Mend)
	}
	return e
}
