//go:build nova

package nova

import (
	"bufio"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"text/template"
	"time"

	"planck/test/keystone"
	"planck/test/lab"
	"planck/test/pg"
	"planck/test/rabbitmq"
)

// settle bounds how long anything may take to come about: Nova's services take
// their time on a busy machine.
const settle = 10 * time.Minute

// python is the one that Debian's packages are for.
const python = "/usr/bin/python3"

// secret is what Nova and the controller sign instance ids with.
const secret = "the secret of Nova and the network"

//go:embed run.py shell.py lab.py etc
var files embed.FS

// keeper runs the controller and kills it when standard input ends.
const keeper = `
set -m
"$@" >>"$LOG" 2>&1 </dev/null &
read -r _
kill -KILL -- "-$!"
wait
`

// cloud is an OpenStack.
type cloud struct {
	*testing.T            // of the story that is told
	whole      *testing.T // what is started is there until it ends
	dir        string
	keystone   *keystone.Server
	lab        *lab.Lab

	// Demo is a user with a project; operator is an administrator in it.
	demo, operator keystone.Account
	planck         *service
	nova           *family
	shell          *shell
	binary         string
	settings       settings
	token          string // of the operator
}

// settings are what the configuration files are made of.
type settings struct {
	Dir, AuthURL, Rabbit                                string
	APIDatabase, CellZero, Database                     string
	ImageDatabase, PlacementDatabase                    string
	ComputePort, MetadataPort, ImagePort, PlacementPort int
	NetworkPort, OVSDBPort, OpenFlowPort                int
	Nova, Quantum                                       keystone.Account
	PlanckSecret                                        string
	Sections                                            []section
}

// section is one of nova.conf that says how another service is spoken to.
type section struct {
	Name    string
	Account keystone.Account
	Rest    string
}

// newCloud starts everything, with so many hosts.
func newCloud(t *testing.T, hosts int) *cloud {
	t.Helper()
	c := &cloud{T: t, whole: t, dir: t.TempDir(), keystone: keystone.Start(t)}
	c.configure()
	c.binary = buildPlanck(t)
	c.startPlanck()
	c.lab = lab.ForTest(t, lab.Options{Hosts: hosts, Controllers: []string{fmt.Sprintf("tcp:%s:%d", lab.ControllerHost, c.settings.OVSDBPort)}})
	c.startServices()
	c.startShell()
	c.token = c.keystone.Token(c, c.operator)
	return c
}

func (c *cloud) startPlanck() {
	c.Helper()
	c.planck = c.keep(exec.Command("bash", "-c", keeper, "bash", c.binary, "serve", "--config-file", c.file("planck.conf")), "planck")
	c.answers(c.settings.NetworkPort, "/readyz")
}

// restart ends the controller, as a crash would, and starts it with the
// configuration as it is now.
func (c *cloud) restart() {
	c.Helper()
	c.planck.stop()
	c.startPlanck()
}

func (c *cloud) configure() {
	c.Helper()
	service := func(name string) keystone.Account { return c.keystone.Account(c.T, name, "admin", "service") }
	c.settings = settings{
		Dir: c.dir, AuthURL: c.keystone.URL, Rabbit: rabbitmq.Start(c.T).Addr,
		APIDatabase: pg.Start(c.T), CellZero: pg.Start(c.T), Database: pg.Start(c.T),
		ImageDatabase: pg.Start(c.T), PlacementDatabase: pg.Start(c.T),
		Nova: service("nova"), Quantum: service("quantum"),
		PlanckSecret: secret,
	}
	s := &c.settings
	for _, port := range []*int{&s.ComputePort, &s.MetadataPort, &s.ImagePort, &s.PlacementPort, &s.NetworkPort, &s.OVSDBPort, &s.OpenFlowPort} {
		*port = freePort(c.T)
	}
	s.Sections = []section{
		{"keystone_authtoken", s.Nova, ""}, {"placement", s.Nova, ""}, {"glance", s.Nova, ""},
		{"service_user", s.Nova, "send_service_user_token = True"},
		{"neutron", s.Quantum, "service_metadata_proxy = True\nmetadata_proxy_shared_secret = " + secret},
	}
	for kind, port := range map[string]int{"compute": s.ComputePort, "placement": s.PlacementPort, "image": s.ImagePort, "network": s.NetworkPort} {
		url := fmt.Sprintf("http://127.0.0.1:%d", port)
		if kind == "compute" {
			url += "/v2.1"
		}
		c.keystone.Service(c.T, kind, url)
	}
	c.demo = c.keystone.Account(c.T, "demo", "member", "reader")
	c.operator = c.keystone.Account(c.T, "operator", "admin")
	c.operator.Project, c.operator.ProjectID = c.demo.Project, c.demo.ProjectID
	c.keystone.Grant(c.T, c.operator.UserID, c.demo.ProjectID, "admin")
	for _, name := range []string{"nova.conf", "nova-database.conf", "api-paste.ini", "glance-api.conf", "glance-paste.ini", "placement.conf", "planck.conf"} {
		c.write(name)
	}
	for _, name := range []string{"run.py", "shell.py", "virt/lab.py"} {
		text, err := files.ReadFile(filepath.Base(name))
		if err != nil {
			c.Fatal(err)
		}
		c.put(name, text)
	}
}

