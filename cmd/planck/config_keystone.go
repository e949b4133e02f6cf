package main

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"planck/northbound"
)

// inKeystone are the sections about Keystone: the usual one, and that of
// api-paste.ini where older files have it.
var inKeystone = []string{"keystone_authtoken", "filter:authtoken"}

// keystoneConfig is [keystone_authtoken] as it is written.
type keystoneConfig struct {
	northbound.KeystoneOptions
	// Older files name host, port and protocol in place of the URL.
	authHost, authProtocol string
	authPort               int

	defaultDomainID, defaultDomainName string
	timeout                            int // seconds
	cacheTime                          int // seconds
	cacheSize                          int
}

var keystoneOptions = []*option{
	keystoneOption(func(k *keystoneConfig) any { return &k.AuthURL },
		"URL of Keystone, with or without a version. In its place `auth_host` will do.", "auth_url", "identity_uri"),
	{Sections: inKeystone, Names: []string{"auth_host"}, Doc: "Host of Keystone, where there is no `auth_url`.",
		Into: func(c *Config) any { return &c.Keystone.authHost }},
	{Sections: inKeystone, Names: []string{"auth_port"}, Default: "35357", Min: limit(1), Max: limit(65535),
		Doc: "Port of Keystone at `auth_host`.", Into: func(c *Config) any { return &c.Keystone.authPort }},
	{Sections: inKeystone, Names: []string{"auth_protocol"}, Default: "https", OneOf: []string{"http", "https"},
		Doc: "Protocol of Keystone at `auth_host`.", Into: func(c *Config) any { return &c.Keystone.authProtocol }},
	{Sections: inKeystone, Names: []string{"www_authenticate_uri", "auth_uri"}, Computed: "`auth_url`",
		Doc:  "URL of Keystone that a client without a valid token is told.",
		Into: func(c *Config) any { return &c.Keystone.WWWAuthenticateURI }},
	keystoneOption(func(k *keystoneConfig) any { return &k.Username },
		"User as whom Planck asks Keystone about tokens.", "username", "user_name", "admin_user"),
	keystoneOption(func(k *keystoneConfig) any { return &k.UserID }, "Id of that user, in place of the name.", "user_id"),
	keystoneOption(func(k *keystoneConfig) any { return &k.Password }, "Password of that user.", "password", "admin_password"),
	keystoneOption(func(k *keystoneConfig) any { return &k.ProjectName },
		"Project of that user.", "project_name", "tenant_name", "admin_tenant_name"),
	keystoneOption(func(k *keystoneConfig) any { return &k.ProjectID }, "Id of that project, in place of the name.", "project_id", "tenant_id"),
	{Sections: inKeystone, Names: []string{"user_domain_name"}, Computed: "the domain with the id `default`", Doc: "Domain of the user.",
		Into: func(c *Config) any { return &c.Keystone.UserDomainName }},
	keystoneOption(func(k *keystoneConfig) any { return &k.UserDomainID }, "Id of the user's domain, in place of the name.", "user_domain_id"),
	{Sections: inKeystone, Names: []string{"project_domain_name"}, Computed: "the domain with the id `default`", Doc: "Domain of the project.",
		Into: func(c *Config) any { return &c.Keystone.ProjectDomainName }},
	keystoneOption(func(k *keystoneConfig) any { return &k.ProjectDomainID },
		"Id of the project's domain, in place of the name.", "project_domain_id"),
	keystoneOption(func(k *keystoneConfig) any { return &k.defaultDomainName },
		"Domain of the user and the project, where theirs are not given.", "default_domain_name"),
	keystoneOption(func(k *keystoneConfig) any { return &k.defaultDomainID }, "Id of that domain, in place of the name.", "default_domain_id"),
	{Sections: inKeystone, Names: []string{"auth_type", "auth_plugin"}, Default: "password", OneOf: []string{"password", "v3password"},
		Doc: "How Planck logs in.", Into: func(c *Config) any { return new(string) }},
	{Sections: inKeystone, Names: []string{"cafile"}, Computed: "those of the system",
		Doc: "File of the certificates that sign Keystone's.", Into: func(c *Config) any { return &c.Keystone.CAFile }},
	keystoneOption(func(k *keystoneConfig) any { return &k.CertFile }, "Certificate that Keystone wants of its clients.", "certfile"),
	keystoneOption(func(k *keystoneConfig) any { return &k.KeyFile }, "File of its private key.", "keyfile"),
	{Sections: inKeystone, Names: []string{"insecure"}, Default: "False",
		Doc: "Whether any certificate of Keystone will do.", Into: func(c *Config) any { return &c.Keystone.Insecure }},
	{Sections: inKeystone, Names: []string{"http_connect_timeout"}, Default: "10", Min: limit(1),
		Doc: "Seconds that Keystone may take to answer.", Into: func(c *Config) any { return &c.Keystone.timeout }},
	{Sections: inKeystone, Names: []string{"token_cache_time"}, Default: "300", Min: limit(-1),
		Doc: "Seconds that an answer about a token is believed, also while Keystone is away; a revoked token is refused after that" +
			" at the latest. With 0 or -1 Keystone is asked at each request.",
		Into: func(c *Config) any { return &c.Keystone.cacheTime }},
	{Sections: inKeystone, Names: []string{"token_cache_size"}, Default: "100000", Min: limit(1),
		Doc: "How many tokens are remembered at the most.", Into: func(c *Config) any { return &c.Keystone.cacheSize }},
	{Sections: inKeystone, Names: []string{"service_token_roles"}, Default: "service",
		Doc:  "Roles by which the token of a service (X-Service-Token) vouches for an expired token of a user.",
		Into: func(c *Config) any { return &c.Keystone.ServiceTokenRoles }},
	{Sections: inKeystone, Names: []string{"service_token_roles_required"}, Default: "False",
		Doc:  "Whether the token of a service must have such a role.",
		Into: func(c *Config) any { return &c.Keystone.ServiceTokenRolesRequired }},
}

