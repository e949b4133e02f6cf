package network

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"testing"
)

// writerEnv makes the test program a writer on the database that it names,
// which prints the id of each network after it was acknowledged.
const writerEnv = "PLANCK_TEST_WRITER"

func TestMain(m *testing.M) {
	if dsn := os.Getenv(writerEnv); dsn != "" {
		if err := writeForever(dsn); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

func writeForever(dsn string) error {
	s, err := Open(context.Background(), dsn, DefaultConfig())
	if err != nil {
		return err
	}
	for {
		n := &Network{}
		if _, err := s.Update(context.Background(), Cause{}, func(tx *Tx) error { return tx.CreateNetwork(n) }); err != nil {
			return err
		}
		if _, err := fmt.Println(n.ID); err != nil {
			return err
		}
	}
}

func TestAcknowledgedWritesOutliveTheWriter(t *testing.T) {
	onEach(t, func(t *testing.T, dsn string) {
		writer := exec.Command(os.Args[0])
		writer.Env = append(os.Environ(), writerEnv+"="+dsn)
		writer.Stderr = os.Stderr
		out, err := writer.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := writer.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		var acknowledged []string
		for lines.Scan() {
			acknowledged = append(acknowledged, lines.Text())
			if len(acknowledged) == 50 {
				if err := writer.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := writer.Wait(); err == nil || len(acknowledged) < 50 {
			t.Fatalf("the writer ended by itself after %d writes", len(acknowledged))
		}
		s := open(t, dsn, DefaultConfig())
		for _, id := range acknowledged {
			if s.View().Network(id) == nil {
				t.Fatalf("network %s was acknowledged and is lost", id)
			}
		}
		checkInvariants(t, s)
		newNetwork(t, s)
	})
}

func BenchmarkCreatePort(b *testing.B) {
	s := open(b, "sqlite://"+b.TempDir()+"/planck.db", DefaultConfig())
	n := newNetwork(b, s)
	newSubnet(b, s, n, "10.0.0.0/8")
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	next := make(chan struct{})
	for range 8 {
		wg.Go(func() {
			for range next {
				_, err := s.Update(context.Background(), Cause{Operation: "create_port"}, func(tx *Tx) error {
					return tx.CreatePort(&Port{NetworkID: n.ID})
				})
				if err != nil {
					b.Error(err)
				}
			}
		})
	}
	for range b.N {
		next <- struct{}{}
	}
	close(next)
	wg.Wait()
}

// BenchmarkReadPort is a lookup by id, the most frequent read of compilation.
func BenchmarkReadPort(b *testing.B) {
	s := open(b, "sqlite://"+b.TempDir()+"/planck.db", DefaultConfig())
	n := newNetwork(b, s)
	var ids []string
	update(b, s, func(tx *Tx) error {
		ids = nil
		for range 5000 {
			p := &Port{NetworkID: n.ID}
			if err := tx.CreatePort(p); err != nil {
				return err
			}
			ids = append(ids, p.ID)
		}
		return nil
	})
	v := s.View().Recording(func(Dep) {})
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if v.Port(ids[i%len(ids)]) == nil {
			b.Fatal("a port is gone")
		}
	}
}
