package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

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
		{"flows", 2, "accepts between 1 and 2 arg(s)"},
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
