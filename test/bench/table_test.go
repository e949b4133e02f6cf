package bench

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

var (
	update      = flag.Bool("update", false, "rewrite the tables of docs/performance.md that were measured")
	hosts       = flag.Int("hosts", 100, "the number of dummy hosts")
	programFlag = flag.String("planck", "", "the program to measure instead of a build of this tree")
	sizes       = flag.Int("ports", 10_000, "the largest number of ports")
)

const document = "../../docs/performance.md"

// table is what one measurement found.
type table struct {
	name string // of its place in the document
	rows []row
}

// row is a line of a table. Peer, ratio and aim are empty when there is none.
type row struct {
	what, ours, peer, ratio, aim string
}

var (
	tablesMu sync.Mutex
	tables   []*table
)

// newTable begins the table of a measurement.
func newTable(name string) *table {
	t := &table{name: name}
	tablesMu.Lock()
	defer tablesMu.Unlock()
	tables = append(tables, t)
	return t
}

func (t *table) add(r ...row) { t.rows = append(t.rows, r...) }

func (t *table) markdown() string {
	var b strings.Builder
	b.WriteString("| what | Planck | peer or limit, same run | ratio | aim |\n|---|---|---|---|---|\n")
	for _, r := range t.rows {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", r.what, r.ours, r.peer, r.ratio, r.aim)
	}
	return b.String()
}

func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	if err := finish(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// finish shows the tables and removes what the benchmarks shared.
func finish() error {
	var errs []error
	for _, t := range tables {
		fmt.Printf("\n%s\n\n%s", t.name, t.markdown())
		if *update {
			errs = append(errs, t.write(document))
		}
	}
	if built.dir != "" {
		errs = append(errs, os.RemoveAll(built.dir))
	}
	return errors.Join(errs...)
}

// write puts the table between its marks in a document.
func (t *table) write(file string) error {
	text, err := os.ReadFile(filepath.FromSlash(file))
	if err != nil {
		return err
	}
	begin, end := []byte("<!-- bench "+t.name+" -->\n"), []byte("<!-- end -->")
	before, rest, found := bytes.Cut(text, begin)
	if !found {
		return fmt.Errorf("%s has no %s", file, begin)
	}
	_, after, found := bytes.Cut(rest, end)
	if !found {
		return fmt.Errorf("%s: %s has no end", file, begin)
	}
	text = bytes.Join([][]byte{before, begin, []byte(t.markdown()), end, after}, nil)
	return os.WriteFile(file, text, 0o644)
}
