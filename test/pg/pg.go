// Package pg runs a real PostgreSQL for tests, from Debian's packages, on a
// unix socket in a temporary directory. A server ends, and its directory goes,
// with the process that started it, however that ends.
package pg

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	_ "github.com/lib/pq" // the driver for creating databases
)

// startTimeout is how long a server may take to answer.
const startTimeout = 60 * time.Second

// keeper makes a cluster, then starts and kills its server as told on standard
// input, and cleans up when that ends. It runs as a user whom PostgreSQL accepts.
const keeper = `
bin=$1 dir=$2 durable=$3
shift 3
cd / || exit
"$bin/initdb" -D "$dir/data" -A trust -U planck --no-sync --locale=C -E UTF8 >"$dir/log" 2>&1 && echo made
pid=
stop() { [ -z "$pid" ] || { kill -QUIT "$pid"; wait "$pid"; pid=; } 2>/dev/null; }
while read -r command; do
	case $command in
	start)
		"$bin/postgres" -D "$dir/data" -k "$dir" -c listen_addresses= -c fsync=$durable -c full_page_writes=$durable \
			-c max_connections=200 "$@" >>"$dir/log" 2>&1 &
		pid=$! ;;
	kill) stop ;;
	esac
	echo "$command"
done
stop
rm -rf "$dir"
`

// Server is a PostgreSQL server of its own, for tests that kill it. The others
// share one: see Start.
type Server struct {
	dir     string
	cmd     *exec.Cmd
	input   io.WriteCloser
	replies *bufio.Reader
	next    atomic.Int64
	port    string
	address string // host:port where it speaks TLS, "" for nowhere
}

var shared = sync.OnceValues(func() (*Server, error) { return newServer("off", nil) })

// Start returns the address of a new, empty database on a server that all
// tests of the process share. The database is dropped when the test ends.
func Start(tb testing.TB) (dsn string) {
	tb.Helper()
	s, err := shared()
	if err != nil {
		tb.Fatal(err)
	}
	dsn, drop, err := s.database()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := drop(); err != nil {
			tb.Error(err)
		}
	})
	return dsn
}

// StartServer returns a server that only this test uses.
func StartServer(tb testing.TB) *Server { return start(tb, "off") }

// StartDurable returns a server that only this test uses and that writes to the
// disk as an operator's does; the others don't, since no test cuts the power.
func StartDurable(tb testing.TB) *Server { return start(tb, "on") }

func start(tb testing.TB, durable string) *Server {
	tb.Helper()
	s, err := newServer(durable, nil)
	return s.until(tb, err)
}

// StartTLS returns a server that only this test uses, with a certificate, that
// listens at an address besides its socket.
func StartTLS(tb testing.TB, cert, key, address string) *Server {
	tb.Helper()
	s, err := newServer("off", &credentials{cert, key, address})
	return s.until(tb, err)
}

// until makes a server end with its test.
func (s *Server) until(tb testing.TB, err error) *Server {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.close(); err != nil {
			tb.Error(err)
		}
	})
	return s
}

// Database makes an empty database and returns its address.
func (s *Server) Database(tb testing.TB) (dsn string) {
	tb.Helper()
	dsn, _, err := s.database()
	if err != nil {
		tb.Fatal(err)
	}
	return dsn
}

// DatabaseTLS makes an empty database and returns its address by TLS, for who
// trusts the certificates of a file.
func (s *Server) DatabaseTLS(tb testing.TB, ca string) (dsn string) {
	tb.Helper()
	u, err := url.Parse(s.Database(tb))
	if err != nil {
		tb.Fatal(err)
	}
	u.Host, u.RawQuery = s.address, url.Values{"sslmode": {"verify-full"}, "sslrootcert": {ca}}.Encode()
	u.User = url.User("planck")
	return u.String()
}

// Kill ends the server at once, as a crash would: no transaction is finished.
func (s *Server) Kill(tb testing.TB) {
	tb.Helper()
	if err := s.tell("kill"); err != nil {
		tb.Fatal(err)
	}
}

// Restart starts the server after Kill and waits until it answers.
func (s *Server) Restart(tb testing.TB) {
	tb.Helper()
	if err := s.start(); err != nil {
		tb.Fatal(err)
	}
}

// credentials are files, and the address to listen at.
type credentials struct{ cert, key, address string }

