package northbound

import (
	"strings"
	"testing"
)

type testTarget map[string]string

func (t testTarget) attribute(name string) (string, bool) { v, ok := t[name]; return v, ok }

func TestRulesAreEvaluated(t *testing.T) {
	member := &Identity{ProjectID: "p", UserID: "u", Roles: []string{"Member"}}
	object := testTarget{"project_id": "p", "network:project_id": "q", "shared": "True", "device_owner": "network:dhcp"}
	for rule, want := range map[string]bool{
		"":                                   true,
		"@":                                  true,
		"!":                                  false,
		"role:member":                        true,
		"role:admin":                         false,
		"not role:admin":                     true,
		"not not role:admin":                 false,
		"role:admin or role:member":          true,
		"role:admin AND role:member":         false,
		"role:member or ! and !":             true,
		"(role:member or !) and !":           false,
		"((role:member))":                    true,
		"rule:member":                        true,
		"rule:missing":                       false,
		"is_admin:True":                      false,
		"is_admin:False":                     true,
		"project_id:%(project_id)s":          true,
		"tenant_id:%(tenant_id)s":            true,
		"(tenant_id:%(tenant_id)s)":          true,
		"tenant_id:%(network:tenant_id)s":    false,
		"user_id:%(user_id)s":                false,
		"field:networks:shared=True":         true,
		"field:networks:shared=False":        false,
		"field:networks:missing=x":           false,
		"field:port:device_owner=~^network:": true,
		"field:port:device_owner=~^compute:": false,
	} {
		p, err := newPolicy(map[string]string{"it": rule, "member": "role:member", "context_is_admin": "role:admin"})
		if err != nil {
			t.Errorf("%q: %v", rule, err)
			continue
		}
		if got := p.allows("it", member, object); got != want {
			t.Errorf("%q is %v", rule, got)
		}
	}
}

func TestNobodyOwnsWhatHasNoProject(t *testing.T) {
	p, err := newPolicy(map[string]string{"it": "project_id:%(project_id)s"})
	if err != nil {
		t.Fatal(err)
	}
	if p.allows("it", &Identity{}, testTarget{"project_id": ""}) {
		t.Error("a caller without a project owns an object without a project")
	}
}

func TestBadRulesAreRefused(t *testing.T) {
	for rule, says := range map[string]string{
		"role":                     "kind:match",
		"(role:x":                  "not closed",
		"role:x)":                  "unexpected",
		"role:x role:y":            "unexpected",
		"role:x or":                "missing",
		"magic:x":                  "not known",
		"project_id:%(x":           "%(name)s",
		"field:x":                  "field:resource",
		"field:a:b=~(":             "field:",
		"is_admin:maybe":           "neither",
		"rule:it":                  "refers to itself",
		strings.Repeat("not ", 99): "too deeply",
	} {
		if _, err := newPolicy(map[string]string{"it": rule}); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: got %v, want %q", rule, err, says)
		}
	}
}

func TestEveryProtectedAttributeHasItsRules(t *testing.T) {
	known := map[string]bool{}
	for _, action := range []string{"create", "get", "update", "delete"} {
		known[action+"_port_binding"], known[action+"_quota"], known[action+"_auto_allocated_topology"] = true, true, true
	}
	for _, c := range resources() {
		name, _ := c.title()
		for _, action := range []string{"create", "get", "update", "delete"} {
			known[action+"_"+name] = true
			known[action+"_"+name+":tags"] = true
		}
		for _, r := range c.rows() {
			for action, allowed := range map[string]ability{"create": onPost, "update": onPut} {
				rule := action + "_" + name + ":" + r.name
				known[rule], known["get_"+name+":"+r.name] = true, true
				if _, ok := defaultPolicy[rule]; ok != (r.flags&allowed != 0 && r.flags&byPolicy != 0) && r.name != "tags" {
					t.Errorf("%s: the rule exists: %v, the table wants it: %v", rule, ok, !ok)
				}
			}
		}
	}
	for rule := range defaultPolicy {
		action, _, isAction := strings.Cut(rule, "_")
		if isAction && strings.Contains("create get update delete", action) && !known[rule] && strings.Count(rule, ":") < 2 {
			t.Errorf("rule %s is about nothing", rule)
		}
	}
}
