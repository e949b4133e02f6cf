package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"planck/network"
)

var allTunnelTypes = []string{network.TypeGRE, network.TypeVXLAN, network.TypeGeneve}

// option is one thing that can be configured.
type option struct {
	// Sections and Names, each the usual one first: every combination is
	// accepted in files. Sections are compared without regard to case. An
	// option without names is a flag only.
	Sections []string
	Names    []string
	Flag     string // without dashes; "" for none
	Default  string // as it would be in a file
	Computed string // what the documentation gives as default where Default can't say it
	Doc      string
	// Repeatable options have all of their values, joined by commas.
	Repeatable bool
	// Into is the field that the value goes into.
	Into func(*Config) any
	// OneOf are the values that a string may have; none means any.
	OneOf []string
	// Min and Max are the lowest and the highest value of an integer.
	Min, Max *int
	// Check refuses a value that its type can hold; it is in c already.
	Check func(c *Config) error
}

func limit(n int) *int { return &n }

// set gives the option's value to c.
func (o *option) set(c *Config, text string) error {
	if len(o.OneOf) > 0 && !slices.Contains(o.OneOf, text) {
		return fmt.Errorf("%q is not one of %s", text, strings.Join(o.OneOf, ", "))
	}
	target := o.Into(c)
	if err := setValue(target, text); err != nil {
		return err
	}
	if n, ok := target.(*int); ok && o.Min != nil && *n < *o.Min {
		return fmt.Errorf("%d is below %d", *n, *o.Min)
	}
	if n, ok := target.(*int); ok && o.Max != nil && *n > *o.Max {
		return fmt.Errorf("%d is above %d", *n, *o.Max)
	}
	if o.Check != nil {
		return o.Check(c)
	}
	return nil
}

// matches reports whether the option is the one called name in section.
func (o *option) matches(section, name string) bool {
	return slices.Contains(o.Names, name) && containsFold(o.Sections, section)
}

func containsFold(list []string, s string) bool {
	return slices.ContainsFunc(list, func(e string) bool { return strings.EqualFold(e, s) })
}

// title is the option as messages call it.
func (o *option) title() string {
	if len(o.Names) == 0 {
		return "--" + o.Flag
	}
	return fmt.Sprintf("[%s] %s", o.Sections[0], o.Names[0])
}

var (
	inDefault  = []string{"DEFAULT"}
	inSSL      = []string{"ssl", "DEFAULT"}
	inOpenFlow = []string{"openflow"}
	// Fragments of ovs_quantum_plugin.ini come without a section header, and
	// the ML2 plugin has the same options in sections of its own.
	inOVS      = []string{"OVS", "DEFAULT", "ml2"}
	inDatabase = []string{"database", "DEFAULT"}
	// The agent's metadata_agent.ini has them without a section of their own.
	inMetadata = []string{"metadata", "DEFAULT"}
)

// lowestMTU is what every IPv4 host takes (RFC 791), in bytes.
const lowestMTU = 576

// defaultTunnelRange is all that VXLAN and Geneve have room for.
const defaultTunnelRange = "1:16777215"

// options is everything that planck serve understands, in the order of the
// documentation (docs/configuration.md is made from it).
var options = slices.Concat(ownOptions, clusterOptions, keystoneOptions, quotaOptions, novaOptions, notifyOptions, telemetryOptions)

