// Package lab makes virtual hypervisors, VMs, a physical network and an
// "Internet" on one Linux machine.
//
// A hypervisor is a network namespace with its own ovsdb-server and
// ovs-vswitchd (user-space datapath). It has three links: management (OVSDB and
// OpenFlow, on a plain Linux bridge, so that they never cross the datapath that
// they control), underlay (tunnels, on a bridge br-phy) and physical (the wire
// of br-ex, a trunk to a switch of its own). A VM is a namespace on a veth pair
// that is plugged exactly as os-vif plugs it. The controller runs outside, in
// the root namespace; it, and not the lab, makes br-int and br-tun.
//
// All state is in files below Dir(), so a lab made by one process is continued
// by another with Open, and taken down after a crash with Down.
package lab

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// DefaultName is the lab that planck-lab works on unless told otherwise.
const DefaultName = "planck"

// Links of a host, for LinkDown, LinkUp and Capture.
const (
	Management = "mgmt0"     // OVSDB and OpenFlow; absent on in-band hosts
	Underlay   = "underlay0" // carries tunnels, a port of br-phy
	Physical   = "phys0"     // trunk to the physical network, the wire of br-ex
)

// ControllerHost is the word that stands for the lab's own address of the root
// namespace in a controller target: "tcp:controller:6640".
const ControllerHost = "controller"

// ErrExists is returned by New when a lab of that name is up.
var ErrExists = errors.New("lab is up already")

// ErrNotExist is returned by Open when there is no lab of that name.
var ErrNotExist = errors.New("no such lab")

// Options say what New makes.
type Options struct {
	// Name tells labs on one machine apart: lower-case letters, digits and
	// dashes, 24 characters at most. Empty means DefaultName.
	Name string
	// Hosts is the number of hypervisors: host1, host2, …
	Hosts int
	// Controllers are OVSDB targets for set-manager, such as
	// "tcp:192.0.2.1:6640" or "tcp:controller:6640" (see ControllerHost).
	Controllers []string
	// InBand names the hosts that have no management link: they reach the
	// controller through LOCAL of br-ex and the physical network only.
	InBand []string
	// ExtAddrs are the addresses (CIDR) of the ext namespace, untagged on the
	// physical network. Empty means 203.0.113.1/24 and 198.51.100.1/32.
	ExtAddrs []string
	// PlugTimeout bounds the wait for br-int when a VM is plugged. Zero means
	// ten seconds.
	PlugTimeout time.Duration
}

// Lab is one set of hypervisors and what belongs to it. Its methods may be
// called from several goroutines and, for the same lab, from several processes.
type Lab struct {
	rec labRecord

	mu        sync.Mutex // creation of hosts in this process
	procMu    sync.Mutex
	processes []*Process
}

// New makes a lab. When it fails it leaves nothing behind. The error wraps
// ErrExists when a lab of that name is up.
func New(ctx context.Context, opts Options) (*Lab, error) {
	return newLab(ctx, opts, nil)
}

func newLab(ctx context.Context, opts Options, owner *owner) (*Lab, error) {
	if err := Check(); err != nil {
		return nil, err
	}
	opts.setDefaults()
	if err := opts.validate(); err != nil {
		return nil, err
	}
	rec, err := claimLab(opts, owner)
	if err != nil {
		return nil, err
	}
	l := &Lab{rec: rec}
	if err := l.build(ctx, opts); err != nil {
		return nil, errors.Join(fmt.Errorf("lab %s: %w", opts.Name, err), l.Down())
	}
	return l, nil
}

func (o *Options) setDefaults() {
	if o.Name == "" {
		o.Name = DefaultName
	}
	if len(o.ExtAddrs) == 0 {
		o.ExtAddrs = []string{"203.0.113.1/24", "198.51.100.1/32"}
	}
	if o.PlugTimeout == 0 {
		o.PlugTimeout = 10 * time.Second
	}
}

func (o *Options) validate() error {
	if err := checkName("lab", o.Name); err != nil {
		return err
	}
	if o.Hosts < 0 || o.Hosts > maxHosts {
		return fmt.Errorf("lab %s: %d hosts, want 0 to %d", o.Name, o.Hosts, maxHosts)
	}
	for _, name := range o.InBand {
		if !slices.Contains(hostNames(o.Hosts), name) {
			return fmt.Errorf("lab %s: in-band host %q is not one of its %d hosts (host1, host2, …)", o.Name, name, o.Hosts)
		}
	}
	for _, addr := range o.ExtAddrs {
		if _, err := netip.ParsePrefix(addr); err != nil {
			return fmt.Errorf("lab %s: address of ext: %w", o.Name, err)
		}
	}
	return nil
}

