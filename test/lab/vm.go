package lab

import (
	"context"
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// integrationBridge is where VIFs are plugged.
const integrationBridge = "br-int"

// VMPort is what Nova knows of the Neutron port of a VM.
type VMPort struct {
	// ID is the port's id: the iface-id of the plug.
	ID string `json:"id"`
	// MAC is the address of the VM's eth0.
	MAC string `json:"mac"`
	// MTU of eth0 and its tap, in bytes; 0 leaves 1500.
	MTU int `json:"mtu,omitempty"`
	// DeviceID is the instance's id (vm-uuid); empty makes one.
	DeviceID string `json:"device_id"`
}

// tap is the name that Neutron and os-vif agree on.
func (p VMPort) tap() string { return "tap" + p.ID[:min(len(p.ID), 11)] }

func (p *VMPort) complete() error {
	if p.ID == "" {
		return errors.New("the port has no id")
	}
	if _, err := net.ParseMAC(p.MAC); err != nil {
		return fmt.Errorf("port %s: %w", p.ID, err)
	}
	if p.MTU == 0 {
		p.MTU = 1500
	}
	if p.DeviceID != "" {
		return nil
	}
	id, err := randomUUID()
	p.DeviceID = id
	return err
}

// VM is a virtual machine: a namespace with one link, eth0, whose other end is
// a tap on its host.
type VM struct {
	*Node
	// Port is what it was made with.
	Port VMPort
}

func (l *Lab) vmOf(rec record) *VM { return &VM{Node: l.nodeOf(rec), Port: *rec.Port} }

// Tap is the name of its link on the host.
func (v *VM) Tap() string { return v.Port.tap() }

// Host is the hypervisor that it runs on now.
func (v *VM) Host() (*Host, error) {
	rec, err := v.lab.record(v.name)
	if err != nil {
		return nil, err
	}
	return v.lab.mustHost(rec.Host)
}

func (l *Lab) mustHost(name string) (*Host, error) {
	if h := l.Host(name); h != nil {
		return h, nil
	}
	return nil, fmt.Errorf("lab %s has no host %s", l.rec.Name, name)
}

// AddVM makes a VM on a host and plugs it. It waits for br-int, but not for
// flows.
func (l *Lab) AddVM(ctx context.Context, host, name string, port VMPort) (*VM, error) {
	h, err := l.mustHost(host)
	if err != nil {
		return nil, err
	}
	if err := port.complete(); err != nil {
		return nil, fmt.Errorf("VM %s: %w", name, err)
	}
	rec := record{Name: name, Kind: KindVM, Host: host, Port: &port}
	if err := l.claimNode(rec); err != nil {
		return nil, err
	}
	vm := l.vmOf(rec)
	err = vm.createLinks(ctx, h)
	if err == nil {
		err = vm.plug(ctx, h)
	}
	if err == nil {
		err = ip(ctx, vm.Namespace(), "link set eth0 up")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("VM %s: %w", name, err), l.removeVM(context.WithoutCancel(ctx), rec))
	}
	return vm, nil
}

func (v *VM) createLinks(ctx context.Context, h *Host) error {
	ns, tap := v.Namespace(), v.Tap()
	err := createNamespaces(ctx,
		"netns add "+ns,
		fmt.Sprintf("link add name eth0 netns %s address %s mtu %d type veth peer name %s netns %s mtu %d",
			ns, v.Port.MAC, v.Port.MTU, tap, h.Namespace(), v.Port.MTU))
	if err != nil {
		return err
	}
	if err := v.createResolvConf(); err != nil {
		return err
	}
	return parallel(
		func() error { return ip(ctx, ns, "link set lo up") },
		func() error { return ip(ctx, h.Namespace(), "link set "+tap+" up") },
		func() error { return v.wholePackets(ctx, "eth0") },
		func() error { return h.wholePackets(ctx, tap) },
	)
}

// Plug puts the VM's tap into br-int of its host, as os-vif does.
func (v *VM) Plug(ctx context.Context) error {
	h, err := v.Host()
	if err != nil {
		return err
	}
	return v.plug(ctx, h)
}

