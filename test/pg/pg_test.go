package pg

import (
	"database/sql"
	"testing"
)

func answers(t *testing.T, dsn string) bool {
	t.Helper()
	db, err := sql.Open("postgres", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	return db.Ping() == nil
}

func TestEachTestGetsItsOwnDatabase(t *testing.T) {
	a, b := Start(t), Start(t)
	if a == b {
		t.Fatalf("both databases are %s", a)
	}
	if !answers(t, a) || !answers(t, b) {
		t.Fatal("a database does not answer")
	}
}

func TestKilledServerComesBack(t *testing.T) {
	s := StartServer(t)
	dsn := s.Database(t)
	s.Kill(t)
	if answers(t, dsn) {
		t.Fatal("a killed server answers")
	}
	s.Restart(t)
	if !answers(t, dsn) {
		t.Fatal("a restarted server does not answer")
	}
}
