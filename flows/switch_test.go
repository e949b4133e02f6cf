package flows

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// testSwitch is an ovs-vswitchd of our own, without devices, with a bridge br0
// that has dummy ports 1 and 2, and an OpenFlow connection to it.
type testSwitch struct {
	t    *testing.T
	dir  string
	conn net.Conn
	in   *bufio.Reader
	xid  uint32
}

func startSwitch(t *testing.T) *testSwitch {
	t.Helper()
	dir, err := os.MkdirTemp("", "flows") // short: sockets live in it
	if err != nil {
		t.Fatal(err)
	}
	s := &testSwitch{t: t, dir: dir}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s.run("ovsdb-tool", "create", s.path("conf.db"), "/usr/share/openvswitch/vswitch.ovsschema")
	s.daemon("ovsdb-server", s.path("conf.db"), "--remote=punix:"+s.path("db.sock"))
	s.daemon("ovs-vswitchd", "unix:"+s.path("db.sock"), "--enable-dummy", "--disable-system")
	s.run("ovs-vsctl", "--timeout=20", "--db=unix:"+s.path("db.sock"),
		"add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=dummy", "fail-mode=secure", "protocols=OpenFlow13,OpenFlow14",
		"--", "add-port", "br0", "p1", "--", "set", "interface", "p1", "type=dummy", "ofport_request=1",
		"--", "add-port", "br0", "p2", "--", "set", "interface", "p2", "type=dummy", "ofport_request=2")
	s.dial()
	return s
}

func (s *testSwitch) path(name string) string { return filepath.Join(s.dir, name) }

func (s *testSwitch) run(name string, args ...string) string {
	s.t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "OVS_RUNDIR="+s.dir, "OVS_LOGDIR="+s.dir, "OVS_DBDIR="+s.dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Fatalf("%s %s: %s\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// daemon starts a program that goes to the background once it serves.
func (s *testSwitch) daemon(name string, args ...string) {
	s.t.Helper()
	pidFile := s.path(name + ".pid")
	s.run(name, append(args, "--detach", "--no-chdir", "--pidfile="+pidFile, "--unixctl="+s.path(name+".ctl"), "--log-file="+s.path(name+".log"))...)
	text, err := os.ReadFile(pidFile)
	if err != nil {
		s.t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			s.t.Errorf("%s died: %s", name, err)
		}
	})
}

func (s *testSwitch) dial() {
	s.t.Helper()
	conn, err := net.Dial("unix", s.path("br0.mgmt"))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(time.Minute))
	s.conn, s.in = conn, bufio.NewReader(conn)
	s.send(AppendHello(nil, 1))
	h, body := s.receive()
	if versions, err := DecodeHello(body); h.Type != TypeHello || err != nil || versions&(1<<Version) == 0 {
		s.t.Fatalf("hello: %+v %x: %v", h, body, err)
	}
}

func (s *testSwitch) send(b []byte) {
	s.t.Helper()
	if _, err := s.conn.Write(b); err != nil {
		s.t.Fatal(err)
	}
}

// receive returns the next message that is not an echo request, which it answers.
func (s *testSwitch) receive() (Header, []byte) {
	s.t.Helper()
	h, body := s.read()
	for h.Type == TypeEchoRequest {
		s.send(AppendEchoReply(nil, h.XID, body))
		h, body = s.read()
	}
	return h, body
}

func (s *testSwitch) read() (Header, []byte) {
	s.t.Helper()
	b := make([]byte, HeaderSize)
	if _, err := io.ReadFull(s.in, b); err != nil {
		s.t.Fatal(err)
	}
	h, err := DecodeHeader(b)
	if err != nil {
		s.t.Fatal(err)
	}
	body := make([]byte, h.Length-HeaderSize)
	if _, err := io.ReadFull(s.in, body); err != nil {
		s.t.Fatal(err)
	}
	return h, body
}

func (s *testSwitch) nextXID() uint32 { s.xid++; return s.xid }

