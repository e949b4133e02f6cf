package main

import (
	"time"

	"planck/northbound/nova"
)

// novaConfig is how Nova is told of events.
type novaConfig struct {
	nova.Options
	timeout, interval seconds
}

var novaOptions = []*option{
	{Sections: inDefault, Names: []string{"notify_nova_on_port_status_changes"}, Default: "True",
		Doc:  "Whether Nova is told that an interface is plugged and wired, or no longer. It needs `[nova]`.",
		Into: func(c *Config) any { return &c.Nova.Triggers.StatusChanges }},
	{Sections: inDefault, Names: []string{"notify_nova_on_port_data_changes"}, Default: "True",
		Doc:  "Whether Nova is told that a port or a floating IP of a server has changed. It needs `[nova]`.",
		Into: func(c *Config) any { return &c.Nova.Triggers.DataChanges }},
	{Sections: inDefault, Names: []string{"send_events_interval"}, Default: "0",
		Doc:  "Least time between two requests to Nova, in which events gather. With 0 those gather that come while a request is under way.",
		Into: func(c *Config) any { return &c.Nova.interval }},
	novaOption(func(n *novaConfig) any { return &n.AuthURL }, "URL of Keystone. With it, or `endpoint_override`, Nova is told of events.", "auth_url"),
	novaOption(func(n *novaConfig) any { return &n.EndpointOverride },
		"URL of Nova's API (`http://controller:8774/v2.1`), in place of the one in Keystone's catalog.", "endpoint_override"),
	novaOption(func(n *novaConfig) any { return &n.Username }, "User of Planck at Nova; it needs the role admin or service.", "username", "user_name"),
	novaOption(func(n *novaConfig) any { return &n.UserID }, "Id of that user, in place of the name.", "user_id"),
	novaOption(func(n *novaConfig) any { return &n.Password }, "Password of that user.", "password"),
	novaOption(func(n *novaConfig) any { return &n.ProjectName }, "Project of that user.", "project_name", "tenant_name"),
	novaOption(func(n *novaConfig) any { return &n.ProjectID }, "Id of that project, in place of the name.", "project_id", "tenant_id"),
	novaOption(func(n *novaConfig) any { return &n.UserDomainName }, "Domain of the user.", "user_domain_name"),
	novaOption(func(n *novaConfig) any { return &n.UserDomainID }, "Id of the user's domain; `default` when there is no name either.", "user_domain_id"),
	novaOption(func(n *novaConfig) any { return &n.ProjectDomainName }, "Domain of the project.", "project_domain_name"),
	novaOption(func(n *novaConfig) any { return &n.ProjectDomainID }, "Id of the project's domain; `default` when there is no name either.", "project_domain_id"),
	novaOption(func(n *novaConfig) any { return &n.RegionName }, "Region of Nova in the catalog; any when it is not given.", "region_name", "os_region_name"),
	{Sections: []string{"nova"}, Names: []string{"endpoint_type", "interface"}, Default: "public",
		OneOf: []string{"public", "internal", "admin", "publicURL", "internalURL", "adminURL"},
		Doc:   "Which of Nova's endpoints in the catalog is used.", Into: func(c *Config) any { return &c.Nova.EndpointType }},
	{Sections: []string{"nova"}, Names: []string{"cafile"}, Computed: "those of the system",
		Doc: "File of the certificates that sign Nova's and Keystone's.", Into: func(c *Config) any { return &c.Nova.CAFile }},
	{Sections: []string{"nova"}, Names: []string{"insecure"}, Default: "False",
		Doc: "Whether any certificate will do.", Into: func(c *Config) any { return &c.Nova.Insecure }},
	{Sections: []string{"nova"}, Names: []string{"timeout"}, Default: "30",
		Doc: "How long Nova may take to answer.", Into: func(c *Config) any { return &c.Nova.timeout }},

	oldNovaOption(func(n *novaConfig) any { return &n.EndpointOverride }, "nova_url", "endpoint_override"),
	oldNovaOption(func(n *novaConfig) any { return &n.RegionName }, "nova_region_name", "region_name"),
	oldNovaOption(func(n *novaConfig) any { return &n.Username }, "nova_admin_username", "username"),
	oldNovaOption(func(n *novaConfig) any { return &n.Password }, "nova_admin_password", "password"),
	oldNovaOption(func(n *novaConfig) any { return &n.ProjectID }, "nova_admin_tenant_id", "project_id"),
	oldNovaOption(func(n *novaConfig) any { return &n.ProjectName }, "nova_admin_tenant_name", "project_name"),
	oldNovaOption(func(n *novaConfig) any { return &n.AuthURL }, "nova_admin_auth_url", "auth_url"),
	oldNovaOption(func(n *novaConfig) any { return &n.CAFile }, "nova_ca_certificates_file", "cafile"),
	oldNovaOption(func(n *novaConfig) any { return &n.Insecure }, "nova_api_insecure", "insecure"),
}

// novaOption is an option of the section nova without a default.
func novaOption(into func(*novaConfig) any, doc string, names ...string) *option {
	return &option{Sections: []string{"nova"}, Names: names, Doc: doc, Into: func(c *Config) any { return into(&c.Nova) }}
}

// oldNovaOption is what an option of the section nova was called before that was there.
func oldNovaOption(into func(*novaConfig) any, name, now string) *option {
	return &option{Sections: inDefault, Names: []string{name}, Doc: "The old name of `[nova] " + now + "`.",
		Into: func(c *Config) any { return into(&c.Nova) }}
}

// novaOptions is what the sender of events is told.
func (c *Config) novaOptions() *nova.Options {
	o := c.Nova.Options
	o.Timeout, o.Interval = time.Duration(c.Nova.timeout), time.Duration(c.Nova.interval)
	return &o
}
