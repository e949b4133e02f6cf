package lab

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
)

// Bridges that the lab makes on a host. The controller makes br-int and br-tun.
const (
	underlayBridge = "br-phy" // NORMAL; holds the underlay link, LOCAL the tunnel address
	providerBridge = "br-ex"  // mapped to physnet1
)

// Host is a hypervisor.
type Host struct {
	*Node
	Switch
	rec record
}

func (l *Lab) hostOf(rec record) *Host {
	a := addrs(l.rec.Index)
	links := []string{
		"link set " + underlayBridge + " up",
		fmt.Sprintf("addr replace %s/24 dev %s", a.tunnel(rec.Number), underlayBridge),
		"link set " + providerBridge + " up",
	}
	if rec.InBand {
		links = append(links,
			fmt.Sprintf("addr replace %s/24 dev %s", a.onPhys(rec.Number), providerBridge),
			fmt.Sprintf("route replace %s/24 via %s", a.management(0), a.rootOnPhys()))
	}
	node := l.nodeOf(rec)
	return &Host{Node: node, Switch: Switch{node: node, links: links}, rec: rec}
}

// LocalIP is the host's tunnel address (planck-local-ip).
func (h *Host) LocalIP() string { return addrs(h.lab.rec.Index).tunnel(h.rec.Number).String() }

// ManagementIP is the address from which the host reaches the controller: on
// mgmt0 or, in-band, on br-ex.
func (h *Host) ManagementIP() string {
	if h.rec.InBand {
		return addrs(h.lab.rec.Index).onPhys(h.rec.Number).String()
	}
	return addrs(h.lab.rec.Index).management(h.rec.Number).String()
}

// InBand says whether br-ex is the host's only path to the controller.
func (h *Host) InBand() bool { return h.rec.InBand }

// createHost makes a hypervisor that is not yet a port of the physical network.
func (l *Lab) createHost(ctx context.Context, number int, inBand bool) (*Host, error) {
	rec := record{Name: hostName(number), Kind: KindHost, Number: number, InBand: inBand}
	if err := l.claimNode(rec); err != nil {
		return nil, err
	}
	h := l.hostOf(rec)
	if err := h.createLinks(ctx); err != nil {
		return nil, fmt.Errorf("%s: %w", h.name, err)
	}
	config, err := h.config()
	if err != nil {
		return nil, err
	}
	if err := h.create(ctx, config); err != nil {
		return nil, fmt.Errorf("%s: %w", h.name, err)
	}
	return h, nil
}

func (h *Host) createLinks(ctx context.Context) error {
	ns, phys, index := h.Namespace(), h.lab.namespace(switchName), h.lab.rec.Index
	lines := []string{
		"netns add " + ns,
		fmt.Sprintf("link add name %s netns %s type veth peer name u-%s netns %s", Underlay, ns, h.name, phys),
		fmt.Sprintf("link add name %s netns %s type veth peer name %s netns %s", Physical, ns, h.name, phys),
	}
	own := []string{"link set lo up", "link set " + Underlay + " up", "link set " + Physical + " up"}
	if !h.rec.InBand {
		lines = append(lines, fmt.Sprintf("link add name %s master %s up type veth peer name %s netns %s",
			mgmtPort(index, h.rec.Number), mgmtBridge(index), Management, ns))
		own = append(own, fmt.Sprintf("addr add %s/24 dev %s", h.ManagementIP(), Management), "link set "+Management+" up")
	}
	if err := createNamespaces(ctx, lines...); err != nil {
		return err
	}
	if err := h.noIPv6(); err != nil {
		return err
	}
	peers := []string{
		fmt.Sprintf("link set u-%s master %s up", h.name, underlaySwitch),
		fmt.Sprintf("link set %s up", h.name),
	}
	return parallel(
		func() error { return ip(ctx, ns, own...) },
		func() error { return ip(ctx, phys, peers...) },
	)
}

// config is the database of a hypervisor before it joins: what the operator's
// installation and the host contract put there.
func (h *Host) config() ([]string, error) {
	id, err := randomUUID()
	if err != nil {
		return nil, err
	}
	return []string{
		"set", "Open_vSwitch", ".",
		"external_ids:hostname=" + h.name,
		"external_ids:system-id=" + id,
		"external_ids:planck-local-ip=" + h.LocalIP(),
		"external_ids:planck-bridge-mappings=physnet1:" + providerBridge,
		"external_ids:planck-datapath-type=netdev",
		"--", "add-br", underlayBridge,
		"--", "set", "Bridge", underlayBridge, "datapath_type=netdev", "other_config:hwaddr=\"" + h.mac(1) + "\"",
		"--", "add-port", underlayBridge, Underlay,
		"--", "add-br", providerBridge,
		"--", "set", "Bridge", providerBridge, "datapath_type=netdev", "other_config:hwaddr=\"" + h.mac(2) + "\"",
		"--", "add-port", providerBridge, Physical,
	}, nil
}

// mac gives a bridge an address that, like that of a real NIC, survives a
// restart of the switch: neighbours need not ask again.
func (h *Host) mac(bridge int) string {
	return fmt.Sprintf("0a:50:4c:%02x:%02x:%02x", h.lab.rec.Index, h.rec.Number, bridge)
}

// SetManager points the host at controllers, such as "tcp:192.0.2.1:6640". The
// host "controller" in a target stands for the address of the root namespace
// that this host reaches. No target takes the host away from its controllers.
func (h *Host) SetManager(targets ...string) error {
	if len(targets) == 0 {
		_, err := h.Vsctl("--no-wait", "del-manager")
		return err
	}
	address := h.lab.ControllerIP()
	if h.rec.InBand {
		address = h.lab.InBandControllerIP()
	}
	args := []string{"--no-wait", "set-manager"}
	for _, target := range targets {
		args = append(args, strings.Replace(target, ":"+ControllerHost+":", ":"+address+":", 1))
	}
	_, err := h.Vsctl(args...)
	return err
}

// LinkDown takes one of the host's links down: Management, Underlay or
// Physical.
func (h *Host) LinkDown(link string) error { return h.setLink(link, "down") }

// LinkUp brings a link up again.
func (h *Host) LinkUp(link string) error { return h.setLink(link, "up") }

// Cut loses all packets to an address, without a word to either side.
func (h *Host) Cut(address string) error {
	return ip(context.Background(), h.Namespace(), "route add blackhole "+address+"/32")
}

// Mend ends Cut.
func (h *Host) Mend(address string) error {
	return ip(context.Background(), h.Namespace(), "route del blackhole "+address+"/32")
}

func (h *Host) setLink(link, state string) error {
	return ip(context.Background(), h.Namespace(), "link set "+link+" "+state)
}

// removeHost cuts a hypervisor's power. Its VMs must be gone.
func (l *Lab) removeHost(ctx context.Context, rec record) error {
	for _, vm := range l.VMs() {
		if host, err := vm.Host(); err == nil && host.name == rec.Name {
			return fmt.Errorf("%s still has VM %s", rec.Name, vm.name)
		}
	}
	h := l.hostOf(rec)
	var errs []error
	for _, pid := range []int{h.VswitchdPID(), h.OvsdbPID()} {
		if pid != 0 {
			errs = append(errs, endProcess(pid, syscall.SIGKILL))
		}
	}
	_, err := l.physSwitch().Vsctl("--if-exists", "del-port", physBridge, rec.Name)
	return errors.Join(append(errs, err, l.removeNode(ctx, rec.Name))...)
}