// request sends a message and returns the switch's answer up to the next barrier.
func (s *testSwitch) request(message func(b []byte, xid uint32) []byte) (Header, []byte, error) {
	s.t.Helper()
	xid, barrier := s.nextXID(), s.nextXID()
	s.send(AppendBarrierRequest(message(nil, xid), barrier))
	var answer Header
	var answerBody []byte
	for {
		h, body := s.receive()
		switch {
		case h.Type == TypeBarrierReply && h.XID == barrier:
			return answer, answerBody, refusal(answer, answerBody)
		case h.XID == xid:
			answer, answerBody = h, body
		}
	}
}

func refusal(h Header, body []byte) error {
	if h.Type != TypeError {
		return nil
	}
	e, err := DecodeError(body)
	if err != nil {
		return err
	}
	return fmt.Errorf("refused: type %d code %d", e.Type, e.Code)
}

// multipart asks for all entries of a kind.
func (s *testSwitch) multipart(typ uint16) [][]byte {
	s.t.Helper()
	xid := s.nextXID()
	s.send(AppendMultipartRequest(nil, xid, typ))
	var parts [][]byte
	for {
		h, body := s.receive()
		if err := refusal(h, body); err != nil {
			s.t.Fatal(err)
		}
		if h.XID != xid {
			continue
		}
		m, err := DecodeMultipart(body)
		if err != nil || m.Type != typ {
			s.t.Fatalf("multipart %d: %+v: %v", typ, m, err)
		}
		parts = append(parts, m.Body)
		if !m.More {
			return parts
		}
	}
}

// askForAsync asks for packet-ins, port status and flow-removed, which a service
// connection does not get before it sets a miss length.
func (s *testSwitch) askForAsync() {
	s.t.Helper()
	if _, _, err := s.request(func(b []byte, xid uint32) []byte { return AppendSetConfig(b, xid, 0, MaxLenAll) }); err != nil {
		s.t.Fatal(err)
	}
}

func (s *testSwitch) add(f *Flow) error {
	s.t.Helper()
	_, _, err := s.request(func(b []byte, xid uint32) []byte { return AppendFlowMod(b, xid, FlowAdd, f) })
	return err
}

func (s *testSwitch) flows() map[Key]FlowStats {
	s.t.Helper()
	all := map[Key]FlowStats{}
	for _, part := range s.multipart(MultipartFlow) {
		stats, err := DecodeFlowStats(part)
		if err != nil {
			s.t.Fatal(err)
		}
		for _, f := range stats {
			all[f.Key()] = f
		}
	}
	return all
}

func (s *testSwitch) groups() map[uint32]Group {
	s.t.Helper()
	all := map[uint32]Group{}
	for _, part := range s.multipart(MultipartGroupDesc) {
		groups, err := DecodeGroupDesc(part)
		if err != nil {
			s.t.Fatal(err)
		}
		for _, g := range groups {
			all[g.ID] = g
		}
	}
	return all
}

func (s *testSwitch) meters() map[uint32]Meter {
	s.t.Helper()
	all := map[uint32]Meter{}
	for _, part := range s.multipart(MultipartMeterConfig) {
		meters, err := DecodeMeterConfig(part)
		if err != nil {
			s.t.Fatal(err)
		}
		for _, m := range meters {
			all[m.ID] = m
		}
	}
	return all
}

// ofctl returns the lines that ovs-ofctl prints, without the reply's heading.
func (s *testSwitch) ofctl(command string) []string {
	s.t.Helper()
	out := s.run("ovs-ofctl", "-O", "OpenFlow13", "--no-stats", "--no-names", command, "unix:"+s.path("br0.mgmt"))
	var lines []string
	for line := range strings.SplitSeq(out, "\n") {
		if line = strings.TrimSpace(line); line != "" && !strings.Contains(line, "reply (OF1.3)") {
			lines = append(lines, line)
		}
	}
	slices.Sort(lines)
	return lines
}