func (v *VM) plug(ctx context.Context, h *Host) error {
	if err := h.waitBridge(ctx, integrationBridge); err != nil {
		return err
	}
	tap := v.Tap()
	_, err := h.Vsctl("--", "--may-exist", "add-port", integrationBridge, tap,
		"--", "set", "Interface", tap,
		"external_ids:iface-id="+v.Port.ID,
		"external_ids:iface-status=active",
		fmt.Sprintf("external_ids:attached-mac=\"%s\"", v.Port.MAC),
		"external_ids:vm-uuid="+v.Port.DeviceID,
		fmt.Sprintf("mtu_request=%d", v.Port.MTU))
	return err
}

// waitBridge waits for a bridge that the controller makes.
func (h *Host) waitBridge(ctx context.Context, bridge string) error {
	timeout := h.lab.rec.PlugTimeout
	waitCtx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	cmd := withEnv(command(waitCtx, "ovs-vsctl", "wait-until", "Bridge", bridge), h.Env()...)
	if _, err := output(cmd); err != nil {
		return fmt.Errorf("%s has no bridge %s (does it reach its controller?), waited %s: %w", h.name, bridge, timeout, err)
	}
	return nil
}

// Unplug takes the VM's tap out of br-int, as os-vif does. The VM and its links
// stay.
func (v *VM) Unplug() error {
	h, err := v.Host()
	if err != nil {
		return err
	}
	return v.unplug(h)
}

func (v *VM) unplug(h *Host) error {
	args := []string{"--if-exists", "del-port", v.Tap()}
	if h.VswitchdPID() == 0 {
		args = append([]string{"--no-wait"}, args...)
	}
	_, err := h.Vsctl(args...)
	return err
}

// Migrate moves the VM to another host as a live migration does: unplugged
// there, plugged here with the same iface-id, announced by RARP as QEMU does
// (five frames within 0.8 s). Addresses and connections of the VM stay. The
// caller tells the API of the new host.
func (v *VM) Migrate(ctx context.Context, host string) error {
	src, err := v.Host()
	if err != nil {
		return err
	}
	dst, err := v.lab.mustHost(host)
	if err != nil {
		return err
	}
	if src.name == dst.name {
		return fmt.Errorf("VM %s is on %s already", v.name, host)
	}
	if err := v.unplug(src); err != nil {
		return err
	}
	if err := v.moveTap(ctx, src, dst); err != nil {
		return err
	}
	if err := v.plug(ctx, dst); err != nil {
		return err
	}
	return v.AnnounceRARP(ctx)
}

func (v *VM) moveTap(ctx context.Context, src, dst *Host) error {
	if err := ip(ctx, src.Namespace(), fmt.Sprintf("link set %s netns %s", v.Tap(), dst.Namespace())); err != nil {
		return err
	}
	if err := ip(ctx, dst.Namespace(), "link set "+v.Tap()+" up"); err != nil {
		return err
	}
	rec, err := v.lab.record(v.name)
	if err != nil {
		return err
	}
	rec.Host = dst.name
	return writeJSON(v.lab.nodeFile(v.name), rec)
}

// removeVM destroys a VM as libvirt and os-vif do. A host that is dead can't
// unplug: the VM goes all the same.
func (l *Lab) removeVM(ctx context.Context, rec record) error {
	vm := l.vmOf(rec)
	var errs []error
	if h := l.Host(rec.Host); h != nil && h.OvsdbPID() != 0 {
		errs = append(errs, vm.unplug(h))
	}
	return errors.Join(append(errs, l.removeNode(ctx, rec.Name))...)
}

// removeNode ends the node's processes and removes its namespace and files.
func (l *Lab) removeNode(ctx context.Context, name string) error {
	ns := l.namespace(name)
	if err := endAll(func() []int { return pidsIn([]string{ns}) }); err != nil {
		return err
	}
	if len(namespacesWith(ns)) > 0 {
		if err := ip(ctx, "", "netns del "+ns); err != nil {
			return err
		}
	}
	return l.forgetNode(name)
}

// endAll kills processes until none is found: they may fork meanwhile. All are
// stopped first, so that none goes on when it sees another die.
func endAll(find func() []int) error {
	for {
		pids := sortedPIDs(find())
		if len(pids) == 0 {
			return nil
		}
		var ends []func() error
		for _, pid := range pids {
			if err := unix.Kill(pid, unix.SIGSTOP); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("stop process %d: %w", pid, err)
			}
			ends = append(ends, func() error { return endProcess(pid, unix.SIGKILL) })
		}
		if err := parallel(ends...); err != nil {
			return err
		}
	}
}
