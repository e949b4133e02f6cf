package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The state of lab NAME, all below stateDir:
//
//	.index/7 → NAME           claims number 7: addresses, names of root's links
//	NAME/lab.json             labRecord
//	NAME/nodes/host1.json     record; its existence claims the name
//	NAME/run/host1/           run directory: database, sockets, pid files, logs
const stateDir = "/run/planck-lab"

const (
	maxLabs    = 256 // one byte of the addresses
	maxHosts   = 250
	maxName    = 24 // keeps unix socket paths below 108 bytes
	maxIfName  = 15
	switchName = "phys"
	extName    = "ext"
)

var validName = regexp.MustCompile(`^[a-z][a-z0-9-]*$`)

// checkName guards what becomes part of paths and namespace names. No dot: the
// dot parts the lab's name from the node's.
func checkName(what, name string) error {
	if len(name) <= maxName && validName.MatchString(name) {
		return nil
	}
	return fmt.Errorf("%s name %q: want a lower-case letter, then letters, digits and dashes, %d at most", what, name, maxName)
}

func hostName(number int) string { return "host" + strconv.Itoa(number) }

func hostNames(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = hostName(i + 1)
	}
	return names
}

// addrs are the addresses of the lab with that index. 198.18.0.0/15 is meant
// for test networks (RFC 2544) and so hardly in use on the machine.
type addrs byte

func (a addrs) management(host int) netip.Addr {
	return netip.AddrFrom4([4]byte{198, 18, byte(a), byte(host)})
}
func (a addrs) onPhys(host int) netip.Addr {
	return netip.AddrFrom4([4]byte{198, 19, byte(a), byte(host)})
}
func (a addrs) tunnel(host int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 250, byte(a), byte(host)})
}
func (a addrs) controller() netip.Addr { return a.management(254) }
func (a addrs) rootOnPhys() netip.Addr { return a.onPhys(254) }

// Links of the root namespace, within maxIfName characters.
func mgmtBridge(index int) string         { return fmt.Sprintf("plm%d", index) }
func mgmtPort(index int, host int) string { return fmt.Sprintf("plm%d-%d", index, host) }
func rootPhysLink(index int) string       { return fmt.Sprintf("plx%d", index) }

// labRecord is what is known about a lab beside its nodes.
type labRecord struct {
	Name        string        `json:"name"`
	Index       int           `json:"index"`
	Controllers []string      `json:"controllers,omitempty"`
	PlugTimeout time.Duration `json:"plug_timeout"`
	Owner       *owner        `json:"owner,omitempty"`
}

// owner is the test process a lab belongs to: when it is gone, so should the
// lab be. The start time tells it from a later process with the same id.
type owner struct {
	PID   int    `json:"pid"`
	Start string `json:"start"`
}

func self() *owner { return &owner{PID: os.Getpid(), Start: startTime(os.Getpid())} }

func (o *owner) alive() bool { return startTime(o.PID) == o.Start }

// startTime is field 22 of /proc/PID/stat, or "" when there is no such process.
func startTime(pid int) string {
	fields := procStat(pid)
	if len(fields) < 20 {
		return ""
	}
	return fields[19]
}

// procStat is /proc/PID/stat from field 3, the state, on. The name before it
// may hold blanks.
func procStat(pid int) []string {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	_, rest, _ := strings.Cut(string(data), ") ")
	return strings.Fields(rest)
}

// Kind says what a node is.
type Kind string

// Kinds of nodes.
const (
	KindHost   Kind = "host"
	KindVM     Kind = "vm"
	KindPhys   Kind = "phys"
	KindExt    Kind = "ext"
	KindSwitch Kind = "switch"
)

// record is what is known about a node.
type record struct {
	Name   string   `json:"name"`
	Kind   Kind     `json:"kind"`
	Number int      `json:"number,omitempty"`  // hosts
	InBand bool     `json:"in_band,omitempty"` // hosts
	Host   string   `json:"host,omitempty"`    // VMs: where the tap is
	Port   *VMPort  `json:"port,omitempty"`    // VMs
	VLAN   int      `json:"vlan,omitempty"`    // physical hosts; 0 is untagged
	Addrs  []string `json:"addresses,omitempty"`
}

func labDir(name string) string         { return filepath.Join(stateDir, name) }
func indexDir() string                  { return filepath.Join(stateDir, ".index") }
func (l *Lab) nodeFile(n string) string { return filepath.Join(l.Dir(), "nodes", n+".json") }
func (l *Lab) runDir(n string) string   { return filepath.Join(l.Dir(), "run", n) }
func (l *Lab) emptyDatabase() string    { return filepath.Join(l.Dir(), "empty.db") }

// claimLab takes the name and an index, each in one atomic step.
func claimLab(opts Options, owner *owner) (labRecord, error) {
	if err := os.MkdirAll(indexDir(), 0o755); err != nil {
		return labRecord{}, err
	}
	dir := labDir(opts.Name)
	if err := os.Mkdir(dir, 0o755); errors.Is(err, fs.ErrExist) {
		return labRecord{}, fmt.Errorf("lab %s: %w", opts.Name, ErrExists)
	} else if err != nil {
		return labRecord{}, err
	}
	rec := labRecord{Name: opts.Name, Controllers: opts.Controllers, PlugTimeout: opts.PlugTimeout, Owner: owner}
	err := claimIndex(&rec)
	if err == nil {
		err = os.MkdirAll(filepath.Join(dir, "nodes"), 0o755)
	}
	if err == nil {
		err = writeJSON(filepath.Join(dir, "lab.json"), rec)
	}
	if err != nil {
		return labRecord{}, errors.Join(err, Down(opts.Name))
	}
	return rec, nil
}