// Open finds a lab that this or another process made. The error wraps
// ErrNotExist when there is none.
func Open(name string) (*Lab, error) {
	if err := Check(); err != nil {
		return nil, err
	}
	if name == "" {
		name = DefaultName
	}
	if err := checkName("lab", name); err != nil {
		return nil, err
	}
	rec, err := readLab(name)
	if err != nil {
		return nil, err
	}
	return &Lab{rec: rec}, nil
}

// build starts the physical network and the hosts at the same time, joins them
// and, with everything in place, tells the hosts their controller: a switch
// that dials too early waits up to eight seconds before it dials again.
func (l *Lab) build(ctx context.Context, opts Options) error {
	if err := l.createNetworks(ctx); err != nil {
		return err
	}
	if err := createEmptyDatabase(ctx, l.emptyDatabase()); err != nil {
		return err
	}
	hosts := make([]*Host, opts.Hosts)
	starts := []func() error{func() error { return l.startPhysical(ctx, opts.ExtAddrs) }}
	for i, name := range hostNames(opts.Hosts) {
		starts = append(starts, func() (err error) {
			hosts[i], err = l.createHost(ctx, i+1, slices.Contains(opts.InBand, name))
			return err
		})
	}
	if err := parallel(starts...); err != nil {
		return err
	}
	return l.connectHosts(hosts)
}

// connectHosts joins the hosts to the physical network, then to the controller.
func (l *Lab) connectHosts(hosts []*Host) error {
	if len(hosts) == 0 {
		return nil
	}
	var trunks []string
	for _, h := range hosts {
		trunks = append(trunks, "--", "--may-exist", "add-port", physBridge, h.name)
	}
	if _, err := l.physSwitch().Vsctl(trunks[1:]...); err != nil {
		return err
	}
	if len(l.rec.Controllers) == 0 {
		return nil
	}
	var sets []func() error
	for _, h := range hosts {
		sets = append(sets, func() error { return h.SetManager(l.rec.Controllers...) })
	}
	return parallel(sets...)
}

// AddHost makes one more hypervisor, with the lowest free number, and joins it
// to the lab's controllers.
func (l *Lab) AddHost(ctx context.Context, inBand bool) (*Host, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	number, err := l.freeHostNumber()
	if err != nil {
		return nil, err
	}
	h, err := l.createHost(ctx, number, inBand)
	if err != nil {
		return nil, errors.Join(err, l.Remove(ctx, hostName(number)))
	}
	return h, l.connectHosts([]*Host{h})
}

// Name is the lab's name.
func (l *Lab) Name() string { return l.rec.Name }

// Dir is where the lab keeps its state, databases and logs.
func (l *Lab) Dir() string { return labDir(l.rec.Name) }

// ControllerIP is the address of the root namespace on the management network:
// where hosts, in-band ones too, reach a controller.
func (l *Lab) ControllerIP() string { return addrs(l.rec.Index).controller().String() }

// maxControllers is how many addresses the root namespace has at the most.
const maxControllers = 3

// AddController gives the root namespace one more address, 1 to 3, for a
// controller that hosts are to reach by an address of its own.
func (l *Lab) AddController(ctx context.Context, number int) (address string, err error) {
	if number < 1 || number > maxControllers {
		return "", fmt.Errorf("lab %s: controller %d, want 1 to %d", l.rec.Name, number, maxControllers)
	}
	address = addrs(l.rec.Index).management(maxHosts + number).String()
	return address, ip(ctx, "", fmt.Sprintf("addr add %s/32 dev %s", address, mgmtBridge(l.rec.Index)))
}

// InBandControllerIP is the address of the root namespace on the physical
// network, used by hosts that are in-band.
func (l *Lab) InBandControllerIP() string { return addrs(l.rec.Index).rootOnPhys().String() }

