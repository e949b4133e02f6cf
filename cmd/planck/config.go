package main

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"planck/network"
)

// Config is how planck serve is configured.
type Config struct {
	BindHost           string // "" for all addresses
	BindPort           int
	UseSSL             bool   // of the API
	SSLCert            string // file
	SSLKey             string
	SSLCA              string // "" asks clients for no certificate
	MembersCA          string // file of the authorities of other members
	AuthStrategy       string // "keystone" or "noauth"
	Keystone           keystoneConfig
	Quotas             quotaConfig
	PolicyFile         string // "" for none
	AllowBulk          bool
	PaginationMaxLimit pageLimit

	StateDir    string
	ClusterName string
	// ClusterAdvertise is where the API is, without the port; "" to find out.
	ClusterAdvertise advertiseAddr
	Database         databaseURL

	LogLevel  slog.Level
	LogFormat logFormat // "text" or "json"
	LogFile   string    // "" for standard error

	OpenFlowListen  listenAddr
	OVSDBListen     listenAddr
	Advertise       advertiseAddr // "" for the local address of the OVSDB connection
	TLSCert         string        // file; "" for plain TCP
	TLSKey          string
	TLSCA           string
	ARPResponder    string // "cached", "packet-in" or "proactive"
	PuntRatePerHost int    // packets a second of each class; 0 for no limit
	PuntRatePerPort int
	AuditInterval   seconds

	TenantNetworkTypes networkTypes
	EnableTunneling    bool
	TunnelTypes        tunnelTypes
	GRERanges          greRanges
	VNIRanges          vniRanges
	VLANRanges         vlanRanges
	FlatNetworks       []string
	GlobalPhysnetMTU   int // bytes
	PathMTU            int // bytes; 0 for GlobalPhysnetMTU

	BaseMAC             network.MAC
	MaxFixedIPsPerPort  int
	AllowOverlappingIPs bool
	DHCPLeaseDuration   seconds // negative for ever
	DNSDomain           string

	Nova   novaConfig
	notify notifyConfig

	NovaMetadataHost     string
	NovaMetadataPort     int
	NovaMetadataProtocol string // "http" or "https"
	NovaMetadataInsecure bool   // any certificate will do
	NovaMetadataCA       string // file; "" for the system's
	NovaMetadataCert     string // file; "" for none
	NovaMetadataKey      string
	MetadataSecret       string

	OTelEndpoint string // of a collector; "" for that of the environment, or none

	debug, verbose bool
	logDir         string
}

// APIListen is the address of the REST API, "host:port".
func (c *Config) APIListen() string {
	return net.JoinHostPort(c.BindHost, strconv.Itoa(c.BindPort))
}

// NetworkConfig is the part of the configuration that the model needs.
func (c *Config) NetworkConfig() network.Config {
	n := network.DefaultConfig()
	n.TenantNetworkTypes = c.TenantNetworkTypes
	n.TunnelRanges = map[string][]network.IDRange{}
	for _, t := range c.TunnelTypes {
		n.TunnelRanges[t] = c.VNIRanges
		if t == network.TypeGRE {
			n.TunnelRanges[t] = c.GRERanges
		}
	}
	n.VLANRanges = maps.Clone(c.VLANRanges)
	if n.VLANRanges == nil {
		n.VLANRanges = map[string][]network.IDRange{}
	}
	for _, physical := range c.FlatNetworks {
		if _, known := n.VLANRanges[physical]; !known && physical != "*" {
			n.VLANRanges[physical] = nil
		}
	}
	n.GlobalPhysnetMTU = c.GlobalPhysnetMTU
	n.PathMTU = c.PathMTU
	n.BaseMAC = c.BaseMAC
	n.MaxFixedIPsPerPort = c.MaxFixedIPsPerPort
	n.AllowOverlappingIPs = c.AllowOverlappingIPs
	return n
}

// LoadConfig reads files in order, later ones win, and applies flags (name
// without dashes → value), which go before files. Warnings are about what was
// left out; an error about what can't be used, and it names everything found.
func LoadConfig(files []string, flags map[string]string) (*Config, []string, error) {
	entries, err := readINIFiles(files)
	if err != nil {
		return nil, nil, err
	}
	return newConfig(entries, flags)
}

func readINIFiles(files []string) ([]entry, error) {
	var entries []entry
	for _, file := range files {
		read, err := readINIFile(file)
		if err != nil {
			return nil, err
		}
		entries = append(entries, read...)
	}
	return entries, nil
}

