package main

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/url"

	"planck/controller"
	"planck/network"
	"planck/northbound"
	"planck/ovsdb"
)

// hostView is a host as `planck hosts` shows it: what OVSDB says and what
// OpenFlow says.
type hostView struct {
	controller.HostRecord
	OVSDB ovsdb.HostState `json:"ovsdb"`
	// Owner is the member of the cluster that programs it, "" for the only controller.
	Owner string `json:"owner,omitempty"`
	// AtOwner is how that member is connected to it, nil where it did not say.
	AtOwner *ownerSide `json:"at_owner,omitempty"`
}

// operatorAPI serves /planck/v1/: what the controller and the host connections know.
func operatorAPI(p *parts) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /planck/v1/hosts", func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, allHosts(p, r))
	})
	mux.HandleFunc("GET /planck/v1/flows", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		dump, err := p.flows(r, flowQuery(q))
		if err != nil {
			northbound.WriteError(w, err)
			return
		}
		writeFlows(w, q.Get("output"), !q.Has("host"), dump)
	})
	mux.HandleFunc("POST /planck/v1/flows", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if q.Get("host") == "" {
			northbound.WriteError(w, missing("host"))
			return
		}
		dump, err := p.controller.ReadFlows(flowQuery(q), http.MaxBytesReader(w, r.Body, maxFlowsText))
		if err != nil {
			northbound.WriteError(w, err)
			return
		}
		writeFlows(w, q.Get("output"), false, dump)
	})
	mux.HandleFunc("GET /planck/v1/diff", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if q.Get("host") == "" {
			northbound.WriteError(w, missing("host"))
			return
		}
		at, err := revisionIn(q, "at")
		if err != nil {
			northbound.WriteError(w, err)
			return
		}
		if p.readElsewhere(w, r, []string{q.Get("host")}, gatherTimeout) {
			return
		}
		diff, err := p.controller.Diff(r.Context(), q.Get("host"), q.Get("bridge"), at)
		if err != nil {
			northbound.WriteError(w, err)
			return
		}
		writeJSON(w, diff)
	})
	mux.HandleFunc("GET /planck/v1/trace", func(w http.ResponseWriter, r *http.Request) {
		q, err := traceQuery(r.URL.Query())
		if err != nil {
			northbound.WriteError(w, err)
			return
		}
		_, ask := p.askOwners(r)
		record, err := p.controller.Trace(r.Context(), q, ask)
		if err != nil && q.Installed && p.readElsewhere(w, r, p.controller.HostNames(), gatherTimeout) {
			return
		}
		if err != nil {
			northbound.WriteError(w, err)
			return
		}
		writeJSON(w, record)
	})
	explainAPI(mux, p)
	factsAPI(mux, p)
	supportAPI(mux, p.support)
	mux.HandleFunc("DELETE /planck/v1/hosts/{name}", func(w http.ResponseWriter, r *http.Request) {
		err := p.ovsdb.Forget(r.Context(), network.Cause{Operation: "host.forget"}, r.PathValue("name"))
		if err != nil {
			northbound.WriteError(w, err)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	changesAPI(mux, p)
	clusterAPI(mux, p)
	verifyAPI(mux, p)
	return p.forAnother(northbound.Mux(mux))
}

// maxFlowsText is that of the largest dump that is read, in bytes: some 300,000 flows.
const maxFlowsText = 64 << 20

// flowQuery reads the query of /planck/v1/flows.
func flowQuery(values url.Values) controller.FlowQuery {
	return controller.FlowQuery{
		Host: values.Get("host"), Bridge: values.Get("bridge"), Port: values.Get("port"), Network: values.Get("network"),
		Router: values.Get("router"), Group: values.Get("group"), Feature: values.Get("feature"),
		Drops: values.Get("drops") != "", Why: values.Get("why") != "",
	}
}

// missing refuses a query without something that it needs.
func missing(parameter string) error {
	return network.Errorf(network.Invalid, "HTTPBadRequest", "the query has no %s", parameter)
}

// hostViews joins what the controller knows of hosts with what their OVSDB
// connections tell.
func hostViews(p *parts) []hostView {
	views := joinHosts(p.controller.Hosts(), p.ovsdb.Hosts())
	for i := range views {
		if p.cluster != nil {
			views[i].Owner = p.cluster.OwnerOf(views[i].Name)
		}
	}
	return views
}

// joinHosts gives each host the connection of its own machine, else that of the
// machine that is about to take its place. A machine that was refused under a
// host's name is a line of its own.
func joinHosts(records []controller.HostRecord, states []ovsdb.HostState) []hostView {
	views := make([]hostView, len(records))
	index := make(map[string]int, len(records))
	for i, h := range records {
		views[i], index[h.Name] = hostView{HostRecord: h}, i
	}
	var others []ovsdb.HostState
	for _, s := range states {
		i, known := index[s.Name]
		if !known || records[i].SystemID != s.SystemID {
			others = append(others, s)
			continue
		}
		// The machine itself may have dialled twice, and be refused once.
		if have := views[i].OVSDB; have.Name != "" {
			if have.Connected {
				have, s = s, have
			}
			others = append(others, have)
		}
		views[i].OVSDB = s
	}
	for _, s := range others {
		if i, known := index[s.Name]; known && views[i].OVSDB.Name == "" && s.Connected {
			views[i].OVSDB = s
			continue
		}
		views = append(views, hostView{HostRecord: controller.HostRecord{Name: s.Name, SystemID: s.SystemID, Bridges: []controller.BridgeRecord{}}, OVSDB: s})
	}
	return views
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		slog.Debug("the client went away", "error", err)
	}
}