// options makes a server listen by TLS. It takes only a key that is its own.
func (c *credentials) options(s *Server) ([]string, error) {
	if c == nil {
		return nil, nil
	}
	host, port, err := net.SplitHostPort(c.address)
	if err != nil {
		return nil, err
	}
	options := []string{"-c", "listen_addresses=" + host, "-c", "port=" + port, "-c", "ssl=on"}
	for name, file := range map[string]string{"ssl_cert_file": c.cert, "ssl_key_file": c.key} {
		content, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		own := filepath.Join(s.dir, name)
		if err := os.WriteFile(own, content, 0o600); err != nil {
			return nil, err
		}
		options = append(options, "-c", name+"="+own)
	}
	s.address, s.port = c.address, port
	return options, nil
}

func newServer(durable string, tls *credentials) (*Server, error) {
	bin, err := binaries()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "planck-pg-")
	if err != nil {
		return nil, fmt.Errorf("postgresql: %w", err)
	}
	s := &Server{dir: dir, port: "5432"}
	options, err := tls.options(s)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("postgresql: %w", err), os.RemoveAll(dir))
	}
	s.cmd = exec.Command("sh", append([]string{"-c", keeper, "sh", bin, dir, durable}, options...)...)
	// In a group of its own it outlives a Ctrl-C long enough to clean up.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := s.launch(); err != nil {
		return nil, errors.Join(err, s.log(), os.RemoveAll(dir))
	}
	return s, nil
}

func (s *Server) launch() error {
	if err := s.becomePostgres(); err != nil {
		return err
	}
	var err error
	if s.input, err = s.cmd.StdinPipe(); err != nil {
		return err
	}
	output, err := s.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	s.replies = bufio.NewReader(output)
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("postgresql: %w", err)
	}
	if err := s.expect("made"); err != nil {
		return errors.Join(err, s.close())
	}
	return s.start()
}

// becomePostgres changes the user if we are root, whom PostgreSQL refuses.
func (s *Server) becomePostgres() error {
	if os.Geteuid() != 0 {
		return nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return fmt.Errorf("postgresql: %w", err)
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return fmt.Errorf("postgresql: user id of postgres: %w", err)
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		return fmt.Errorf("postgresql: group id of postgres: %w", err)
	}
	err = filepath.WalkDir(s.dir, func(path string, _ os.DirEntry, err error) error { return errors.Join(err, os.Chown(path, uid, gid)) })
	if err != nil {
		return fmt.Errorf("postgresql: %w", err)
	}
	s.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return nil
}

// binaries finds the newest installed version.
func binaries() (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err != nil || len(found) == 0 {
		return "", errors.New("postgresql: not installed; on Debian: apt-get install postgresql")
	}
	version := func(path string) int {
		n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path))))
		return n
	}
	newest := slices.MaxFunc(found, func(a, b string) int { return version(a) - version(b) })
	return filepath.Dir(newest), nil
}

func (s *Server) tell(command string) error {
	if _, err := io.WriteString(s.input, command+"\n"); err != nil {
		return fmt.Errorf("postgresql: %w", err)
	}
	return s.expect(command)
}

func (s *Server) expect(reply string) error {
	line, err := s.replies.ReadString('\n')
	if line != reply+"\n" {
		return fmt.Errorf("postgresql: %s failed: %w", reply, errors.Join(err, s.log()))
	}
	return nil
}

// log is what the server said, as an error.
func (s *Server) log() error {
	text, err := os.ReadFile(filepath.Join(s.dir, "log"))
	if err != nil {
		return err
	}
	return errors.New(string(text))
}

func (s *Server) start() error {
	if err := s.tell("start"); err != nil {
		return err
	}
	db, err := sql.Open("postgres", s.dsn("postgres"))
	if err != nil {
		return err
	}
	defer db.Close()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	for {
		err := db.PingContext(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("postgresql does not answer: %w", errors.Join(err, s.log()))
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (s *Server) close() error {
	if err := s.input.Close(); err != nil {
		return err
	}
	if err := s.cmd.Wait(); err != nil {
		return fmt.Errorf("postgresql: %w", err)
	}
	return nil
}

func (s *Server) dsn(database string) string {
	return fmt.Sprintf("postgresql://planck@/%s?host=%s&port=%s&sslmode=disable", database, s.dir, s.port)
}

func (s *Server) database() (dsn string, drop func() error, err error) {
	name := fmt.Sprintf("test%d", s.next.Add(1))
	if err := s.exec("CREATE DATABASE " + name); err != nil {
		return "", nil, err
	}
	return s.dsn(name), func() error { return s.exec("DROP DATABASE " + name + " WITH (FORCE)") }, nil
}

func (s *Server) exec(statement string) error {
	db, err := sql.Open("postgres", s.dsn("postgres"))
	if err != nil {
		return err
	}
	defer db.Close()
	if _, err := db.Exec(statement); err != nil {
		return fmt.Errorf("postgresql: %s: %w", statement, err)
	}
	return nil
}
