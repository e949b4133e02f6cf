package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"planck/network"
)

// unpacked are the files of a bundle, by name.
func unpacked(t *testing.T, r io.Reader) map[string]string {
	t.Helper()
	zip, err := gzip.NewReader(r)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for in := tar.NewReader(zip); ; {
		h, err := in.Next()
		if err == io.EOF {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		files[strings.TrimPrefix(h.Name, "planck-support/")] = string(text)
	}
}

// Whatever reads like a secret in the documentation of options is one.
func TestOptionsWithSecretsAreKnown(t *testing.T) {
	for _, o := range options {
		tells := strings.Contains(strings.ToLower(o.Doc), "password") || strings.Contains(o.Doc, "Signs")
		if tells != o.secret() {
			t.Errorf("%s: secret is %t, and its documentation says %q", o.title(), o.secret(), o.Doc)
		}
	}
}

func TestSupportBundleHasNoSecrets(t *testing.T) {
	values := map[string]string{
		"connection":    "postgresql://planck:planted-%s@db:5432/planck?sslpassword=planted-too-%s",
		"transport_url": "rabbit://planck:planted-%s@mq:5672/vhost",
	}
	var text strings.Builder
	planted := 0
	for i, o := range options {
		if !o.secret() {
			continue
		}
		planted++
		mark := fmt.Sprint("s3cr+t/", i)
		value := "planted-" + mark
		if format := values[o.Names[0]]; format != "" {
			value = strings.ReplaceAll(format, "%s", fmt.Sprint(i))
		}
		fmt.Fprintf(&text, "[%s]\n%s = %s\n", o.Sections[0], o.Names[0], value)
	}
	text.WriteString("[keystone_authtoken]\nauth_url = http://operator:planted-in-url@keystone:5000\n")
	if planted < 6 {
		t.Errorf("only %d options have secrets", planted)
	}
	cfg, _, err := LoadConfig([]string{configFile(t, "planck.conf", text.String())}, map[string]string{
		"state-dir": t.TempDir(), "api-listen": "127.0.0.1:0", "openflow-listen": "127.0.0.1:0", "ovsdb-listen": "127.0.0.1:0",
	})
	if err != nil {
		t.Fatal(err)
	}
	l, err := listen(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	store, err := network.Open(t.Context(), "sqlite://"+filepath.Join(t.TempDir(), "planck.db"), cfg.NetworkConfig())
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	recent := new(recentLines)
	p, err := assemble(cfg, slog.New(slog.NewTextHandler(recent, nil)), store, l, recent)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range secretsOf(cfg) {
		fmt.Fprintf(recent, "somebody repeats %s\n", s)
	}
	api := httptest.NewServer(operatorAPI(p))
	defer api.Close()
	var said strings.Builder
	file := filepath.Join(t.TempDir(), "bundle.tar.gz")
	if code := run([]string{"support-bundle", "-o", file, "--url", api.URL}, &said, &said); code != 0 || !strings.HasPrefix(said.String(), file) {
		t.Fatalf("exit code %d: %s", code, said.String())
	}
	said.Reset()
	nowhere := filepath.Join(t.TempDir(), "bundle.tar.gz")
	if code := run([]string{"support-bundle", "--host", "nohost", "-o", nowhere, "--url", api.URL}, &said, &said); code != 1 || !strings.Contains(said.String(), `host "nohost" is not known`) {
		t.Errorf("of a host that is not there: exit code %d: %s", code, said.String())
	}
	packed, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the bundle's mode is %v, %v", info.Mode(), err)
	}
	files := unpacked(t, bytes.NewReader(packed))
	for name, content := range files {
		if at := strings.Index(content, "planted"); at >= 0 {
			t.Errorf("%s has a secret: %s", name, content[max(0, at-40):min(len(content), at+40)])
		}
	}
	for name, want := range map[string]string{
		"version.txt": "planck " + version, "configuration.ini": "connection = postgresql://" + removedSecret, "hosts.json": "[]",
		"model.json": `"revision"`, "metrics.txt": "planck_ready ", "log.txt": "somebody repeats " + removedSecret, "goroutines.txt": "goroutine profile",
		"lacks.txt": "",
	} {
		if content, there := files[name]; !there || !strings.Contains(content, want) {
			t.Errorf("%s (%t) has no %q", name, there, want)
		}
	}
	if !strings.Contains(files["configuration.ini"], "auth_url = http://"+removedSecret+"@keystone:5000") {
		t.Errorf("the configuration is shown as\n%s", files["configuration.ini"])
	}
}

func TestABundleThatIsCutOffIsNone(t *testing.T) {
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(make([]byte, 1<<16))
		panic(http.ErrAbortHandler)
	}))
	defer api.Close()
	dir := t.TempDir()
	var out strings.Builder
	if code := run([]string{"support-bundle", "-o", filepath.Join(dir, "b.tar.gz"), "--url", api.URL}, &out, &out); code != 1 || !strings.Contains(out.String(), "not whole") {
		t.Errorf("exit code %d: %s", code, out.String())
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
}

func TestTheEndOfTheLogIsKept(t *testing.T) {
	r := new(recentLines)
	fmt.Fprintln(r, "first")
	if got := string(r.text()); got != "first\n" {
		t.Errorf("kept %q", got)
	}
	line := strings.Repeat("x", 99) + "\n"
	for range maxRecent/len(line) + 10 {
		fmt.Fprint(r, line)
	}
	fmt.Fprintln(r, "last")
	got := string(r.text())
	if len(got) > maxRecent || len(got) < maxRecent-2*len(line) || !strings.HasPrefix(got, line) || !strings.HasSuffix(got, "last\n") {
		t.Errorf("%d bytes are kept, from %.20q to %q", len(got), got, got[len(got)-10:])
	}
	if n, err := r.Write(make([]byte, 3*maxRecent)); n != 3*maxRecent || err != nil {
		t.Errorf("a large line: %d, %v", n, err)
	}
}