var ownOptions = []*option{
	{Flag: "api-listen", Computed: "`127.0.0.1:9696`", Doc: "Where the REST API listens: `bind_host` and `bind_port` in one.",
		Into: func(c *Config) any { return &apiListen{c} }},
	{Sections: inDefault, Names: []string{"bind_host"}, Default: "127.0.0.1",
		Doc:  "Address on which the REST API listens.",
		Into: func(c *Config) any { return &c.BindHost }},
	{Sections: inDefault, Names: []string{"bind_port"}, Default: "9696", Min: limit(0), Max: limit(65535),
		Doc:  "TCP port of the REST API.",
		Into: func(c *Config) any { return &c.BindPort }},
	{Sections: inDefault, Names: []string{"use_ssl"}, Default: "False",
		Doc:  "Whether the REST API speaks TLS, with `cert_file` and `key_file`.",
		Into: func(c *Config) any { return &c.UseSSL }},
	{Sections: inSSL, Names: []string{"cert_file", "ssl_cert_file"},
		Doc:  "Certificate file (PEM) of the REST API, with those that sign it up to the authority.",
		Into: func(c *Config) any { return &c.SSLCert }},
	{Sections: inSSL, Names: []string{"key_file", "ssl_key_file"},
		Doc:  "File of that certificate's private key.",
		Into: func(c *Config) any { return &c.SSLKey }},
	{Sections: []string{"ssl"}, Names: []string{"ca_file"},
		Doc:  "File of the certificates that sign those of the API's clients; with it, a client without one is refused.",
		Into: func(c *Config) any { return &c.SSLCA }},
	{Sections: inDefault, Names: []string{"auth_strategy"}, Flag: "auth-strategy", OneOf: []string{"keystone", "noauth"},
		Computed: "`noauth` when the API listens on a loopback address; otherwise it must be given",
		Doc:      "How requests are authenticated: `keystone` asks Keystone about their tokens, see `[keystone_authtoken]`; `noauth` believes the headers X-Project-Id and X-Roles.",
		Into:     func(c *Config) any { return &c.AuthStrategy }},
	{Sections: []string{"DEFAULT", "oslo_policy"}, Names: []string{"policy_file"}, Flag: "policy-file", Computed: "built in",
		Doc: "File of policy rules, JSON or YAML, in place of built-in ones with the same names; relative to the file that names it." +
			" It is read again when it changes and on SIGHUP; while it is broken the rules from before stay.",
		Into: func(c *Config) any { return &c.PolicyFile }},
	{Sections: inDefault, Names: []string{"allow_bulk"}, Default: "True",
		Doc:  "Whether one request may create several objects.",
		Into: func(c *Config) any { return &c.AllowBulk }},
	{Sections: inDefault, Names: []string{"pagination_max_limit"}, Default: "-1",
		Doc:  "Most objects in one page; `infinite` or a negative number for no limit.",
		Into: func(c *Config) any { return &c.PaginationMaxLimit }},

	{Sections: inDefault, Names: []string{"state_path"}, Flag: "state-dir", Default: "/var/lib/planck",
		Doc:  "Directory for what must outlive the process.",
		Into: func(c *Config) any { return &c.StateDir }},
	{Sections: inDatabase, Names: []string{"connection", "sql_connection"}, Flag: "database",
		Computed: "`sqlite:///STATE_PATH/planck.db`",
		Doc:      "Database: `sqlite:///path` or `postgresql://user:password@host/database`. A `mysql://` URL in a file is a warning, and the default is used.",
		Into:     func(c *Config) any { return &c.Database }},

	{Flag: "log-level", Computed: "info", OneOf: []string{"debug", "info", "warn", "error"},
		Doc:  "Lowest level that is logged; goes before `debug` and `verbose`. Read again on SIGHUP.",
		Into: func(c *Config) any { return &c.LogLevel }},
	{Sections: inDefault, Names: []string{"debug"}, Default: "False",
		Doc:  "Log at level debug.",
		Into: func(c *Config) any { return &c.debug }},
	{Sections: inDefault, Names: []string{"verbose"}, Default: "False",
		Doc:  "Log at level info, which is the default.",
		Into: func(c *Config) any { return &c.verbose }},
	{Sections: inDefault, Names: []string{"log_format"}, Flag: "log-format", Default: "text",
		Doc:  "`text` or `json`. Format strings of Python's logging are accepted and ignored.",
		Into: func(c *Config) any { return &c.LogFormat }},
	{Sections: inDefault, Names: []string{"log_file"}, Computed: "standard error",
		Doc:  "File that the log goes to, relative to `log_dir`.",
		Into: func(c *Config) any { return &c.LogFile }},
	{Sections: inDefault, Names: []string{"log_dir"},
		Doc:  "Directory of `log_file`; alone it means `planck.log` in it.",
		Into: func(c *Config) any { return &c.logDir }},

	{Sections: inOpenFlow, Names: []string{"listen"}, Flag: "openflow-listen", Default: ":6653",
		Doc:  "Where switches connect by OpenFlow.",
		Into: func(c *Config) any { return &c.OpenFlowListen }},
	{Sections: []string{"ovsdb"}, Names: []string{"listen"}, Flag: "ovsdb-listen", Default: ":6640",
		Doc:  "Where the databases of the switches connect (`ovs-vsctl set-manager`).",
		Into: func(c *Config) any { return &c.OVSDBListen }},
	{Sections: inOpenFlow, Names: []string{"advertise"}, Flag: "advertise",
		Computed: "the local address of the switch's OVSDB connection",
		Doc:      "Address at which switches are told to find the controller.",
		Into:     func(c *Config) any { return &c.Advertise }},
	{Sections: []string{"cluster"}, Names: []string{"ca_file"}, Computed: "`[ssl] ca_file`, else those of the system",
		Doc:  "File of the certificates that sign those of the other members' APIs.",
		Into: func(c *Config) any { return &c.MembersCA }},
	{Sections: inOpenFlow, Names: []string{"cert"},
		Doc:  "Certificate file (PEM). With it, `key` and `ca`, switches connect by TLS (`ssl:`).",
		Into: func(c *Config) any { return &c.TLSCert }},
	{Sections: inOpenFlow, Names: []string{"key"},
		Doc:  "File of the certificate's private key.",
		Into: func(c *Config) any { return &c.TLSKey }},
	{Sections: inOpenFlow, Names: []string{"ca"},
		Doc:  "File of the certificates that sign those of the switches.",
		Into: func(c *Config) any { return &c.TLSCA }},
	{Sections: inOpenFlow, Names: []string{"arp_responder"}, Default: "cached", OneOf: []string{"cached", "packet-in", "proactive"},
		Doc:  "`packet-in`: the controller answers each question of ARP and of IPv6 neighbour discovery. `cached`: it leaves the answer in the switch. `proactive`: all answers are in the switches beforehand.",
		Into: func(c *Config) any { return &c.ARPResponder }},
	{Sections: inOpenFlow, Names: []string{"punt_rate_per_host"}, Default: "1000", Min: limit(0),
		Doc:  "Packets a second of each class that a host may send up to the controller; 0 is no limit.",
		Into: func(c *Config) any { return &c.PuntRatePerHost }},
	{Sections: inOpenFlow, Names: []string{"punt_rate_per_port"}, Default: "50", Min: limit(0),
		Doc:  "Packets a second of each class that a port may send up to the controller; 0 is no limit.",
		Into: func(c *Config) any { return &c.PuntRatePerPort }},
	{Sections: inOpenFlow, Names: []string{"audit_interval"}, Default: "60",
		Doc:  "How often the flows of every switch are read and compared, to find what was changed behind the controller's back.",
		Into: func(c *Config) any { return &c.AuditInterval },
		Check: func(c *Config) error {
			if c.AuditInterval <= 0 {
				return errors.New("it must be above 0")
			}
			return nil
		}},

	{Sections: inOVS, Names: []string{"tenant_network_types", "tenant_network_type"}, Default: "gre",
		Doc:  "Types for networks of tenants, tried in this order: `local`, `vlan`, `gre`, `vxlan`, `geneve`; `none` leaves networks to the administrator.",
		Into: func(c *Config) any { return &c.TenantNetworkTypes }},
	{Sections: inOVS, Names: []string{"enable_tunneling"}, Default: "True",
		Doc:  "Whether there are tunnels between hosts. Without, the default `tenant_network_types` is `vlan` where there are VLAN ranges, else `local`.",
		Into: func(c *Config) any { return &c.EnableTunneling }},
	{Sections: append([]string{"AGENT"}, inOVS...), Names: []string{"tunnel_types", "tunnel_type"}, Default: "gre,vxlan,geneve",
		Doc:  "Types of tunnels that hosts have and networks may use. Without gre, the default `tenant_network_types` is the first of them.",
		Into: func(c *Config) any { return &c.TunnelTypes }},
	{Sections: append([]string{"ml2_type_gre"}, inOVS...), Names: []string{"tunnel_id_ranges"}, Default: defaultTunnelRange,
		Doc:  "GRE keys for networks of tenants.",
		Into: func(c *Config) any { return &c.GRERanges }},
	{Sections: append([]string{"ml2_type_vxlan", "ml2_type_geneve"}, inOVS...), Names: []string{"vni_ranges"}, Default: defaultTunnelRange,
		Doc:  "VXLAN and Geneve network identifiers for networks of tenants.",
		Into: func(c *Config) any { return &c.VNIRanges }},
	{Sections: append([]string{"ml2_type_vlan"}, inOVS...), Names: []string{"network_vlan_ranges"},
		Doc:  "Physical networks, and the VLAN ids on them for networks of tenants: `physnet1:100:199,physnet2`.",
		Into: func(c *Config) any { return &c.VLANRanges }},
	{Sections: append([]string{"ml2_type_flat"}, inOVS...), Names: []string{"flat_networks"},
		Doc:  "More physical networks, without VLAN ids for tenants; `*` adds none, since those of the hosts' bridge mappings are known anyway.",
		Into: func(c *Config) any { return &c.FlatNetworks }},
	{Sections: inDefault, Names: []string{"global_physnet_mtu"}, Default: "1500", Min: limit(lowestMTU),
		Doc:  "MTU of the physical network, in bytes.",
		Into: func(c *Config) any { return &c.GlobalPhysnetMTU }},
	{Sections: inOVS, Names: []string{"path_mtu"}, Default: "0", Min: limit(0),
		Doc:  "MTU of the path that tunnels take, in bytes; 0 is `global_physnet_mtu`. A network's `mtu` is that less 42 for gre, 50 for vxlan, 58 for geneve.",
		Into: func(c *Config) any { return &c.PathMTU },
		Check: func(c *Config) error {
			if c.PathMTU != 0 && c.PathMTU < lowestMTU {
				return fmt.Errorf("%d is below %d", c.PathMTU, lowestMTU)
			}
			return nil
		}},

	{Sections: inDefault, Names: []string{"base_mac"}, Default: "fa:16:3e:00:00:00",
		Doc:  "MAC addresses are made from its first three bytes, or four when the fourth is not 00.",
		Into: func(c *Config) any { return &c.BaseMAC },
		Check: func(c *Config) error {
			if c.BaseMAC[0]&1 != 0 {
				return fmt.Errorf("%s is a multicast address", c.BaseMAC)
			}
			return nil
		}},
	{Sections: inDefault, Names: []string{"max_fixed_ips_per_port"}, Default: "5", Min: limit(1),
		Doc:  "Most addresses of a port.",
		Into: func(c *Config) any { return &c.MaxFixedIPsPerPort }},
	{Sections: inDefault, Names: []string{"allow_overlapping_ips"}, Default: "True",
		Doc:  "Whether subnets of different networks may have the same addresses.",
		Into: func(c *Config) any { return &c.AllowOverlappingIPs }},
	{Sections: inDefault, Names: []string{"dhcp_lease_duration"}, Default: "86400",
		Doc:  "How long a DHCP lease is; -1 is for ever.",
		Into: func(c *Config) any { return &c.DHCPLeaseDuration },
		Check: func(c *Config) error {
			if c.DHCPLeaseDuration == 0 {
				return errors.New("0 is no lease; -1 is for ever")
			}
			return nil
		}},
	{Sections: inDefault, Names: []string{"dns_domain", "dhcp_domain"}, Default: "openstacklocal",
		Doc:  "Domain of ports on networks that have no `dns_domain` of their own: in DHCP replies and in `dns_assignment`.",
		Into: func(c *Config) any { return &c.DNSDomain }},

	{Sections: inMetadata, Names: []string{"nova_metadata_host", "nova_metadata_ip", "metadata_ip"}, Default: "127.0.0.1",
		Doc:  "Host or address of Nova's metadata service, to which the requests of VMs to 169.254.169.254 are forwarded.",
		Into: func(c *Config) any { return &c.NovaMetadataHost }},
	{Sections: inMetadata, Names: []string{"nova_metadata_port"}, Default: "8775", Min: limit(1), Max: limit(65535),
		Doc:  "TCP port of Nova's metadata service.",
		Into: func(c *Config) any { return &c.NovaMetadataPort }},
	{Sections: inMetadata, Names: []string{"nova_metadata_protocol"}, Default: "http", OneOf: []string{"http", "https"},
		Doc:  "How Nova's metadata service is spoken to.",
		Into: func(c *Config) any { return &c.NovaMetadataProtocol }},
	{Sections: inMetadata, Names: []string{"nova_metadata_insecure"}, Default: "False",
		Doc:  "Whether any certificate of Nova's metadata service is taken.",
		Into: func(c *Config) any { return &c.NovaMetadataInsecure }},
	{Sections: inMetadata, Names: []string{"auth_ca_cert"}, Computed: "the system's",
		Doc:  "File of the certificates that sign that of Nova's metadata service.",
		Into: func(c *Config) any { return &c.NovaMetadataCA }},
	{Sections: inMetadata, Names: []string{"nova_client_cert"},
		Doc:  "Certificate file (PEM) that is shown to Nova's metadata service.",
		Into: func(c *Config) any { return &c.NovaMetadataCert }},
	{Sections: inMetadata, Names: []string{"nova_client_priv_key"},
		Doc:  "File of that certificate's private key.",
		Into: func(c *Config) any { return &c.NovaMetadataKey }},
	{Sections: inMetadata, Names: []string{"metadata_proxy_shared_secret"},
		Doc:  "Signs the instance id that goes to Nova, which has the same one in `[neutron] metadata_proxy_shared_secret`. Without it, whoever reaches Nova's metadata port can ask for any instance.",
		Into: func(c *Config) any { return &c.MetadataSecret }},
}