// Hosts are the hypervisors, in order of their numbers.
func (l *Lab) Hosts() []*Host {
	var hosts []*Host
	for _, rec := range l.records() {
		if rec.Kind == KindHost {
			hosts = append(hosts, l.hostOf(rec))
		}
	}
	slices.SortFunc(hosts, func(a, b *Host) int { return a.rec.Number - b.rec.Number })
	return hosts
}

// VMs are the virtual machines, ordered by name.
func (l *Lab) VMs() []*VM {
	var vms []*VM
	for _, rec := range l.records() {
		if rec.Kind == KindVM {
			vms = append(vms, l.vmOf(rec))
		}
	}
	return vms
}

// Host is the hypervisor of that name, or nil.
func (l *Lab) Host(name string) *Host {
	rec, err := l.record(name)
	if err != nil || rec.Kind != KindHost {
		return nil
	}
	return l.hostOf(rec)
}

// VM is the virtual machine of that name, or nil.
func (l *Lab) VM(name string) *VM {
	rec, err := l.record(name)
	if err != nil || rec.Kind != KindVM {
		return nil
	}
	return l.vmOf(rec)
}

// Node is the host, VM, physical host, ext or physical switch of that name, or
// nil.
func (l *Lab) Node(name string) *Node {
	rec, err := l.record(name)
	if err != nil {
		return nil
	}
	return l.nodeOf(rec)
}

// Ext plays the Internet: it is untagged on the physical network.
func (l *Lab) Ext() *Node { return l.nodeOf(record{Name: extName, Kind: KindExt}) }

// Remove takes a VM, physical host or hypervisor away as if its power was cut,
// VMs also out of their host's switch. A name that is not there is no error.
func (l *Lab) Remove(ctx context.Context, name string) error {
	rec, err := l.record(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	switch rec.Kind {
	case KindVM:
		return l.removeVM(ctx, rec)
	case KindPhys:
		return l.removePhys(ctx, rec)
	case KindHost:
		return l.removeHost(ctx, rec)
	}
	return fmt.Errorf("lab %s: %s belongs to the lab itself: take the lab down instead", l.rec.Name, name)
}

// TB is what ForTest needs of testing.TB.
type TB interface {
	Helper()
	Name() string
	Cleanup(func())
	Failed() bool
	Context() context.Context
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// ForTest makes a lab for one test and takes it down when the test ends. The
// name, unless given, is made of the process id, so that packages test in
// parallel; labs of test processes that died are swept first. With
// PLANCK_LAB_KEEP=1 in the environment the lab of a failed test stays up until
// then.
func ForTest(t TB, opts Options) *Lab {
	t.Helper()
	if err := Check(); err != nil {
		t.Fatalf("%v", err)
	}
	if err := sweep(); err != nil {
		t.Fatalf("labs of dead tests: %v", err)
	}
	if opts.Name == "" {
		opts.Name = testName(t.Name())
	}
	if opts.PlugTimeout == 0 {
		opts.PlugTimeout = testPlugTimeout
	}
	l, err := newLab(t.Context(), opts, self())
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() {
		if t.Failed() && os.Getenv("PLANCK_LAB_KEEP") != "" {
			t.Logf("lab %s stays up: %s", l.Name(), l.Dir())
			return
		}
		if err := l.Down(); err != nil {
			t.Errorf("%v", err)
		}
	})
	return l
}

// testPlugTimeout is for a machine on which many tests run.
const testPlugTimeout = time.Minute

// testSerial counts the labs of this process.
var testSerial struct {
	sync.Mutex
	n int
}

// testName is unique on the machine and still says which test it is.
func testName(test string) string {
	testSerial.Lock()
	testSerial.n++
	n := testSerial.n
	testSerial.Unlock()
	clean := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, strings.ToLower(strings.TrimPrefix(test, "Test")))
	name := fmt.Sprintf("t%d-%d-%s", os.Getpid(), n, clean)
	return strings.TrimRight(name[:min(len(name), maxName)], "-")
}

// Names lists the labs that are up or half-made.
func Names() ([]string, error) {
	found, err := labTraces()
	if err != nil {
		return nil, err
	}
	return slices.Sorted(maps.Keys(found)), nil
}

// parallel runs the functions at the same time and returns when all have.
func parallel(fns ...func() error) error {
	errs := make([]error, len(fns))
	var wg sync.WaitGroup
	for i, fn := range fns {
		wg.Go(func() { errs[i] = fn() })
	}
	wg.Wait()
	return errors.Join(errs...)
}
