package network

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"planck/test/pg"
)

func nobody(context.Context, *sql.Tx) ([]Member, error) { return nil, nil }

func backupOf(t *testing.T, dsn string) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := WriteBackup(t.Context(), dsn, "test", &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func restoreInto(t *testing.T, dsn string, backup []byte, opt RestoreOptions) error {
	t.Helper()
	if opt.Living == nil {
		opt.Living = nobody
	}
	_, err := RestoreBackup(t.Context(), dsn, bytes.NewReader(backup), opt)
	return err
}

func mustRestore(t *testing.T, dsn string, backup []byte) {
	t.Helper()
	if err := restoreInto(t, dsn, backup, RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
}

// elsewhere is an empty database of each kind.
func elsewhere(t *testing.T) map[string]string {
	return map[string]string{
		"to SQLite":     "sqlite://" + filepath.Join(t.TempDir(), "restored.db"),
		"to PostgreSQL": pg.Start(t),
	}
}

func TestBackupIsRestoredOnEitherEngine(t *testing.T) {
	onEach(t, func(t *testing.T, dsn string) {
		s := open(t, dsn, DefaultConfig())
		n, p := fill(t, s)
		update(t, s, func(tx *Tx) error {
			tx.Send(Message{Queue: "q", Body: []byte("a \"message\" <&> ünï")})
			return tx.DeletePort(p.ID)
		})
		backup := backupOf(t, dsn)
		for to, dsn := range elsewhere(t) {
			mustRestore(t, dsn, backup)
			r := open(t, dsn, DefaultConfig())
			sameView(t, to, s.View(), r.View())
			checkInvariants(t, r)
			if r.View().Revision() <= s.View().Revision() {
				t.Errorf("%s: revision %d after %d", to, r.View().Revision(), s.View().Revision())
			}
			messages, err := r.Outbox("q").Read(t.Context(), MessageID{}, 10)
			if err != nil || len(messages) != 1 || string(messages[0].Body) != "a \"message\" <&> ünï" {
				t.Errorf("%s: messages %v, %v", to, messages, err)
			}
			if a, b := text(t, s, `SELECT MAX(request_id || operation || entries) FROM changes`), text(t, r, `SELECT MAX(request_id || operation || entries) FROM changes`); a != b {
				t.Errorf("%s: the change log has %s, not %s", to, b, a)
			}
			// It goes on where it was: what was given out last does not come again at once.
			if key := newNetwork(t, r).Key; key <= n.Key {
				t.Errorf("%s: the next network has the key %d after %d", to, key, n.Key)
			}
			if g, err := r.Generation(t.Context()); err != nil || g < uint64(time.Now().Add(-time.Hour).Unix()) {
				t.Errorf("%s: generation %d, %v: switches may have seen a newer one", to, g, err)
			}
			checkInvariants(t, r)
		}
	})
}

func TestBackupIsOfOneMoment(t *testing.T) {
	onEach(t, func(t *testing.T, dsn string) {
		s := open(t, dsn, DefaultConfig())
		n := newNetwork(t, s)
		newSubnet(t, s, n, "10.0.0.0/16", func(s *Subnet) { s.EnableDHCP = true })
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		var written int
		wg.Go(func() {
			for ; ctx.Err() == nil; written++ {
				p := &Port{NetworkID: n.ID}
				update(t, s, func(tx *Tx) error { return tx.CreatePort(p) })
				update(t, s, func(tx *Tx) error { return tx.CreatePort(&Port{NetworkID: n.ID}) })
				update(t, s, func(tx *Tx) error { return tx.DeletePort(p.ID) })
			}
		})
		for range 5 {
			backup := backupOf(t, dsn)
			mustRestore(t, "sqlite://"+filepath.Join(t.TempDir(), "restored.db"), backup)
		}
		cancel()
		wg.Wait()
		if written == 0 {
			t.Error("nothing was written meanwhile")
		}
	})
}

// resealed is a backup whose text was changed and whose checksum is right again.
func resealed(t *testing.T, backup []byte) []byte {
	t.Helper()
	lines := bytes.SplitAfter(bytes.TrimSuffix(backup, []byte("\n")), []byte("\n"))
	rows := map[string]int{}
	sum := sha256.New()
	for i, l := range lines[:len(lines)-1] {
		sum.Write(l)
		var row backupRow
		if i > 0 && json.Unmarshal(l, &row) == nil {
			rows[row.Table]++
		}
	}
	end, err := json.Marshal(backupEnd{Rows: rows, SHA256: hex.EncodeToString(sum.Sum(nil))})
	if err != nil {
		t.Fatal(err)
	}
	return append(bytes.Join(lines[:len(lines)-1], nil), append(end, '\n')...)
}

// lacking leaves out the first line that has all these texts.
func lacking(backup []byte, texts ...string) []byte {
	var kept []byte
	done := false
	for l := range bytes.Lines(backup) {
		has := !done
		for _, text := range texts {
			has = has && bytes.Contains(l, []byte(text))
		}
		if has {
			done = true
			continue
		}
		kept = append(kept, l...)
	}
	return kept
}

func TestDamagedBackupIsRefusedAndChangesNothing(t *testing.T) {
	source := open(t, "sqlite://"+filepath.Join(t.TempDir(), "planck.db"), DefaultConfig())
	n, p := fill(t, source)
	backup := backupOf(t, "sqlite://"+source.db.path)
	replaced := func(old, now string) []byte {
		if !bytes.Contains(backup, []byte(old)) {
			t.Fatalf("the backup has no %s", old)
		}
		return bytes.Replace(backup, []byte(old), []byte(now), 1)
	}
	presence := fmt.Sprintf(`"id":%q,"kind":"presence"`, PresenceID(n.ID, "h1"))
	damages := []struct {
		what   string
		backup []byte
		says   []string
	}{
		{"another file", []byte("SQLite format 3\x00\n"), []string{"line 1", "no backup"}},
		{"an empty file", nil, []string{"line 1", "ends early"}},
		{"cut off", backup[:len(backup)/2], []string{"ends early"}},
		{"cut off between lines", lacking(backup, `"sha256"`), []string{"ends early"}},
		{"changed", replaced(p.MAC.String(), "fa:16:3e:ff:ff:ff"), []string{"checksum"}},
		{"a line less", lacking(backup, `"table":"claims"`), []string{"checksum"}},
		{"something behind it", append(bytes.Clone(backup), "{}\n"...), []string{"behind the end"}},
		{"of a newer format", replaced(`"planck_backup":1`, `"planck_backup":2`), []string{"line 1", "format 2", "newer"}},
		{"of a newer program", replaced(`"schema":1`, `"schema":99`), []string{"line 1", "schema 99", "newer"}},
		{"an unknown table", resealed(t, replaced(`"table":"claims"`, `"table":"clams"`)), []string{"line ", "clams"}},
		{"an unknown column", resealed(t, replaced(`"owner_id"`, `"owner_name"`)), []string{"lines ", "claims", "owner_name"}},
		{"a port without its network", resealed(t, lacking(backup, `"kind":"network"`, n.ID)), []string{"line ", "subnet ", "network " + n.ID, "not there"}},
		{"a claim is missing", resealed(t, lacking(backup, `"table":"claims"`, p.MAC.String())), []string{"line ", "port " + p.ID, "mac", "missing"}},
		{"a claim too many", resealed(t, lacking(backup, `"kind":"host"`)), []string{"host h1", "does not follow"}},
		{"an unknown kind", resealed(t, replaced(`"kind":"router"`, `"kind":"rooter"`)), []string{"line ", "rooter ", "know the kind"}},
		{"an object under another id", resealed(t, replaced(fmt.Sprintf(`"id":%q,"kind":"port"`, p.ID), `"id":"x","kind":"port"`)), []string{"line ", "port x", p.ID}},
		{"a presence is missing", resealed(t, lacking(lacking(backup, `"table":"objects"`, presence), `"presence"`, `"table":"claims"`)), []string{"presence"}},
	}
	for to, dsn := range elsewhere(t) {
		s, err := Open(t.Context(), dsn, DefaultConfig())
		if err != nil {
			t.Fatal(err)
		}
		kept := newNetwork(t, s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		for _, d := range damages {
			err := restoreInto(t, dsn, d.backup, RestoreOptions{Force: true})
			if err == nil {
				t.Fatalf("%s: a backup is restored that is damaged: %s", to, d.what)
			}
			for _, part := range d.says {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%s: %s: %v; want %q", to, d.what, err, part)
				}
			}
		}
		again := open(t, dsn, DefaultConfig())
		if again.View().Network(kept.ID) == nil || len(dump(again.View())) != 1 {
			t.Errorf("%s: a refused backup changed something", to)
		}
	}
}

func TestModelThatIsNotConsistentIsRestoredWhenAskedFor(t *testing.T) {
	source := open(t, "sqlite://"+filepath.Join(t.TempDir(), "planck.db"), DefaultConfig())
	n, _ := fill(t, source)
	backup := backupOf(t, "sqlite://"+source.db.path)
	broken := resealed(t, lacking(backup, `"table":"objects"`, `"kind":"gateway_placement"`))
	for to, dsn := range elsewhere(t) {
		err := restoreInto(t, dsn, broken, RestoreOptions{})
		if faults, ok := errors.AsType[*FaultsError](err); !ok || !strings.Contains(faults.Error(), "no placement") {
			t.Fatalf("%s: %v", to, err)
		}
		if err := restoreInto(t, dsn, broken, RestoreOptions{AcceptFaults: true}); err != nil {
			t.Fatalf("%s: %v", to, err)
		}
		if open(t, dsn, DefaultConfig()).View().Network(n.ID) == nil {
			t.Errorf("%s: the network is not there", to)
		}
	}
}

func TestRestoreTouchesNothingThatIsThereOrInUse(t *testing.T) {
	source := open(t, "sqlite://"+filepath.Join(t.TempDir(), "planck.db"), DefaultConfig())
	n, _ := fill(t, source)
	backup := backupOf(t, "sqlite://"+source.db.path)
	for to, dsn := range elsewhere(t) {
		s, err := Open(t.Context(), dsn, DefaultConfig())
		if err != nil {
			t.Fatal(err)
		}
		old := newNetwork(t, s)
		for range 200 {
			newNetwork(t, s)
		}
		last := s.View().Revision()
		used := RestoreOptions{Force: true, Living: func(context.Context, *sql.Tx) ([]Member, error) { return []Member{{Name: "member1"}}, nil }}
		if err := restoreInto(t, dsn, backup, used); !errors.Is(err, ErrInUse) {
			t.Errorf("%s: restored under a member: %v", to, err)
		}
		if s.db.postgres {
			// One that sleeps meanwhile finds out.
			defer s.Close()
		} else if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if err := restoreInto(t, dsn, backup, RestoreOptions{}); err == nil || !strings.Contains(err.Error(), "201 objects") {
			t.Errorf("%s: restored over 201 objects: %v", to, err)
		}
		if err := restoreInto(t, dsn, backup, RestoreOptions{Force: true}); err != nil {
			t.Fatalf("%s: %v", to, err)
		}
		r := open(t, dsn, DefaultConfig())
		sameView(t, to, source.View(), r.View())
		if r.View().Network(old.ID) != nil || r.View().Revision() <= last {
			t.Errorf("%s: the old network is there, or revision %d comes after %d", to, r.View().Revision(), last)
		}
		if s.db.postgres {
			update(t, s, func(tx *Tx) error {
				if tx.Network(old.ID) != nil || tx.Network(n.ID) == nil {
					t.Error("a store that was asleep has the old model")
				}
				return nil
			})
			checkInvariants(t, s)
		}
	}
}

func TestBackupOfAnOlderSchemaIsExpanded(t *testing.T) {
	source := open(t, "sqlite://"+filepath.Join(t.TempDir(), "planck.db"), DefaultConfig())
	// The next schema gives the network key 2 to something else.
	n := newNetwork(t, source)
	p := newPort(t, source, n)
	backup := backupOf(t, "sqlite://"+source.db.path)
	for to, dsn := range elsewhere(t) {
		// The program to come would know the trunk: this one refuses it.
		opt := RestoreOptions{AcceptFaults: true, Living: nobody}
		if _, err := restore(t.Context(), dsn, bytes.NewReader(backup), opt, nextSchema); err != nil {
			t.Fatalf("%s: %v", to, err)
		}
		s := openNext(t, dsn)
		body := text(t, s, `SELECT body FROM objects WHERE id = '`+p.ID+`'`)
		if s.View().Network(n.ID) == nil || !strings.Contains(body, `"depth":7`) {
			t.Errorf("%s: the port is %s", to, body)
		}
		if _, err := WriteBackup(t.Context(), dsn, "test", new(bytes.Buffer)); err == nil || !strings.Contains(err.Error(), "newer") {
			t.Errorf("%s: an older program made a backup of what it does not know: %v", to, err)
		}
		if err := restoreInto(t, dsn, backup, RestoreOptions{Force: true}); err == nil || !strings.Contains(err.Error(), "newer") {
			t.Errorf("%s: an older program replaced a newer one's tables: %v", to, err)
		}
	}
}

func TestInspectChangesNothing(t *testing.T) {
	onEach(t, func(t *testing.T, dsn string) {
		if strings.HasPrefix(dsn, "sqlite") {
			if _, err := Inspect(t.Context(), dsn, nobody); err == nil {
				t.Error("a database that is not there is one")
			}
		} else if info, err := Inspect(t.Context(), dsn, nobody); err != nil || info.Schema != 0 {
			t.Errorf("of an empty one: %+v, %v", info, err)
		}
		if _, err := WriteBackup(t.Context(), dsn, "test", new(bytes.Buffer)); err == nil {
			t.Error("there is a backup of nothing")
		}
		s := open(t, dsn, DefaultConfig())
		newNetwork(t, s)
		info, err := Inspect(t.Context(), dsn, nobody)
		if err != nil || info.Schema != SchemaVersion() || info.Contracted != 1 || info.Revision != 1 {
			t.Errorf("%+v, %v", info, err)
		}
	})
}
