package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// downTimeout bounds the commands of one Down.
const downTimeout = time.Minute

// Down takes the lab down: programs, namespaces, links, files. It may be called
// more than once.
func (l *Lab) Down() error {
	return errors.Join(l.stopProcesses(), Down(l.rec.Name))
}

// Down takes down whatever there is of the lab of that name, also when it is
// half-made or the process that made it died. It is no error when there is
// nothing.
func Down(name string) error {
	if err := checkName("lab", name); err != nil {
		return err
	}
	// The lock keeps a second Down from removing the links of a lab that has
	// taken over the index meanwhile.
	err := locked(func() error { return down(name) })
	if err != nil {
		return fmt.Errorf("take down lab %s: %w", name, err)
	}
	return nil
}

// DownAll takes all labs of the machine down.
func DownAll() error {
	names, err := Names()
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		errs = append(errs, Down(name))
	}
	return errors.Join(errs...)
}

// sweep takes down the labs of test processes that are gone.
func sweep() error {
	names, err := Names()
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		rec, err := readLab(name)
		if err == nil && rec.Owner != nil && !rec.Owner.alive() {
			errs = append(errs, Down(name))
		}
	}
	return errors.Join(errs...)
}

// down goes on after an error and gives up the index last, and only when the
// rest is gone: what it could not remove would be in the next lab's way.
func down(name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), downTimeout)
	defer cancel()
	namespaces := namespacesWith(labNamespaces(name))
	err := errors.Join(
		endAll(func() []int { return append(daemonsBelow(labDir(name)), pidsIn(namespaces)...) }),
		removeNamespaces(ctx, namespaces),
		removeEtc(labNamespaces(name)),
		removeRootLinks(ctx, indexesOf(name)),
		os.RemoveAll(labDir(name)),
	)
	if err != nil {
		return err
	}
	for _, index := range indexesOf(name) {
		err = errors.Join(err, os.Remove(filepath.Join(indexDir(), strconv.Itoa(index))))
	}
	return err
}

// daemonsBelow finds daemons by the pid files in a directory tree.
func daemonsBelow(dir string) []int {
	var pids []int
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".pid") {
			return nil
		}
		if pid := daemonPID(path); pid != 0 {
			pids = append(pids, pid)
		}
		return nil
	})
	if err != nil {
		return nil
	}
	return pids
}

func removeNamespaces(ctx context.Context, namespaces []string) error {
	if len(namespaces) == 0 {
		return nil
	}
	var lines []string
	for _, ns := range namespaces {
		lines = append(lines, "netns del "+ns)
	}
	return ip(ctx, "", lines...)
}

// removeEtc removes the namespaces' own files of /etc; a crash may have left
// them without their namespace.
func removeEtc(prefix string) error {
	dirs, err := filepath.Glob(netnsEtc(prefix + "*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, dir := range dirs {
		errs = append(errs, os.RemoveAll(dir))
	}
	return errors.Join(errs...)
}

// removeRootLinks does not wait for the kernel, which removes the links of a
// namespace some time after it.
func removeRootLinks(ctx context.Context, indexes []int) error {
	links, err := net.Interfaces()
	if err != nil {
		return err
	}
	var errs []error
	for _, index := range indexes {
		for _, link := range links {
			if isLink(link.Name, index) {
				errs = append(errs, removeLink(ctx, link.Name))
			}
		}
	}
	return errors.Join(errs...)
}

func isLink(name string, index int) bool {
	return name == mgmtBridge(index) || name == rootPhysLink(index) || strings.HasPrefix(name, mgmtBridge(index)+"-")
}

// removeLink tolerates that the link went meanwhile.
func removeLink(ctx context.Context, name string) error {
	err := ip(ctx, "", "link del "+name)
	if _, gone := net.InterfaceByName(name); gone != nil {
		return nil
	}
	return err
}
