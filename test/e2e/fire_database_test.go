package e2e

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"planck/test/pg"
)

func TestDiskFullAndDatabaseLocked(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t)
	dsn := "sqlite://" + filepath.Join(disk, "planck.db")
	f := newFire(t, 2, "[database]\nconnection = "+dsn+"\n")
	f.dsn = dsn
	d := f.boot("d", "host2", nil)
	for _, trouble := range []struct {
		what string
		make func() (undo func())
	}{
		{"disk full", func() func() { return fill(t, filepath.Join(disk, "filler")) }},
		{"database locked", func() func() { return f.lock() }},
	} {
		f.withoutDatabase(trouble.what, d, false, trouble.make)
	}
	f.right()
	f.nothingLeft()
}

func TestPostgreSQLStopsAndComesBack(t *testing.T) {
	t.Parallel()
	server := pg.StartServer(t)
	dsn := server.Database(t)
	f := newFire(t, 2, "[database]\nconnection = "+dsn+"\n")
	f.dsn = dsn
	d := f.boot("d", "host2", nil)
	f.withoutDatabase("PostgreSQL killed", d, true, func() func() {
		server.Kill(t)
		return func() { server.Restart(t) }
	})
	f.right()
	f.nothingLeft()
}

// withoutDatabase makes trouble with the database while everything runs, and
// proves that the API says so and changes nothing, that reading and DHCP go on,
// and that what happened meanwhile is made up for afterwards.
func (f *fire) withoutDatabase(what string, d *vm, doubtful bool, trouble func() (undo func())) {
	f.Helper()
	f.Log(what)
	stream, statuses, leases := f.ping(), f.watchStatus(f.b), f.leases(d)
	writers := f.write(3)
	writers.doubtful = doubtful
	writers.answered("the API writes", http.StatusCreated, 10)
	late := f.create("port", f.portBody("late", f.network, nil))
	undo := trouble()
	begin := time.Now()
	writers.answered("the API says that it can't write", http.StatusServiceUnavailable, 1)
	f.Logf("%s: replies 503 after %v", what, time.Since(begin).Round(time.Millisecond))
	v := f.plug(fmt.Sprintf("late%d", len(f.vms)), "host1", late)
	f.eventually("it is not ready", func() error {
		if f.ready() == nil {
			return errors.New("it is")
		}
		return nil
	})
	before := len(f.ports())
	status, out := f.call(http.MethodPost, "/v2.0/ports", object{"ports": []any{
		f.portBody("bulk", f.network, nil), f.portBody("bulk", f.network, nil), f.portBody("bulk", f.network, nil),
	}})
	if status != http.StatusServiceUnavailable || !isNeutronError(out) {
		f.Errorf("%s: bulk create: %d %v", what, status, out)
	}
	if now := len(f.ports()); now != before {
		f.Errorf("%s: %d ports became %d", what, before, now)
	}
	if status := f.show("port", v.id())["status"]; status != "DOWN" {
		f.Errorf("%s: a port is %v that could not be noted", what, status)
	}
	f.flowing(stream)
	undo()
	mended := time.Now()
	writers.answered("the API writes again", http.StatusCreated, 10)
	f.Logf("%s: writes %v after it was over", what, time.Since(mended).Round(time.Millisecond))
	f.vms = append(f.vms, v)
	f.waitStatus(v.id(), "ACTIVE")
	f.Logf("%s: a port plugged meanwhile is ACTIVE %v after it was over", what, time.Since(mended).Round(time.Millisecond))
	answered := leases()
	f.Logf("%s: %v", what, answered)
	if err := answered.wrong(); err != nil {
		f.Errorf("%s: %v", what, err)
	}
	f.lossless(what, stream)
	statuses()
	writers.finish(http.StatusServiceUnavailable)
	f.eventually("it is ready", f.ready)
	f.whole(what)
}

// ready is what /readyz says.
func (f *fire) ready() error {
	resp, err := http.Get(f.api + "/readyz")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}

func isNeutronError(out object) bool {
	e, ok := out["NeutronError"].(object)
	return ok && e["type"] == "ServiceUnavailable"
}

// smallDisk is a file system with room for a few megabytes.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=8m"); err != nil {
		t.Fatalf("mount tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

// fill writes a file until the disk is full.
func fill(t *testing.T, path string) (undo func()) {
	t.Helper()
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for block := make([]byte, 64<<10); len(block) > 0; {
		if _, err = file.Write(block); err != nil {
			block = block[:len(block)/2]
		}
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("fill %s: %v", path, err)
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	}
}

// lock keeps all other writers out of the database until undo.
func (f *fire) lock() (undo func()) {
	f.Helper()
	_, source := f.database()
	db, err := sql.Open("sqlite", source[:len(source)-len("?mode=ro")]+"?_txlock=immediate&_pragma=busy_timeout(5000)")
	if err != nil {
		f.Fatal(err)
	}
	tx, err := db.BeginTx(context.Background(), nil)
	if err != nil {
		f.Fatal(err)
	}
	return func() {
		if err := errors.Join(tx.Rollback(), db.Close()); err != nil {
			f.Error(err)
		}
	}
}