// foreign is a group of options of Quantum's and Neutron's files that planck
// serve knows and does not use.
type foreign struct {
	Section string   // compared without regard to case; a final * matches any ending
	Names   []string // "*" is all of them; a final * matches any ending
}

func (f foreign) matches(section, name string) bool {
	return matchesPattern(strings.ToLower(f.Section), strings.ToLower(section)) &&
		slices.ContainsFunc(f.Names, func(p string) bool { return matchesPattern(p, name) })
}

func matchesPattern(pattern, s string) bool {
	prefix, open := strings.CutSuffix(pattern, "*")
	if open {
		return strings.HasPrefix(s, prefix)
	}
	return pattern == s
}

// later are options of features that this version does not have. They are
// accepted, so that a file need not change when the feature comes, and listed
// once when the program starts.
var later = []foreign{
	{"DEFAULT", []string{"max_routes", "max_dns_nameservers", "max_subnet_host_routes"}},
}

// metadataAgent are options of Neutron's metadata agent and its proxies.
var metadataAgent = []string{"metadata_workers", "metadata_backlog", "metadata_proxy_socket*", "metadata_proxy_user", "metadata_proxy_group",
	"metadata_proxy_watch_log", "metadata_port", "metadata_access_mark", "metadata_rate_limiting*", "cache_url"}

