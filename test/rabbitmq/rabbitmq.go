// Package rabbitmq runs a real RabbitMQ for tests, from Debian's package, on
// ports of its own and in a temporary directory. A server ends, and its
// directory goes, with the process that started it, however that ends.
package rabbitmq

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// startTimeout is how long a server may take to answer.
const startTimeout = 3 * time.Minute

// program is where Debian has the server itself: the one in PATH wants to
// become another user.
const program = "/usr/lib/rabbitmq/bin/rabbitmq-server"

// keeper starts and kills the server as told on standard input, and cleans up
// when that ends. Each job is a process group, since the server is several.
const keeper = `
server=$1 dir=$2
set -m
epmd -port "$ERL_EPMD_PORT" -address 127.0.0.1 >/dev/null 2>&1 &
epmd=$! pid=
stop() { [ -z "$pid" ] || { kill -KILL -- "-$pid"; wait "$pid"; pid=; } 2>/dev/null; }
while read -r command; do
	case $command in
	start) "$server" >>"$dir/log" 2>&1 </dev/null & pid=$! ;;
	kill) stop ;;
	esac
	echo "$command"
done
stop
kill -KILL -- "-$epmd"
rm -rf "$dir"
`

// Server is a RabbitMQ with the user guest, password guest, and the vhost "/".
type Server struct {
	// Addr is host:port of AMQP.
	Addr string

	dir     string
	cmd     *exec.Cmd
	input   io.WriteCloser
	replies *bufio.Reader
}

// Start returns a server that answers; it ends with the test.
func Start(tb testing.TB) *Server {
	tb.Helper()
	s, err := newServer()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.close(); err != nil {
			tb.Error(err)
		}
	})
	s.Restart(tb)
	return s
}

func newServer() (*Server, error) {
	if _, err := os.Stat(program); err != nil {
		return nil, fmt.Errorf("rabbitmq: %w (scripts/install-deps.sh installs it)", err)
	}
	dir, err := os.MkdirTemp("", "planck-rabbitmq-")
	if err != nil {
		return nil, fmt.Errorf("rabbitmq: %w", err)
	}
	ports, err := freePorts(3)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	for name, text := range map[string]string{"rabbitmq.conf": "listeners.tcp.1 = 127.0.0.1:" + ports[0] + "\n", "plugins": "[].\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return nil, errors.Join(err, os.RemoveAll(dir))
		}
	}
	s := &Server{Addr: "127.0.0.1:" + ports[0], dir: dir, cmd: exec.Command("bash", "-c", keeper, "bash", program, dir)}
	s.cmd.Env = append(os.Environ(), "HOME="+dir,
		"RABBITMQ_NODENAME=planck"+ports[0]+"@localhost", "RABBITMQ_DIST_PORT="+ports[1], "ERL_EPMD_PORT="+ports[2],
		"RABBITMQ_CONFIG_FILE="+filepath.Join(dir, "rabbitmq.conf"), "RABBITMQ_ENABLED_PLUGINS_FILE="+filepath.Join(dir, "plugins"),
		"RABBITMQ_MNESIA_BASE="+filepath.Join(dir, "mnesia"), "RABBITMQ_LOG_BASE="+filepath.Join(dir, "logs"),
		"RABBITMQ_PID_FILE="+filepath.Join(dir, "pid"), "RABBITMQ_CONF_ENV_FILE="+filepath.Join(dir, "none"),
		// One scheduler thread, which does not spin while it has nothing to do.
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none")
	// In a group of its own it outlives a Ctrl-C long enough to clean up.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return s, s.launch()
}

func (s *Server) launch() error {
	var err error
	if s.input, err = s.cmd.StdinPipe(); err != nil {
		return err
	}
	output, err := s.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	s.replies = bufio.NewReader(output)
	return s.cmd.Start()
}

func freePorts(n int) ([]string, error) {
	var ports []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		_, port, _ := net.SplitHostPort(l.Addr().String())
		ports = append(ports, port)
	}
	return ports, nil
}

func (s *Server) tell(command string) error {
	if _, err := io.WriteString(s.input, command+"\n"); err != nil {
		return fmt.Errorf("rabbitmq: %s: %w", command, err)
	}
	reply, err := s.replies.ReadString('\n')
	if err != nil || strings.TrimSpace(reply) != command {
		return fmt.Errorf("rabbitmq: %s: %q, %w", command, reply, err)
	}
	return nil
}

// Kill ends the server at once, as a crash would.
func (s *Server) Kill(tb testing.TB) {
	tb.Helper()
	if err := s.tell("kill"); err != nil {
		tb.Fatal(err)
	}
}

// Restart starts the server after Kill and waits until it answers.
func (s *Server) Restart(tb testing.TB) {
	tb.Helper()
	if err := s.tell("start"); err != nil {
		tb.Fatal(err)
	}
	deadline := time.Now().Add(startTimeout)
	for {
		conn, err := amqp.Dial("amqp://guest:guest@" + s.Addr + "/")
		if err == nil {
			_ = conn.Close()
			return
		}
		if time.Now().After(deadline) {
			log, _ := os.ReadFile(filepath.Join(s.dir, "log"))
			tb.Fatalf("rabbitmq does not answer within %s: %v\n%s", startTimeout, err, log)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func (s *Server) close() error {
	if err := s.input.Close(); err != nil {
		return err
	}
	return s.cmd.Wait()
}