// addConfigFlags declares --config-file and the flag of every option that has one,
// or only those that are named.
func addConfigFlags(fs *pflag.FlagSet, only ...string) {
	fs.StringArray("config-file", nil, "oslo-style INI file; may be repeated, later files win")
	for _, o := range options {
		if o.Flag == "" || len(only) > 0 && !slices.Contains(only, o.Flag) {
			continue
		}
		usage := strings.ReplaceAll(o.Doc, "`", "")
		if d := strings.ReplaceAll(o.shownDefault(), "`", ""); d != "" {
			usage += " (default: " + d + ")"
		}
		fs.String(o.Flag, "", usage)
	}
}

// configFromFlags is LoadConfig with what addConfigFlags declared.
func configFromFlags(fs *pflag.FlagSet) (*Config, []string, error) {
	files, given, err := givenFlags(fs)
	if err != nil {
		return nil, nil, err
	}
	return LoadConfig(files, given)
}

// databaseFromFlags is the database that planck serve would use with the same
// files and flags. What only serving needs may be missing.
func databaseFromFlags(fs *pflag.FlagSet) (databaseURL, []string, error) {
	files, given, err := givenFlags(fs)
	if err != nil {
		return "", nil, err
	}
	entries, err := readINIFiles(files)
	if err != nil {
		return "", nil, err
	}
	l := newLoader(entries, given)
	l.setDefaults()
	l.setFromFiles()
	l.setFromFlags()
	l.completeDatabase()
	return l.config.Database, l.warnings, errors.Join(l.errs...)
}

func givenFlags(fs *pflag.FlagSet) (files []string, given map[string]string, err error) {
	files, err = fs.GetStringArray("config-file")
	given = map[string]string{}
	fs.Visit(func(f *pflag.Flag) {
		if findFlag(f.Name) != nil {
			given[f.Name] = f.Value.String()
		}
	})
	return files, given, err
}

// shownDefault is the default as documentation gives it, "" for none.
func (o *option) shownDefault() string {
	if o.Computed != "" || o.Default == "" {
		return o.Computed
	}
	return "`" + o.Default + "`"
}

// loader turns entries and flags into a Config.
type loader struct {
	entries  []entry
	flags    map[string]string
	config   *Config
	budget   int                // substitutions left for the value at hand
	given    map[*option]string // where: "planck.conf:3: [DEFAULT] bind_port" or "--api-listen"
	ignored  []string
	unused   []string
	warnings []string
	errs     []error
}

func newLoader(entries []entry, flags map[string]string) *loader {
	return &loader{entries: entries, flags: flags, config: &Config{}, given: map[*option]string{}}
}

func newConfig(entries []entry, flags map[string]string) (*Config, []string, error) {
	l := newLoader(entries, flags)
	l.setDefaults()
	l.setFromFiles()
	l.setFromFlags()
	l.complete()
	l.warnOnce("accepted, not used yet: ", l.unused)
	l.warnOnce("ignored, without a meaning here: ", l.ignored)
	if err := errors.Join(l.errs...); err != nil {
		return nil, l.warnings, err
	}
	return l.config, l.warnings, nil
}

func (l *loader) setDefaults() {
	for _, o := range options {
		if o.Default == "" {
			continue
		}
		if err := o.set(l.config, o.Default); err != nil {
			l.errs = append(l.errs, fmt.Errorf("default of %s: %w", o.title(), err))
		}
	}
}

func (l *loader) setFromFiles() {
	for _, e := range l.entries {
		title := fmt.Sprintf("[%s] %s", e.section, e.name)
		o := findOption(e.section, e.name)
		switch {
		case o != nil:
			l.setFromEntry(o, e, title)
		case isForeign(later, e.section, e.name):
			l.unused = append(l.unused, title)
		case isForeign(ignored, e.section, e.name):
			l.ignored = append(l.ignored, title)
		default:
			l.warn(e, "unknown option "+title)
		}
	}
}

func (l *loader) setFromEntry(o *option, e entry, title string) {
	l.budget = maxSubstitutions
	text := l.substitute(e.section, o.textOf(e))
	if text == "" && o.Default == "" {
		l.clear(o)
		return
	}
	where := at(e.file, e.line) + ": " + title
	err := o.set(l.config, text)
	var cannot unsupported
	switch {
	case errors.As(err, &cannot):
		l.clear(o)
		l.warn(e, title+": "+cannot.Error()+"; "+l.inPlaceOf(o)+" is used")
		return
	case err != nil:
		l.errs = append(l.errs, fmt.Errorf("%s: %w", where, err))
		return
	}
	l.given[o] = where
	if o.Names[0] == "log_format" && strings.Contains(text, "%(") {
		l.ignored = append(l.ignored, title)
	}
}