// write makes a configuration file of its template.
func (c *cloud) write(name string) {
	c.Helper()
	var text strings.Builder
	if err := template.Must(template.ParseFS(files, "etc/"+name)).Execute(&text, c.settings); err != nil {
		c.Fatal(err)
	}
	c.put(name, []byte(text.String()))
}

func (c *cloud) put(name string, text []byte) {
	c.Helper()
	path := c.file(name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, text, 0o600)); err != nil {
		c.Fatal(err)
	}
}

func (c *cloud) file(name string) string { return filepath.Join(c.dir, name) }

// family are the services of one project, which load their modules once.
type family struct {
	*cloud
	input   io.WriteCloser
	replies *bufio.Reader
}

func (c *cloud) family(modules ...string) *family {
	c.Helper()
	s := c.keep(exec.Command(python, append([]string{c.file("run.py")}, modules...)...), modules[0])
	return &family{cloud: c, input: s.input, replies: s.replies}
}

// does runs a job to its end.
func (f *family) does(name, module string, args ...string) {
	f.Helper()
	f.run("finish", name, module, args)
}

// starts runs a service until the test ends.
func (f *family) starts(name, module string, args ...string) {
	f.Helper()
	f.whole.Cleanup(func() { f.tellLog(name) })
	f.run("start", name, module, args)
}

// ends kills a service.
func (f *family) ends(name string) {
	f.Helper()
	f.run("end", name, "", nil)
}

func (f *family) run(do, name, module string, args []string) {
	f.Helper()
	job, err := json.Marshal(object{"do": do, "name": name, "module": module, "args": args, "log": f.log(name)})
	if err != nil {
		f.Fatal(err)
	}
	if _, err := fmt.Fprintf(f.input, "%s\n", job); err != nil {
		f.Fatalf("%s: %v", name, err)
	}
	code, err := f.replies.ReadString('\n')
	if err != nil || code != "0\n" {
		text, _ := os.ReadFile(f.log(name))
		f.Fatalf("%s %s %v: exit code %q, %v\n%s", do, name, args, code, err, tail(text, 8<<10))
	}
}

