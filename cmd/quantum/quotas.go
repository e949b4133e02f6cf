package main

import (
	"fmt"
	"net/http"
	"net/url"
)

// quotaTenant says whose quota a command is about; nobody's is the caller's own.
var quotaTenant = &option{name: "tenant-id", metavar: "TENANT_ID", help: "the tenant whose quota it is, the own one unless given"}

var quotaColumns = []string{"floatingip", "network", "port", "router", "security_group", "security_group_rule", "subnet", "tenant_id"}

// quotaLimits are the resources that quota-update has an option for.
var quotaLimits = []*option{
	quotaLimit("network"), quotaLimit("subnet"), quotaLimit("port"), quotaLimit("router"), quotaLimit("floatingip"),
	quotaLimit("security_group"), quotaLimit("security_group_rule"),
}

func quotaLimit(resource string) *option {
	return &option{name: dashed(resource), metavar: "LIMIT", help: "the limit of " + resource + "s, -1 for none", attr: resource, parse: number}
}

// quotaCommands work on quotas, which have no id but their tenant's.
func quotaCommands() []*command {
	list := &resource{kind: "quota", columns: quotaColumns}
	return []*command{
		{name: "quota-list", help: "List defined quotas of all tenants.", options: listOptions, run: list.runList},
		{name: "quota-show", help: "Show quotas of a given tenant", options: append([]*option{quotaTenant}, showOptions...), run: showQuota},
		{name: "quota-update", help: "Define tenant's quotas not to use defaults.", extras: true,
			options: append(append([]*option{quotaTenant}, quotaLimits...), showOptions...), run: updateQuota},
		{name: "quota-delete", help: "Delete defined quotas of a given tenant.", options: []*option{quotaTenant}, run: deleteQuota},
	}
}

// tenant is whose quota the command is about.
func (c *call) tenant() (string, error) {
	if id := c.args.text(quotaTenant.name); id != "" {
		return id, nil
	}
	reply, err := c.api.call(c.ctx, http.MethodGet, "/quotas/tenant", nil, nil)
	if err != nil {
		return "", err
	}
	tenant, _ := reply.get("tenant").(object)
	return tenant.text("tenant_id"), nil
}

func quotaPath(tenant string) string { return "/quotas/" + url.PathEscape(tenant) }

func showQuota(c *call) error {
	tenant, err := c.tenant()
	if err != nil {
		return err
	}
	return showObject(c, "quota", tenant, nil)
}

func updateQuota(c *call) error {
	body, err := (&resource{}).body(c)
	if err != nil {
		return err
	}
	if len(body) == 0 {
		return refusal("Must specify new values to update quota")
	}
	tenant, err := c.tenant()
	if err != nil {
		return err
	}
	reply, err := c.api.call(c.ctx, http.MethodPut, quotaPath(tenant), nil, map[string]any{"quota": body})
	if err != nil {
		return err
	}
	shown, _ := reply.get("quota").(object)
	return writeShow(c.out, c.args, shown)
}

func deleteQuota(c *call) error {
	tenant, err := c.tenant()
	if err != nil {
		return err
	}
	if _, err := c.api.call(c.ctx, http.MethodDelete, quotaPath(tenant), nil, nil); err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.out, "Deleted quota: %s\n", tenant)
	return err
}
