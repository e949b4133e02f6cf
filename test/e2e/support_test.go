package e2e

import (
	"archive/tar"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A switch that stands still is left out of a support bundle, and does not hold it up.
func TestSupportBundleHasWhatAnswers(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, "")
	c.hostsUp()
	c.boot("web", "host1", c.network("blue", "10.0.0.0/24", nil), nil)
	c.allLive()
	still := c.lab.Host("host2").VswitchdPID()
	if err := syscall.Kill(still, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(still, syscall.SIGCONT) }) // it may have ended with the lab
	file := c.bundle()
	if err := syscall.Kill(still, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	files := unpack(t, file)
	for name, want := range map[string]string{
		"hosts/host1/flows.txt": "port-security of port web", "hosts/host1/diff.json": "differences", "changes.json": `"operation"`, "lacks.txt": "host2",
		"hosts.json": `"host2"`, "log.txt": "level=INFO", "metrics.txt": "planck_openflow_sessions",
	} {
		if !strings.Contains(files[name], want) {
			t.Errorf("%s of the bundle has no %q:\n%.2000s", name, want, files[name])
		}
	}
}

// bundle collects a support bundle.
func (c *cloud) bundle() (file string) {
	c.Helper()
	file = filepath.Join(c.TempDir(), "bundle.tar.gz")
	c.planck("support-bundle", "-o", file)
	return file
}

// unpack reads a support bundle.
func unpack(t *testing.T, file string) map[string]string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	zip, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	in := tar.NewReader(zip)
	for h, err := in.Next(); err != io.EOF; h, err = in.Next() {
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		files[strings.TrimPrefix(h.Name, "planck-support/")] = string(text)
	}
	return files
}
