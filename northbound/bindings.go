package northbound

import (
	"net/http"
	"slices"
	"strings"

	"planck/network"
)

var bindingsExtension = extension{"binding-extended", "Port Bindings Extended",
	"Expose port bindings of a virtual port to external application", "2017-07-17T10:00:00-00:00"}

// bindingsResource is /v2.0/ports/<id>/bindings (extension binding-extended):
// the hosts that a port is bound to, of which one is active. Nova binds the
// destination of a live migration there.
type bindingsResource struct{ ports *resource[network.Port] }

func portBindings() []endpoint {
	b := bindingsResource{ports()}
	const base = "/v2.0/ports/{id}/bindings"
	return []endpoint{
		{path: base, resource: "bindings", methods: methods{http.MethodGet: b.list, http.MethodPost: b.create}},
		{path: base + "/{sub}", resource: "bindings", methods: methods{
			http.MethodGet: b.show, http.MethodPut: b.update, http.MethodDelete: b.delete}},
		{path: base + "/{sub}/activate", resource: "bindings", methods: methods{http.MethodPut: b.activate}},
	}
}

// shownBinding is a binding as the API has it.
type shownBinding struct {
	*network.Binding
	status string
}

// bindingColumns are the attributes of a binding.
var bindingColumns = []struct {
	name  string
	text  func(shownBinding) string // what filters compare; nil can't be filtered by
	write func([]byte, shownBinding) []byte
}{
	{"host", func(b shownBinding) string { return b.Host }, func(to []byte, b shownBinding) []byte { return appendString(to, b.Host) }},
	{"vif_type", func(b shownBinding) string { return b.VIFType }, func(to []byte, b shownBinding) []byte { return appendString(to, b.VIFType) }},
	{"vnic_type", func(b shownBinding) string { return b.VNICType }, func(to []byte, b shownBinding) []byte { return appendString(to, b.VNICType) }},
	{"status", func(b shownBinding) string { return b.status }, func(to []byte, b shownBinding) []byte { return appendString(to, b.status) }},
	{"profile", nil, func(to []byte, b shownBinding) []byte { return appendDict(to, b.Profile) }},
	{"vif_details", nil, func(to []byte, b shownBinding) []byte { return appendDict(to, b.VIFDetails) }},
}

const (
	bindingActive   = "ACTIVE"
	bindingInactive = "INACTIVE"
)

// bindingsOf lists the bindings of a port, the active one first.
func bindingsOf(p *network.Port) []shownBinding {
	list := []shownBinding{{&p.Binding, bindingActive}}
	for i := range p.Inactive {
		list = append(list, shownBinding{&p.Inactive[i], bindingInactive})
	}
	return list
}

func bindingOn(p *network.Port, host string) (shownBinding, error) {
	for _, b := range bindingsOf(p) {
		if b.Host == host && host != "" {
			return b, nil
		}
	}
	return shownBinding{}, network.Errorf(network.NotFound, "PortBindingNotFound",
		"Binding for port %s for host %s could not be found.", p.ID, clip(host))
}

func appendBinding(to []byte, b shownBinding, fields []string) []byte {
	to = append(to, '{')
	first := true
	for _, col := range bindingColumns {
		if len(fields) > 0 && !slices.Contains(fields, col.name) {
			continue
		}
		if !first {
			to = append(to, ", "...)
		}
		first = false
		to = appendString(to, col.name)
		to = col.write(append(to, ": "...), b)
	}
	return append(to, '}')
}

// port finds the port of the path and asks the rule.
func (bs bindingsResource) port(r *reader, id, rule string) (*network.Port, error) {
	p, err := bs.ports.find(r, id)
	if err != nil {
		return nil, err
	}
	if !r.policy.allows(rule, r.who, bs.ports.target(r.view, p)) {
		return nil, notAuthorized("rule:" + rule)
	}
	if !strings.HasPrefix(p.DeviceOwner, "compute:") && !strings.HasPrefix(p.DeviceOwner, "manila:") {
		return nil, badResource("port", "Invalid port %s. Operation only valid on compute and shared filesystem ports", p.ID)
	}
	return p, nil
}

// read is port for a GET, which does not tell what the caller may not see.
func (bs bindingsResource) read(c *call) (*network.Port, query, error) {
	q, err := c.query()
	if err != nil {
		return nil, q, err
	}
	r := c.reader(c.server.store.View())
	p, err := bs.port(r, c.id, "get_port_binding")
	if e := asAPIError(err); err != nil && e.status == http.StatusForbidden {
		err = pathNotFound()
	}
	return p, q, err
}

func (bs bindingsResource) list(c *call) (int, []byte, error) {
	p, q, err := bs.read(c)
	if err != nil {
		return 0, nil, err
	}
	keep, err := bindingFilter(q)
	if err != nil {
		return 0, nil, err
	}
	var found []shownBinding
	for _, b := range bindingsOf(p) {
		if keep(b) {
			found = append(found, b)
		}
	}
	to := appendList([]byte(`{"bindings": `), found, func(to []byte, b shownBinding) []byte { return appendBinding(to, b, q.fields()) })
	return http.StatusOK, append(to, '}'), nil
}

func bindingFilter(q query) (func(shownBinding) bool, error) {
	var unknown []string
	for _, name := range sortedKeys(q.values) {
		if !slices.Contains(paging, name) && bindingText(name) == nil {
			unknown = append(unknown, name)
		}
	}
	if len(unknown) > 0 {
		return nil, badRequest("%s is invalid attribute for filtering", reprStrings(unknown))
	}
	return func(b shownBinding) bool {
		for name, values := range q.values {
			if text := bindingText(name); text != nil && !slices.Contains(values, text(b)) {
				return false
			}
		}
		return true
	}, nil
}