// claimIndex uses a symbolic link because it appears with its content.
func claimIndex(rec *labRecord) error {
	for i := range maxLabs {
		err := os.Symlink(rec.Name, filepath.Join(indexDir(), strconv.Itoa(i)))
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		rec.Index = i
		return err
	}
	return fmt.Errorf("lab %s: all %d indexes are taken; see planck-lab down --all", rec.Name, maxLabs)
}

// indexesOf are the indexes that a lab has claimed: one, or none.
func indexesOf(name string) []int {
	entries, err := os.ReadDir(indexDir())
	if err != nil {
		return nil
	}
	var indexes []int
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join(indexDir(), e.Name()))
		index, errNum := strconv.Atoi(e.Name())
		if err == nil && errNum == nil && target == name {
			indexes = append(indexes, index)
		}
	}
	return indexes
}

func readLab(name string) (labRecord, error) {
	var rec labRecord
	err := readJSON(filepath.Join(labDir(name), "lab.json"), &rec)
	if errors.Is(err, fs.ErrNotExist) {
		return rec, fmt.Errorf("lab %s: %w", name, ErrNotExist)
	}
	return rec, err
}

// labTraces are the names of labs of which anything is left: a directory, an
// index or a namespace.
func labTraces() (map[string]bool, error) {
	found := map[string]bool{}
	entries, err := os.ReadDir(stateDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		if checkName("lab", e.Name()) == nil {
			found[e.Name()] = true
		}
	}
	links, err := filepath.Glob(filepath.Join(indexDir(), "*"))
	if err != nil {
		return nil, err
	}
	for _, link := range links {
		if name, err := os.Readlink(link); err == nil {
			found[name] = true
		}
	}
	for _, ns := range namespacesWith(namespacePrefix) {
		name, _, ok := strings.Cut(strings.TrimPrefix(ns, namespacePrefix), ".")
		if ok && checkName("lab", name) == nil {
			found[name] = true
		}
	}
	return found, nil
}

// claimNode makes the node's file; the name must be free.
func (l *Lab) claimNode(rec record) error {
	if err := checkName(string(rec.Kind), rec.Name); err != nil {
		return err
	}
	file := l.nodeFile(rec.Name)
	tmp, err := writeTemp(file, rec)
	if err != nil {
		return err
	}
	defer os.Remove(tmp)
	if err := os.Link(tmp, file); errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("lab %s: the name %s is taken", l.rec.Name, rec.Name)
	} else if err != nil {
		return err
	}
	return os.MkdirAll(l.runDir(rec.Name), 0o755)
}

func (l *Lab) record(name string) (record, error) {
	var rec record
	if err := checkName("node", name); err != nil {
		return rec, fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	}
	err := readJSON(l.nodeFile(name), &rec)
	if errors.Is(err, fs.ErrNotExist) {
		return rec, fmt.Errorf("lab %s has no %s: %w", l.rec.Name, name, err)
	}
	return rec, err
}

// records are all nodes, ordered by name.
func (l *Lab) records() []record {
	files, err := filepath.Glob(l.nodeFile("*"))
	if err != nil {
		return nil
	}
	var recs []record
	for _, file := range files {
		var rec record
		if readJSON(file, &rec) == nil {
			recs = append(recs, rec)
		}
	}
	return recs
}

func (l *Lab) freeHostNumber() (int, error) {
	for n := 1; n <= maxHosts; n++ {
		if _, err := os.Stat(l.nodeFile(hostName(n))); errors.Is(err, fs.ErrNotExist) {
			return n, nil
		}
	}
	return 0, fmt.Errorf("lab %s has %d hosts, which is the most", l.rec.Name, maxHosts)
}

// forgetNode removes the node's files, its name last.
func (l *Lab) forgetNode(name string) error {
	if err := os.RemoveAll(l.runDir(name)); err != nil {
		return err
	}
	if err := os.RemoveAll(netnsEtc(l.namespace(name))); err != nil {
		return err
	}
	err := os.Remove(l.nodeFile(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func readJSON(file string, v any) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}

// writeJSON replaces the file in one step.
func writeJSON(file string, v any) error {
	tmp, err := writeTemp(file, v)
	if err != nil {
		return err
	}
	return os.Rename(tmp, file)
}

func writeTemp(file string, v any) (string, error) {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return "", err
	}
	f, err := os.CreateTemp(filepath.Dir(file), ".new-*")
	if err != nil {
		return "", err
	}
	_, err = f.Write(append(data, '\n'))
	return f.Name(), errors.Join(err, f.Close())
}

// locked runs fn while no other process or goroutine is inside locked.
func locked(fn func() error) error {
	if err := os.MkdirAll(stateDir, 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(stateDir, ".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return fn()
}

// randomUUID asks the kernel.
func randomUUID() (string, error) {
	data, err := os.ReadFile("/proc/sys/kernel/random/uuid")
	return strings.TrimSpace(string(data)), err
}

// sortedPIDs removes duplicates, so that nothing is signalled twice.
func sortedPIDs(pids []int) []int {
	slices.Sort(pids)
	return slices.Compact(pids)
}
