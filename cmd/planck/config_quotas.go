package main

import (
	"fmt"
	"slices"
	"strings"

	"planck/northbound"
)

// inQuotas are the sections about quotas; fragments of older files come
// without a section header.
var inQuotas = []string{"QUOTAS", "DEFAULT"}

// coreQuotas are the resources that quota_items can leave out.
var coreQuotas = []string{"network", "subnet", "port"}

// quotaConfig is [QUOTAS] as it is written.
type quotaConfig struct {
	items  []string
	deflt  int
	driver quotaDriver
	limits map[string]*int
}

func (q *quotaConfig) limit(resource string) *int {
	if q.limits == nil {
		q.limits = map[string]*int{}
	}
	if q.limits[resource] == nil {
		q.limits[resource] = new(int)
	}
	return q.limits[resource]
}

// quotaDriver is the class of a driver; only the end of its name counts.
type quotaDriver string

func (*quotaDriver) typeName() string { return "class" }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *quotaDriver) UnmarshalText(text []byte) error {
	name := string(text)
	class := name[strings.LastIndex(name, ".")+1:]
	if !slices.Contains([]string{"ConfDriver", "DbQuotaDriver", "DbQuotaNoLockDriver", "DbQuotaDriverNull"}, class) {
		return fmt.Errorf("%q is not a ConfDriver, DbQuotaDriver, DbQuotaNoLockDriver or DbQuotaDriverNull", name)
	}
	*d = quotaDriver(class)
	return nil
}

var quotaOptions = []*option{
	{Sections: inQuotas, Names: []string{"quota_driver"}, Default: "neutron.db.quota.driver_nolock.DbQuotaNoLockDriver",
		Doc: "`…ConfDriver`: all projects have the limits of this file. `…DbQuotaDriver`, `…DbQuotaNoLockDriver`: an administrator may give a project" +
			" others. `…DbQuotaDriverNull`: nothing is limited. The module before the class does not matter.",
		Into: func(c *Config) any { return &c.Quotas.driver }},
	{Sections: inQuotas, Names: []string{"quota_items"}, Default: "network,subnet,port",
		Doc:  "Resources with a quota; leaving one of these out takes its limit away. Routers, floating IPs and security groups always have one.",
		Into: func(c *Config) any { return &c.Quotas.items }},
	{Sections: inQuotas, Names: []string{"default_quota"}, Default: "-1",
		Doc:  "Limit of resources that have no option here; a negative number is none.",
		Into: func(c *Config) any { return &c.Quotas.deflt }},
	quotaOption("network", "networks", 100),
	quotaOption("subnet", "subnets", 100),
	quotaOption("port", "ports", 500),
	quotaOption("subnetpool", "subnet pools", -1),
	quotaOption("router", "routers", 10),
	quotaOption("floatingip", "floating IPs", 50),
	quotaOption("security_group", "security groups", 10),
	quotaOption("security_group_rule", "rules of security groups", 100),
}

func quotaOption(resource, plural string, limit int) *option {
	return &option{Sections: inQuotas, Names: []string{"quota_" + resource}, Default: fmt.Sprint(limit),
		Doc: "How many " + plural + " a project may have; a negative number is any.", Into: func(c *Config) any { return c.Quotas.limit(resource) }}
}

// quotas is what the API is told of quotas.
func (c *Config) quotas() *northbound.Quotas {
	q := &northbound.Quotas{Default: c.Quotas.deflt, Limits: map[string]int{}, Fixed: c.Quotas.driver == "ConfDriver"}
	for resource, limit := range c.Quotas.limits {
		q.Limits[resource] = *limit
	}
	for _, resource := range coreQuotas {
		if !slices.Contains(c.Quotas.items, resource) {
			q.Off = append(q.Off, resource)
		}
	}
	if c.Quotas.driver == "DbQuotaDriverNull" {
		q.Default, q.Limits, q.Fixed = -1, nil, true
	}
	return q
}