// keystoneOption is an option without a default.
func keystoneOption(into func(*keystoneConfig) any, doc string, names ...string) *option {
	return &option{Sections: inKeystone, Names: names, Doc: doc, Into: func(c *Config) any { return into(&c.Keystone) }}
}

// ignoredKeystoneOptions are those of keystonemiddleware that have no meaning
// here: tokens are remembered in memory, and Keystone is always asked by v3.
var ignoredKeystoneOptions = []string{
	"memcache*", "auth_version", "auth_section", "auth_admin_prefix", "admin_token", "cache", "signing_dir", "hash_algorithms", "delay_auth_decision",
	"check_revocations_for_cached", "revocation_cache_time", "include_service_catalog", "enforce_token_bind",
	"http_request_max_retries", "interface", "region_name", "service_type", "log_name", "trust_id", "domain_id", "domain_name",
	"system_scope", "split_loggers", "collect_timing", "timeout",
}

// completeKeystone fills in what older files say in other words, and sees to it
// that Keystone can be asked if it shall be.
func (l *loader) completeKeystone() {
	c := l.config
	k := &c.Keystone
	if k.AuthURL == "" && k.authHost != "" {
		k.AuthURL = k.authProtocol + "://" + net.JoinHostPort(k.authHost, strconv.Itoa(k.authPort))
	}
	for _, d := range []struct{ id, name *string }{{&k.UserDomainID, &k.UserDomainName}, {&k.ProjectDomainID, &k.ProjectDomainName}} {
		if *d.id == "" && *d.name == "" {
			*d.id, *d.name = k.defaultDomainID, k.defaultDomainName
		}
	}
	k.Timeout, k.CacheTime, k.CacheSize = time.Duration(k.timeout)*time.Second, time.Duration(k.cacheTime)*time.Second, k.cacheSize
	if c.AuthStrategy != "keystone" {
		return
	}
	var missing []string
	for _, need := range []struct{ name, value string }{
		{"auth_url", k.AuthURL}, {"username", cmp.Or(k.UserID, k.Username)}, {"password", k.Password},
		{"project_name", cmp.Or(k.ProjectID, k.ProjectName)},
	} {
		if need.value == "" {
			missing = append(missing, need.name)
		}
	}
	if len(missing) > 0 {
		l.fail(fmt.Errorf("keystone needs [keystone_authtoken] %s", strings.Join(missing, ", ")), findFlag("auth-strategy"))
	}
	if (k.CertFile == "") != (k.KeyFile == "") {
		l.fail(errors.New("certfile and keyfile go together"), findOption("keystone_authtoken", "certfile"), findOption("keystone_authtoken", "keyfile"))
	}
}

// keystoneOptions is what the API is told of Keystone.
func (c *Config) keystoneOptions() *northbound.KeystoneOptions { return &c.Keystone.KeystoneOptions }