// ignored are options that have no meaning here: those of agents, plugins,
// other message queues and Python's web server, and switches for what is
// always on.
var ignored = []foreign{
	{"ssl", []string{"version", "ciphers"}},
	{"DEFAULT", metadataAgent},
	{"DEFAULT", []string{
		"core_plugin", "service_plugins", "api_extensions_path", "api_paste_config", "lock_path",
		"rpc_*", "allowed_rpc_exception_modules", "fake_rabbit", "qpid_*", "amqp_*", "matchmaker_*", "ringfile",
		"log_date_format", "log_config*", "logging_*", "default_log_levels", "use_syslog", "use_journal", "use_json",
		"syslog_log_facility", "use_stderr", "use_eventlog", "watch_log_file", "fatal_deprecations",
		"fatal_exception_format_errors", "instance_format", "instance_uuid_format", "rate_limit_*", "log_rotat*", "max_logfile_*",
		"allow_pagination", "allow_sorting", "mac_generation_retries", "dvr_base_mac", "force_gateway_on_subnet", "advertise_mtu", "vlan_transparent",
		"dhcp_agent_notification", "agent_down_time", "network_scheduler_driver", "router_scheduler_driver",
		"loadbalancer_pool_scheduler_driver", "network_auto_schedule", "router_auto_schedule", "allow_automatic_*",
		"dhcp_agents_per_network", "dhcp_load_type", "enable_services_on_agents_with_admin_state_down",
		"enable_dvr", "router_distributed", "l3_ha*", "max_l3_agents_per_router", "min_l3_agents_per_router",
		"api_workers", "client_socket_timeout", "wsgi_*", "tcp_keepidle", "retry_until_window", "backlog", "max_header_line",
		"executor_thread_pool_size", "periodic_*", "run_external_periodic_tasks", "graceful_shutdown_timeout",
		"interface_driver", "use_namespaces", "external_network_bridge", "external_ingress_mark", "ovs_*", "auth_url", "auth_region",
		"admin_*", "dhcp_*", "dnsmasq_*", "resync_interval", "enable_isolated_metadata", "enable_metadata_network",
		"force_metadata", "router_id", "gateway_external_network_id", "handle_internal_only_routers", "send_arp_for_ha",
		"polling_interval", "report_interval", "root_helper", "local_ip", "integration_bridge", "tunnel_bridge",
		"bridge_mappings", "sql_max_retries", "reconnect_interval"}},
	{"OVS", []string{"local_ip", "integration_bridge", "tunnel_bridge", "bridge_mappings", "int_peer_patch_port",
		"tun_peer_patch_port", "of_*", "ovsdb_*", "datapath_type", "vhostuser_socket_dir", "use_veth_interconnection",
		"veth_mtu", "bridge_mac_table_size", "igmp_*", "polling_interval", "root_helper", "resource_provider_*"}},
	{"database", []string{"sql_*", "slave_connection", "backend", "reconnect_interval", "mysql_*", "sqlite_*", "idle_timeout",
		"connection_*", "min_pool_size", "max_pool_size", "max_retries", "retry_interval", "max_overflow", "pool_timeout",
		"use_db_reconnect", "db_*", "use_tpool"}},
	{"metadata", metadataAgent},
	{"ml2", []string{"type_drivers", "mechanism_drivers", "extension_drivers", "physical_network_mtus",
		"overlay_ip_version", "external_network_type", "tunnelled_network_rp_name"}},
	{"ml2_type_vxlan", []string{"vxlan_group"}},
	{"ml2_type_geneve", []string{"max_header_size"}},
	{"oslo_policy", []string{"*"}},
	{"oslo_messaging_rabbit", []string{"*"}},
	{"oslo_messaging_notifications", []string{"retry", "notification_format"}},
	{"DEFAULT", []string{"rabbit_*", "kombu_*", "notification_format", "publish_errors"}},
	{"nova", []string{"auth_type", "auth_plugin", "auth_section", "certfile", "keyfile", "split_loggers", "collect_timing",
		"default_domain_*", "domain_*", "trust_id", "system_scope", "live_migration_events"}},
	{"keystone_authtoken", ignoredKeystoneOptions},
	{"filter:authtoken", append([]string{"paste.*"}, ignoredKeystoneOptions...)},
	{"QUOTAS", []string{"quota_*", "track_quota_usage"}},
	{"filter:*", []string{"*"}},
	{"composite:*", []string{"*"}},
	{"pipeline:*", []string{"*"}},
	{"app:*", []string{"*"}},
	{"AGENT", []string{"*"}},
	{"SECURITYGROUP", []string{"*"}},
	{"DEFAULT_SERVICETYPE", []string{"*"}},
	{"service_providers", []string{"*"}},
	{"oslo_concurrency", []string{"*"}},
	{"oslo_middleware", []string{"*"}},
	{"oslo_messaging_amqp", []string{"*"}},
	{"oslo_messaging_kafka", []string{"*"}},
	{"oslo_reports", []string{"*"}},
	{"privsep*", []string{"*"}},
	{"profiler", []string{"*"}},
	{"cors*", []string{"*"}},
	{"healthcheck", []string{"*"}},
	{"placement", []string{"*"}},
	{"ironic", []string{"*"}},
	{"experimental", []string{"*"}},
	{"linux_bridge", []string{"*"}},
	{"vxlan", []string{"*"}},
}

func isForeign(list []foreign, section, name string) bool {
	return slices.ContainsFunc(list, func(f foreign) bool { return f.matches(section, name) })
}

func findOption(section, name string) *option {
	for _, o := range options {
		if o.matches(section, name) {
			return o
		}
	}
	return nil
}

func findFlag(name string) *option {
	for _, o := range options {
		if o.Flag == name {
			return o
		}
	}
	return nil
}