// inPlaceOf is what is used in place of a value that can't be.
func (l *loader) inPlaceOf(o *option) string {
	if _, given := l.flags[o.Flag]; given {
		return "--" + o.Flag
	}
	return "the default"
}

// textOf is what an entry says about the option.
func (o *option) textOf(e entry) string {
	if !o.Repeatable {
		return e.last().text
	}
	texts := make([]string, len(e.values))
	for i, v := range e.values {
		texts[i] = v.text
	}
	return strings.Join(texts, ",")
}

// clear takes back what an earlier file said: an option without a default that
// is there and empty.
func (l *loader) clear(o *option) {
	delete(l.given, o)
	switch target := o.Into(l.config).(type) {
	case *string:
		*target = ""
	case *[]string:
		*target = nil
	case *databaseURL:
		*target = ""
	case *advertiseAddr:
		*target = ""
	case *vlanRanges:
		*target = nil
	case *notifyDrivers:
		*target = nil
	case *transportURL:
		*target = transportURL{}
	}
}

func (l *loader) setFromFlags() {
	for _, name := range slices.Sorted(maps.Keys(l.flags)) {
		o := findFlag(name)
		if o == nil {
			l.errs = append(l.errs, fmt.Errorf("--%s: unknown flag", name))
			continue
		}
		if err := o.set(l.config, l.flags[name]); err != nil {
			l.errs = append(l.errs, fmt.Errorf("--%s: %w", name, err))
			continue
		}
		l.given[o] = "--" + name
	}
}

// warnOnce makes one warning of a list.
func (l *loader) warnOnce(what string, titles []string) {
	if len(titles) > 0 {
		slices.Sort(titles)
		l.warnings = append(l.warnings, what+strings.Join(slices.Compact(titles), ", "))
	}
}

func (l *loader) warn(e entry, text string) {
	l.warnings = append(l.warnings, at(e.file, e.line)+": "+text)
}

// complete fills in what follows from several options, and checks what can only
// be checked with all of them known.
func (l *loader) complete() {
	c := l.config
	l.completeDatabase()
	l.completeLog()
	l.completeTunnels()
	if c.AuthStrategy == "" {
		if !loopback(c.BindHost) {
			l.fail(fmt.Errorf("auth_strategy (--auth-strategy) must be given, keystone or noauth: %s is not a loopback address", c.APIListen()),
				findFlag("api-listen"), findOption("DEFAULT", "bind_host"))
		}
		c.AuthStrategy = "noauth"
	}
	l.checkTLS()
	l.checkNovaMetadata()
	l.completeKeystone()
	l.completePolicy()
}

// completeDatabase finds the state directory, and the database in it unless there
// is another.
func (l *loader) completeDatabase() {
	c := l.config
	stateDir, err := filepath.Abs(c.StateDir)
	if err != nil {
		l.fail(err, findOption("DEFAULT", "state_path"))
	}
	c.StateDir = stateDir
	if c.Database == "" {
		c.Database = databaseURL("sqlite:///" + filepath.Join(c.StateDir, "planck.db"))
	}
}

// completePolicy finds a policy file beside the configuration file that names it.
func (l *loader) completePolicy() {
	if _, byFlag := l.flags["policy-file"]; byFlag || l.config.PolicyFile == "" || filepath.IsAbs(l.config.PolicyFile) {
		return
	}
	for _, e := range slices.Backward(l.entries) {
		if findOption(e.section, e.name) == findFlag("policy-file") {
			l.config.PolicyFile = filepath.Join(filepath.Dir(e.file), l.config.PolicyFile)
			return
		}
	}
}

// checkTLS sees to it that a certificate, its key and the CA are all there or
// none, and that the API has a certificate where it needs one.
func (l *loader) checkTLS() {
	c := l.config
	if c.UseSSL && (c.SSLCert == "" || c.SSLKey == "") {
		l.fail(errors.New("use_ssl needs [ssl] cert_file and key_file"), findOption("DEFAULT", "use_ssl"))
	}
	files := []string{c.TLSCert, c.TLSKey, c.TLSCA}
	if !slices.Contains(files, "") || strings.Join(files, "") == "" {
		return
	}
	l.fail(errors.New("cert, key and ca go together: all of them or none"),
		findOption("openflow", "cert"), findOption("openflow", "key"), findOption("openflow", "ca"))
}

