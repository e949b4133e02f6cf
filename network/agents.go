package network

// Agent is what an administrator has noted about a host, whose agent it is to
// the API. It changes nothing of what the host does, as with Neutron's.
type Agent struct {
	Host         string `json:"host"`
	AdminStateUp bool   `json:"admin_state_up"`
	Description  string `json:"description,omitempty"`
}

// ObjectKind implements Object.
func (*Agent) ObjectKind() Kind { return KindAgent }

// ObjectID implements Object.
func (a *Agent) ObjectID() string { return a.Host }

// Agent is what was noted about a host; what was not is as nobody has said anything.
func (v *View) Agent(host string) Agent {
	if a := byID[Agent](v, KindAgent, host); a != nil {
		return *a
	}
	return Agent{Host: host, AdminStateUp: true}
}

// SetAgent notes something about a host.
func (tx *Tx) SetAgent(a Agent) error {
	switch {
	case tx.Host(a.Host) == nil:
		return hostNotFound(a.Host)
	case tx.Agent(a.Host) == a:
		return nil
	}
	return tx.put(&a)
}
