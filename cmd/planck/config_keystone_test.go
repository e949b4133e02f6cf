package main

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"planck/northbound"
)

func TestKeystoneOptionsOfEachAge(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want northbound.KeystoneOptions
	}{
		"today": {`
[DEFAULT]
auth_strategy = keystone
[keystone_authtoken]
www_authenticate_uri = http://public:5000
auth_url = http://internal:5000
memcached_servers = controller:11211
auth_type = password
project_domain_name = Default
user_domain_name = Default
project_name = service
username = neutron
password = secret
token_cache_time = 60
service_token_roles = service, admin
service_token_roles_required = True
`, northbound.KeystoneOptions{
			AuthURL: "http://internal:5000", WWWAuthenticateURI: "http://public:5000", Username: "neutron", Password: "secret",
			ProjectName: "service", UserDomainName: "Default", ProjectDomainName: "Default", CacheTime: time.Minute,
			ServiceTokenRoles: []string{"service", "admin"}, ServiceTokenRolesRequired: true,
		}},
		"the guide's time": {`
[DEFAULT]
auth_strategy = keystone
[filter:authtoken]
paste.filter_factory = keystone.middleware.auth_token:filter_factory
auth_host = 192.168.1.2
auth_port = 35357
auth_protocol = http
admin_tenant_name = service
admin_user = quantum
admin_password = password
signing_dir = /var/lib/quantum/keystone-signing
`, northbound.KeystoneOptions{
			AuthURL: "http://192.168.1.2:35357", Username: "quantum", Password: "password", ProjectName: "service",
			CacheTime: 5 * time.Minute, ServiceTokenRoles: []string{"service"},
		}},
		"a default domain": {`
auth_strategy = keystone
[keystone_authtoken]
identity_uri = https://k/v3
auth_uri = https://p
user_id = 4f
password = x
project_id = 5a
default_domain_id = d
user_domain_name = u
token_cache_time = -1
`, northbound.KeystoneOptions{
			AuthURL: "https://k/v3", WWWAuthenticateURI: "https://p", UserID: "4f", Password: "x", ProjectID: "5a",
			UserDomainName: "u", ProjectDomainID: "d", CacheTime: -time.Second, ServiceTokenRoles: []string{"service"},
		}},
	} {
		c.want.Timeout, c.want.CacheSize = 10*time.Second, 100_000
		cfg, _, err := LoadConfig([]string{configFile(t, "planck.conf", c.text)}, nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(c.want, *cfg.keystoneOptions()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
