package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestRefusalsAreToldInTheWordsOfTheAPI(t *testing.T) {
	for body, want := range map[string]string{
		`{"error": {"code": 401, "message": "who are you?"}}`:        "planck: who are you?\n",
		`{"NeutronError": {"type": "X", "message": "no such host"}}`: "planck: no such host\n",
		`<html>`: "planck: 418 I'm a teapot: <html>\n",
	} {
		api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusTeapot)
			_, _ = w.Write([]byte(body))
		}))
		var out bytes.Buffer
		if code := run([]string{"hosts", "--url", api.URL}, &out, &out); code != 1 || out.String() != want {
			t.Errorf("exit code %d, %q; want %q", code, out.String(), want)
		}
		api.Close()
	}
}

func TestExitCodes(t *testing.T) {
	api := httptest.NewServer(http.NotFoundHandler())
	defer api.Close()
	for _, c := range []struct {
		line string
		code int
		says string
	}{
		{"version", 0, "planck " + version},
		{"--version", 0, "planck " + version},
		{"help", 0, "Available Commands"},
		{"frobnicate", 2, "unknown command"},
		{"flows", 2, "needs a host, or one of --port"},
		{"hosts frobnicate", 2, "unknown command"},
		{"hosts --frobnicate", 2, "unknown flag"},
		{"serve --frobnicate", 2, "unknown flag"},
		{"serve now", 2, "unknown command"},
		{"serve --config-file /nonexistent", 2, "/nonexistent"},
		{"serve --state-dir " + t.TempDir() + " --api-listen nowhere", 2, "--api-listen"},
		{"serve --state-dir /proc/self/comm/x", 1, "state directory"},
		{"hosts -o xml", 2, "unknown output"},
		{"hosts -o json --url " + api.URL, 1, "404"},
		{"flows host1 --why", 2, "--port"},
		{"flows host1 --url " + api.URL, 1, "404"},
	} {
		var out bytes.Buffer
		if code := run(strings.Fields(c.line), &out, &out); code != c.code || !strings.Contains(out.String(), c.says) {
			t.Errorf("planck %s: exit code %d, want %d and %q:\n%s", c.line, code, c.code, c.says, out.String())
		}
	}
}