// startServices makes the schemas of the databases and starts the services.
func (c *cloud) startServices() {
	c.Helper()
	placement := c.family("placement.wsgi", "placement.cmd.manage")
	glance := c.family("glance.cmd.api", "glance.cmd.manage")
	nova := c.family("nova.cmd.compute", "nova.cmd.manage", "nova.cmd.api", "nova.cmd.conductor", "nova.cmd.scheduler")

	placement.does("placement-manage", "placement.cmd.manage", "--config-file", c.file("placement.conf"), "db", "sync")
	placement.starts("placement-api", "placement.wsgi", strconv.Itoa(c.settings.PlacementPort))
	glance.does("glance-manage", "glance.cmd.manage", "--config-file", c.file("glance-api.conf"), "db_sync")
	glance.starts("glance-api", "glance.cmd.api", "--config-file", c.file("glance-api.conf"))

	c.nova = nova
	alone := []string{"--config-file", c.file("nova.conf")} // a compute service has no database
	config := c.withDatabase()
	for _, step := range []string{
		"api_db sync", "cell_v2 map_cell0 --database_connection " + c.settings.CellZero, "db sync", "cell_v2 create_cell --name cell1",
	} {
		nova.does("nova-manage", "nova.cmd.manage", append(slices.Clone(config), strings.Fields(step)...)...)
	}
	nova.starts("nova-conductor", "nova.cmd.conductor", config...)
	nova.starts("nova-scheduler", "nova.cmd.scheduler", config...)
	c.startAPI()
	c.answers(c.settings.PlacementPort, "/")
	for _, h := range c.lab.Hosts() {
		name := "nova-compute-" + h.Name()
		c.put(name+".conf", fmt.Appendf(nil, "[DEFAULT]\nhost = %s\n", h.Name()))
		nova.starts(name, "nova.cmd.compute", append(slices.Clone(alone), "--config-file", c.file(name+".conf"))...)
	}
	c.answers(c.settings.ImagePort, "/v2/schemas/image")
	c.answers(c.settings.ComputePort, "/")
	c.answers(c.settings.MetadataPort, "/")
}

// withDatabase are the arguments of Nova's services that have a database.
func (c *cloud) withDatabase() []string {
	return []string{"--config-file", c.file("nova.conf"), "--config-file", c.file("nova-database.conf")}
}

func (c *cloud) startAPI() {
	c.Helper()
	c.nova.starts("nova-api", "nova.cmd.api", c.withDatabase()...)
}

// service is a program that runs until the test ends.
type service struct {
	cmd     *exec.Cmd
	input   io.WriteCloser
	replies *bufio.Reader
}

// keep starts a program that ends when its standard input does.
func (c *cloud) keep(cmd *exec.Cmd, name string) *service {
	c.Helper()
	log, err := os.OpenFile(c.log(name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		c.Fatal(err)
	}
	defer log.Close()
	cmd.Stderr = log
	cmd.Env = append(os.Environ(), "LOG="+c.log(name), "OS_PLACEMENT_CONFIG_DIR="+c.dir, "PYTHONWARNINGS=ignore")
	// In a group of its own it outlives a Ctrl-C long enough to clean up.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	input, err := cmd.StdinPipe()
	if err != nil {
		c.Fatal(err)
	}
	output, err := cmd.StdoutPipe()
	if err != nil {
		c.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		c.Fatal(err)
	}
	s := &service{cmd: cmd, input: input, replies: bufio.NewReader(output)}
	c.whole.Cleanup(func() {
		s.stop()
		c.tellLog(name)
	})
	return s
}

func (s *service) stop() {
	_ = s.input.Close() // again, when it was stopped before
	_ = s.cmd.Wait()
}

func (c *cloud) log(name string) string { return c.file(name + ".log") }

// tellLog tells the end of a log when the test has failed.
func (c *cloud) tellLog(name string) {
	if text, _ := os.ReadFile(c.log(name)); c.Failed() {
		c.Logf("the log of %s:\n%s", name, tail(text, 6<<10))
	}
}

// answers waits until a service speaks HTTP.
func (c *cloud) answers(port int, path string) {
	c.Helper()
	url := fmt.Sprintf("http://127.0.0.1:%d%s", port, path)
	c.eventually(url+" answers", func() error {
		res, err := http.Get(url)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if res.StatusCode >= http.StatusInternalServerError {
			return errors.New(res.Status)
		}
		return nil
	})
}

// eventually tries until there is no error.
func (c *cloud) eventually(what string, try func() error) {
	c.Helper()
	deadline := time.Now().Add(settle)
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			c.Fatalf("not within %v: %s: %v", settle, what, err)
		}
		time.Sleep(time.Second) // each look costs Nova a tenth of a second
	}
}

func buildPlanck(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "planck")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", path, "planck/cmd/planck").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func tail(b []byte, n int) []byte {
	if len(b) > n {
		return b[len(b)-n:]
	}
	return b
}
