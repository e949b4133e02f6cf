package ovsdb

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strconv"

	"planck/network"
	"planck/ovsdb/vswitch"
)

// peerBFD is how two hosts watch each other: a peer is down when ten packets in
// a row, 100 ms apart, were lost. That many are not lost on a link that is just
// busy. An idle link is not watched more slowly (decay_min_rx).
var peerBFD = map[string]string{
	"enable":       "true",
	"min_tx":       "100",
	"min_rx":       "100",
	"mult":         "10",
	"decay_min_rx": "0",
}

// firstPeerPort is where the OpenFlow ports towards peers begin on br-tun.
const firstPeerPort = 16

// wantedPeers are the tunnel ports towards the hosts that this one exchanges
// BFD with. Their data arrives there as well; none is sent there.
func (c *contract) wantedPeers() []wantedPort {
	var out []wantedPort
	for _, peer := range c.peers {
		out = append(out, wantedPort{
			bridge: network.BridgeTunnel, name: peerPort(peer.Name), kind: c.peerType,
			options: map[string]string{"key": "flow", "remote_ip": peer.TunnelIP.String(), "local_ip": c.tunnelIP.String()},
			mark:    markPeer, preferred: firstPeerPort, bfd: peerBFD, peer: peer.Name,
		})
	}
	return out
}

// peerPort is the name of the tunnel port towards a host.
func peerPort(host string) string {
	sum := sha256.Sum256([]byte(host))
	return "peer-" + hex.EncodeToString(sum[:5])
}

// readPeers is what a host sees of its peers: those without a status yet are
// left out.
func readPeers(host string, b *bridgeRows) map[string]network.PeerReport {
	reports := map[string]network.PeerReport{}
	if b == nil {
		return reports
	}
	for _, port := range b.ports {
		i := port.only()
		if i == nil || i.ExternalIDs[keyPeer] == "" || len(i.BFDStatus) == 0 {
			continue
		}
		flaps, _ := strconv.Atoi(i.BFDStatus["flap_count"])
		peer := i.ExternalIDs[keyPeer]
		reports[peer] = network.PeerReport{
			Host: host, Peer: peer, Up: i.BFDStatus["state"] == "up", Ever: flaps > 0,
		}
	}
	return reports
}

// readUnwired is the mapped bridges all of whose wires have no link. One without
// wires leads to what is on the host itself, and is well.
func readUnwired(c *contract, s *snapshot) []string {
	var unwired []string
	for _, name := range c.mapped() {
		if b := s.bridges[name]; b != nil && b.unwired() {
			unwired = append(unwired, name)
		}
	}
	return unwired
}

func (b *bridgeRows) unwired() bool {
	dead := false
	for _, port := range b.ports {
		for _, i := range port.interfaces {
			if !isWire(i) {
				continue
			}
			if i.LinkState == nil || *i.LinkState != vswitch.InterfaceLinkStateDown {
				return false
			}
			dead = true
		}
	}
	return dead
}

// isWire reports whether an interface of a mapped bridge leads out of the host.
func isWire(i *vswitch.Interface) bool { return i.Type != "patch" && i.Type != "internal" }

// notePeers takes what a host sees of its peers, and which bridges it has
// without a link.
func (s *Server) notePeers(c *connection, reports map[string]network.PeerReport, unwired []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, known := s.reports[c.host]
	if s.hosts[c.host] != c || known && maps.Equal(old, reports) && slices.Equal(s.unwired[c.host], unwired) {
		return
	}
	s.reports[c.host], s.unwired[c.host] = reports, unwired
	s.opts.PeersChanged()
}

// Unwired is the bridges of a connected host that lead to physical networks and
// have no link.
func (s *Server) Unwired(host string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unwired[host]
}

// PeerReports is what the connected hosts see of their peers.
func (s *Server) PeerReports() []network.PeerReport {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []network.PeerReport
	for _, reports := range s.reports {
		all = slices.AppendSeq(all, maps.Values(reports))
	}
	return all
}

// followGateways keeps the peers of all hosts as the model wants them.
func (s *Server) followGateways(ctx context.Context) {
	f := s.opts.Store.Follow()
	defer f.Close()
	for {
		batch, err := f.Next(ctx)
		if err != nil {
			return
		}
		if slices.ContainsFunc(batch.Changes, concernsPeers) {
			s.setWatch(batch.View)
		}
	}
}

func concernsPeers(ch network.Change) bool {
	return ch.Kind == network.KindHost || ch.Kind == network.KindGatewayPlacement
}

func (s *Server) setWatch(v *network.View) {
	watch := map[string][]*network.Host{}
	for host, peers := range v.GatewayWatch() {
		for _, peer := range peers {
			watch[host] = append(watch[host], v.Host(peer))
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, c := range s.hosts {
		if !slices.EqualFunc(watch[name], s.watch[name], samePeer) {
			c.poke()
		}
	}
	s.watch = watch
}

func samePeer(a, b *network.Host) bool { return a.Name == b.Name && a.TunnelIP == b.TunnelIP }

// peersOf are the hosts that a host exchanges BFD with.
func (s *Server) peersOf(host string) []*network.Host {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.watch[host]
}