// fail notes what is wrong with options together, at the place of the first of
// them that was given.
func (l *loader) fail(err error, about ...*option) {
	for _, o := range about {
		if where, given := l.given[o]; given {
			l.errs = append(l.errs, fmt.Errorf("%s: %w", where, err))
			return
		}
	}
	l.errs = append(l.errs, fmt.Errorf("%s: %w", about[0].title(), err))
}

func (l *loader) completeLog() {
	c := l.config
	if _, given := l.given[findFlag("log-level")]; !given && c.debug {
		c.LogLevel = slog.LevelDebug
	}
	if c.logDir == "" {
		return
	}
	if c.LogFile == "" {
		c.LogFile = "planck.log"
	}
	if !filepath.IsAbs(c.LogFile) {
		c.LogFile = filepath.Join(c.logDir, c.LogFile)
	}
}

// completeTunnels makes the types of tenant networks agree with the tunnels
// that there are.
func (l *loader) completeTunnels() {
	c := l.config
	if !c.EnableTunneling {
		c.TunnelTypes = nil
	}
	tenant := findOption("OVS", "tenant_network_types")
	if _, given := l.given[tenant]; !given {
		c.TenantNetworkTypes = networkTypes{c.defaultTenantType()}
	}
	for _, t := range c.TenantNetworkTypes {
		if slices.Contains(allTunnelTypes, t) && !slices.Contains(c.TunnelTypes, t) {
			l.fail(fmt.Errorf("networks of tenants of type %[1]s (tenant_network_types) need %[1]s tunnels, which enable_tunneling and tunnel_types leave out", t),
				tenant, findOption("OVS", "tunnel_types"), findOption("OVS", "enable_tunneling"))
		}
	}
}

// peerType is the type of the tunnels in which hosts watch each other: one that
// carries tenants' networks too, since a firewall between hosts lets that pass.
func (c *Config) peerType() string {
	for _, t := range c.TenantNetworkTypes {
		if slices.Contains(allTunnelTypes, t) {
			return t
		}
	}
	if len(c.TunnelTypes) > 0 {
		return c.TunnelTypes[0]
	}
	return network.TypeGRE
}

// defaultTenantType is the type of tenant networks where none is given: gre, else
// a type of the tunnels that there are.
func (c *Config) defaultTenantType() string {
	if slices.Contains(c.TunnelTypes, network.TypeGRE) {
		return network.TypeGRE
	}
	if len(c.TunnelTypes) > 0 {
		return c.TunnelTypes[0]
	}
	for _, ranges := range c.VLANRanges {
		if len(ranges) > 0 {
			return network.TypeVLAN
		}
	}
	return network.TypeLocal
}

// variable is $name, ${name}, %(name)s, or $$ for a dollar.
var variable = regexp.MustCompile(`\$\$|\$([a-z_][a-z0-9_]*)|\$\{([a-z_][a-z0-9_]*)\}|%\(([a-z_][a-z0-9_]*)\)s`)

// maxSubstitutions bounds how many variables one value may lead to, since they
// may refer to each other.
const maxSubstitutions = 100

// substitute puts the values of other options into text. What is no option
// stays as it is.
func (l *loader) substitute(section, text string) string {
	if !strings.ContainsAny(text, "$%") {
		return text
	}
	return variable.ReplaceAllStringFunc(text, func(found string) string {
		if found == "$$" {
			return "$"
		}
		value, ok := l.lookup(section, strings.Trim(strings.TrimSuffix(found, ")s"), "$%{}()"))
		if !ok || l.budget == 0 {
			return found
		}
		l.budget--
		return l.substitute(section, value)
	})
}

// lookup is the text of an option: of the same section, else of DEFAULT.
func (l *loader) lookup(section, name string) (string, bool) {
	for _, in := range []string{section, "DEFAULT"} {
		o := findOption(in, name)
		if o != nil && o.Flag != "" {
			if v, ok := l.flags[o.Flag]; ok {
				return v, true
			}
		}
		for _, e := range slices.Backward(l.entries) {
			if strings.EqualFold(e.section, in) && e.name == name {
				return e.last().text, true
			}
		}
		if o != nil && o.Default != "" {
			return o.Default, true
		}
	}
	if name == "host" {
		host, err := os.Hostname()
		return host, err == nil
	}
	return "", false
}