func bindingText(name string) func(shownBinding) string {
	for _, col := range bindingColumns {
		if col.name == name {
			return col.text
		}
	}
	return nil
}

func (bs bindingsResource) show(c *call) (int, []byte, error) {
	p, q, err := bs.read(c)
	if err != nil {
		return 0, nil, err
	}
	b, err := bindingOn(p, c.sub)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusOK, wrapBinding(b, q.fields()), nil
}

func wrapBinding(b shownBinding, fields []string) []byte {
	return append(appendBinding([]byte(`{"binding": `), b, fields), '}')
}

// bindingInput is the body of a POST or PUT; nil was not given.
type bindingInput struct {
	host     *string
	vnicType *string
	profile  map[string]any
}

// into applies what was given.
func (in *bindingInput) into(b *network.Binding) {
	if in.vnicType != nil {
		b.VNICType = *in.vnicType
	}
	if in.profile != nil {
		b.Profile = in.profile
	}
}

func parseBinding(c *call) (*bindingInput, error) {
	body, err := c.body()
	if err != nil {
		return nil, err
	}
	item, ok := body["binding"].(map[string]any)
	if !ok {
		return nil, badRequest("Unable to find 'binding' in request body")
	}
	if unknown := unknownKeys(item, "host", "vnic_type", "profile", "project_id", "tenant_id"); unknown != "" {
		return nil, badRequest("Unrecognized attribute(s) '%s'", unknown)
	}
	in := &bindingInput{}
	for _, name := range sortedKeys(item) {
		if err := in.set(name, item[name]); err != nil {
			if why, ok := err.(reason); ok {
				err = badRequest("Invalid input for %s. Reason: %s.", name, why)
			}
			return nil, err
		}
	}
	return in, nil
}

func (in *bindingInput) set(name string, raw any) error {
	switch name {
	case "host":
		host, err := parseText(raw, nameSize)
		if err == nil && host == "" {
			err = notValid(raw, "is not a host")
		}
		in.host = &host
		return err
	case "vnic_type":
		vnic, err := oneOf(vnicTypes...).parse(raw)
		in.vnicType = &vnic
		return err
	case "profile":
		var err error
		in.profile, err = dict(4095).parse(raw)
		return err
	}
	_, err := parseText(raw, projectSize) // the binding belongs to the port's project
	return err
}

func (bs bindingsResource) create(c *call) (int, []byte, error) {
	in, err := parseBinding(c)
	if err != nil {
		return 0, nil, err
	}
	if in.host == nil {
		return 0, nil, badRequest("Failed to parse request. Required attribute '%s' not specified", "host")
	}
	return bs.change(c, "create_port_binding", *in.host, http.StatusCreated, wrapBinding, func(tx *network.Tx, p *network.Port) error {
		b := network.Binding{Host: *in.host}
		in.into(&b)
		return tx.CreateBinding(p.ID, b)
	})
}

func (bs bindingsResource) update(c *call) (int, []byte, error) {
	in, err := parseBinding(c)
	if err != nil {
		return 0, nil, err
	}
	return bs.change(c, "update_port_binding", c.sub, http.StatusOK, wrapBinding, func(tx *network.Tx, p *network.Port) error {
		was, err := bindingOn(p, c.sub)
		if err != nil {
			return err
		}
		if in.host != nil && *in.host != c.sub {
			return badResource("port", "the host of a binding can't be changed")
		}
		if was.status == bindingActive {
			p = p.Clone()
			in.into(&p.Binding)
			return tx.UpdatePort(p)
		}
		b := *was.Binding
		in.into(&b)
		return tx.UpdateBinding(p.ID, b)
	})
}

func (bs bindingsResource) activate(c *call) (int, []byte, error) {
	return bs.change(c, "activate", c.sub, http.StatusOK, appendBare, func(tx *network.Tx, p *network.Port) error {
		return tx.ActivateBinding(p.ID, c.sub)
	})
}

// appendBare is how Neutron answers an activation: without the name of the resource.
func appendBare(b shownBinding, fields []string) []byte { return appendBinding(nil, b, fields) }

func (bs bindingsResource) delete(c *call) (int, []byte, error) {
	_, err := bs.write(c, "delete_port_binding", func(tx *network.Tx, p *network.Port) error {
		return tx.DeleteBinding(p.ID, c.sub)
	})
	return http.StatusNoContent, nil, err
}

// change changes the bindings of the port and answers with the one to a host.
func (bs bindingsResource) change(c *call, operation, host string, status int,
	encode func(shownBinding, []string) []byte, fn func(*network.Tx, *network.Port) error) (int, []byte, error) {
	view, err := bs.write(c, operation, fn)
	if err != nil {
		return 0, nil, err
	}
	p := view.Port(c.id)
	if p == nil {
		return 0, nil, portNotFound(c.id)
	}
	b, err := bindingOn(p, host)
	if err != nil {
		return 0, nil, err
	}
	return status, encode(b, nil), nil
}

func (bs bindingsResource) write(c *call, operation string, fn func(*network.Tx, *network.Port) error) (*network.View, error) {
	return c.update(operation, func(tx *network.Tx) error {
		p, err := bs.port(c.reader(tx.View), c.id, operation)
		if err != nil {
			return err
		}
		return fn(tx, p)
	})
}
