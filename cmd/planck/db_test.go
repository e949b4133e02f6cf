package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"planck/network"
	"planck/test/pg"
)

// planck runs a command line, which must end with an exit code, and returns what
// it printed.
func planck(t *testing.T, code int, words ...string) string {
	t.Helper()
	var out bytes.Buffer
	if got := run(words, &out, &out); got != code {
		t.Fatalf("planck %s: exit code %d, want %d:\n%s", strings.Join(words, " "), got, code, out.String())
	}
	return out.String()
}

func says(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%q is not in:\n%s", part, text)
		}
	}
}

// config is a configuration file that names a database, and that planck serve
// would need more for.
func config(t *testing.T, dsn string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "planck.conf")
	text := fmt.Sprintf("[DEFAULT]\nbind_host = 0.0.0.0\n[database]\nconnection = %s\n", dsn)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestDatabaseGrowsFromOneFileToPostgreSQLAndBack(t *testing.T) {
	dir := t.TempDir()
	small := "sqlite://" + filepath.Join(dir, "planck.db")
	says(t, planck(t, 1, "db", "version", "--state-dir", dir), "no such file")
	says(t, planck(t, 0, "db", "migrate", "--state-dir", dir), "made with schema 1")
	says(t, planck(t, 0, "db", "migrate", "--state-dir", dir), "nothing to do")
	store, err := network.Open(t.Context(), small, network.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	n := &network.Network{}
	if _, err := store.Update(t.Context(), network.Cause{}, func(tx *network.Tx) error { return tx.CreateNetwork(n) }); err != nil {
		t.Fatal(err)
	}
	says(t, planck(t, 0, "db", "version", "--state-dir", dir), "database", filepath.Join(dir, "planck.db"), "schema", "revision", "program", "knows schema 1")

	large := config(t, pg.Start(t))
	file := filepath.Join(dir, "backup.planck")
	says(t, planck(t, 0, "db", "backup", file, "--state-dir", dir), "saved revision 1", "1 objects", "2 claims")
	if entries, err := filepath.Glob(filepath.Join(dir, ".backup*")); err != nil || len(entries) > 0 {
		t.Errorf("left over: %v, %v", entries, err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the backup's mode is %v, %v: it may hold secrets", info.Mode(), err)
	}
	says(t, planck(t, 0, "db", "version", "--config-file", large), "the database is empty")
	says(t, planck(t, 0, "db", "restore", file, "--config-file", large), "restored revision 1")
	says(t, planck(t, 1, "db", "restore", file, "--config-file", large), "not empty", "--force")
	var v struct {
		Database, Engine             string
		Schema, Contracted, Revision int
		Program                      programView
	}
	if err := json.Unmarshal([]byte(planck(t, 0, "db", "version", "-o", "json", "--config-file", large)), &v); err != nil {
		t.Fatal(err)
	}
	if v.Engine != "postgresql" || v.Schema != 1 || v.Contracted != 1 || v.Revision != 2 || v.Program != (programView{version, 1}) {
		t.Errorf("%+v", v)
	}

	// Back into the file: it is in use, then it is not.
	again := planck(t, 0, "db", "backup", "-", "--config-file", large)
	again = again[:strings.LastIndex(again, "saved revision")]
	if err := os.WriteFile(file, []byte(again), 0o600); err != nil {
		t.Fatal(err)
	}
	says(t, planck(t, 1, "db", "restore", file, "--force", "--state-dir", dir), "a controller works with the database")
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	planck(t, 0, "db", "restore", file, "--force", "--state-dir", dir)
	store, err = network.Open(t.Context(), small, network.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if store.View().Network(n.ID) == nil {
		t.Error("the network is lost on the way")
	}
}

func TestDatabaseCommandsSayWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad.planck")
	if err := os.WriteFile(bad, []byte("{}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		line string
		code int
		says string
	}{
		{"db", 2, "needs one of version"},
		{"db frobnicate", 2, "unknown command"},
		{"db version now", 2, "unknown command"},
		{"db version -o xml", 2, "unknown output"},
		{"db backup", 2, "accepts 1 arg(s)"},
		{"db restore", 2, "accepts 1 arg(s)"},
		{"db version --database frob://x", 2, "--database"},
		{"db version --config-file /nonexistent", 2, "/nonexistent"},
		{"db backup " + dir + "/x --state-dir " + dir + "/none", 1, "no such file"},
		{"db backup " + dir + "/none/x --state-dir " + dir, 1, "no such file"},
		{"db restore " + dir + "/none --state-dir " + dir, 1, "no such file"},
		{"db restore " + bad + " --state-dir " + dir, 1, "line 1: this is no backup"},
		{"db version --database postgresql://planck:secret@127.0.0.1:1/x", 1, "refused"},
	} {
		out := planck(t, c.code, strings.Fields(c.line)...)
		says(t, out, c.says)
		if strings.Contains(out, "secret") {
			t.Errorf("planck %s tells the password: %s", c.line, out)
		}
	}
}
