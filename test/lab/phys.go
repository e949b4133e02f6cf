package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
)

const (
	physBridge     = "br-physnet1" // in the phys namespace: Open vSwitch, NORMAL, VLANs
	underlaySwitch = "underlay"    // in the phys namespace: a Linux bridge
	rootPort       = "root"        // port of physBridge to the root namespace
)

// createNetworks makes what hosts are connected to: the management bridge in
// the root namespace and, in a namespace of its own, the underlay.
func (l *Lab) createNetworks(ctx context.Context) error {
	rec := record{Name: switchName, Kind: KindSwitch}
	if err := l.claimNode(rec); err != nil {
		return err
	}
	node, bridge := l.nodeOf(rec), mgmtBridge(l.rec.Index)
	err := createNamespaces(ctx,
		"link add name "+bridge+" type bridge",
		fmt.Sprintf("addr add %s/24 dev %s", l.ControllerIP(), bridge),
		"link set "+bridge+" up",
		"netns add "+node.Namespace())
	if err != nil {
		return err
	}
	if err := node.noIPv6(); err != nil {
		return err
	}
	return ip(ctx, node.Namespace(), "link set lo up", "link add name "+underlaySwitch+" up type bridge")
}

// physSwitch is the switch of the physical network.
func (l *Lab) physSwitch() *Switch {
	return &Switch{node: l.nodeOf(record{Name: switchName, Kind: KindSwitch})}
}

// PhysicalSwitch is the Open vSwitch (bridge br-physnet1, NORMAL) that joins
// the br-ex of all hosts (ports named like the hosts, trunks), ext, physical
// hosts and the root namespace.
func (l *Lab) PhysicalSwitch() *Switch { return l.physSwitch() }

// startPhysical starts the physical network with ext and the root namespace,
// for hosts that are in-band, on it.
func (l *Lab) startPhysical(ctx context.Context, extAddrs []string) error {
	ext := record{Name: extName, Kind: KindExt, Addrs: extAddrs}
	if err := l.claimNode(ext); err != nil {
		return err
	}
	err := parallel(
		func() error { return l.createRootLink(ctx) },
		func() error { return l.createPhysLinks(ctx, ext) },
	)
	if err != nil {
		return fmt.Errorf("physical network: %w", err)
	}
	config := []string{"add-br", physBridge,
		"--", "set", "Bridge", physBridge, "datapath_type=netdev",
		"--", "add-port", physBridge, rootPort, "--"}
	return l.physSwitch().create(ctx, append(config, physPort(ext)...))
}

func (l *Lab) createRootLink(ctx context.Context) error {
	link, phys := rootPhysLink(l.rec.Index), l.namespace(switchName)
	err := ip(ctx, "",
		fmt.Sprintf("link add name %s type veth peer name %s netns %s", link, rootPort, phys),
		"link set "+link+" addrgenmode none",
		fmt.Sprintf("addr add %s/24 dev %s", l.InBandControllerIP(), link),
		"link set "+link+" up")
	if err != nil {
		return err
	}
	if err := run(ctx, "ethtool", "-K", link, "tx", "off", "gro", "off"); err != nil {
		return err
	}
	return ip(ctx, phys, "link set "+rootPort+" up")
}

// PhysOptions say how a physical host is connected.
type PhysOptions struct {
	// VLAN is that of its access port, 1 to 4094; 0 is untagged.
	VLAN int
	// Addrs are the addresses (CIDR) of its eth0.
	Addrs []string
}

// AddPhys makes a physical host on the physical network.
func (l *Lab) AddPhys(ctx context.Context, name string, opts PhysOptions) (*Node, error) {
	if len(name) > maxIfName {
		return nil, fmt.Errorf("physical host name %q: %d characters at most", name, maxIfName)
	}
	if opts.VLAN < 0 || opts.VLAN > 4094 {
		return nil, fmt.Errorf("physical host %s: VLAN %d, want 1 to 4094, or 0 for untagged", name, opts.VLAN)
	}
	for _, addr := range opts.Addrs {
		if _, err := netip.ParsePrefix(addr); err != nil {
			return nil, fmt.Errorf("physical host %s: %w", name, err)
		}
	}
	rec := record{Name: name, Kind: KindPhys, VLAN: opts.VLAN, Addrs: opts.Addrs}
	if err := l.claimNode(rec); err != nil {
		return nil, err
	}
	err := l.createPhysLinks(ctx, rec)
	if err == nil {
		_, err = l.physSwitch().Vsctl(physPort(rec)...)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("physical host %s: %w", name, err), l.removePhys(ctx, rec))
	}
	return l.nodeOf(rec), nil
}

// createPhysLinks makes the namespace of ext or a physical host, with eth0 on a
// veth to the physical switch.
func (l *Lab) createPhysLinks(ctx context.Context, rec record) error {
	n, phys := l.nodeOf(rec), l.namespace(switchName)
	err := createNamespaces(ctx,
		"netns add "+n.Namespace(),
		fmt.Sprintf("link add name eth0 netns %s type veth peer name %s netns %s", n.Namespace(), rec.Name, phys))
	if err != nil {
		return err
	}
	if err := n.createResolvConf(); err != nil {
		return err
	}
	lines := []string{"link set lo up", "link set eth0 up"}
	for _, addr := range rec.Addrs {
		lines = append(lines, "addr add "+addr+" dev eth0")
	}
	if err := ip(ctx, n.Namespace(), lines...); err != nil {
		return err
	}
	if err := n.wholePackets(ctx, "eth0"); err != nil {
		return err
	}
	return ip(ctx, phys, "link set "+rec.Name+" up")
}

// physPort is the ovs-vsctl command that plugs a physical host.
func physPort(rec record) []string {
	args := []string{"add-port", physBridge, rec.Name}
	if rec.VLAN != 0 {
		args = append(args, fmt.Sprintf("tag=%d", rec.VLAN))
	}
	return args
}

func (l *Lab) removePhys(ctx context.Context, rec record) error {
	_, err := l.physSwitch().Vsctl("--if-exists", "del-port", physBridge, rec.Name)
	return errors.Join(err, l.removeNode(ctx, rec.Name))
}
