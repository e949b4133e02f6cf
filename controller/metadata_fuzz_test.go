package controller

import (
	"bufio"
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"testing"

	"planck/network"
)

// FuzzMetadataAnswer lets Nova write any bytes in answer to a VM's request: the
// VM gets an answer with a status, and the next request is none the worse.
func FuzzMetadataAnswer(f *testing.F) {
	for _, seed := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
		"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n", "HTTP/1.0 200 OK\r\n\r\nuntil the end", "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nshort",
		"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "HTTP/1.1 999\r\n\r\n", "SSH-2.0\r\n", "", "\x16\x03\x01",
	} {
		f.Add([]byte(seed))
	}
	w := newWorld(f)
	n := w.network("p")
	port := &network.Port{NetworkID: n.ID, AdminStateUp: true, DeviceID: "instance"}
	w.update(func(tx *network.Tx) error { return tx.CreatePort(port) })
	service := NewMetadata(MetadataConfig{
		Nova: &url.URL{Scheme: "http", Host: "nova:8775"}, SharedSecret: testSecret, View: w.store.View, Logger: slog.New(slog.DiscardHandler),
	})
	ask := func(answer []byte) *httptest.ResponseRecorder {
		service.proxy.transport.DialContext = func(context.Context, string, string) (net.Conn, error) { return novaThatSays(answer), nil }
		defer service.proxy.transport.CloseIdleConnections()
		source := &metadataSource{sourceKey: sourceKey{port.ID, netip.MustParseAddr("10.0.0.5")}, use: &metadataUse{requests: make(chan struct{}, 1)}}
		r := httptest.NewRequest(http.MethodGet, "/latest/meta-data/", nil)
		got := httptest.NewRecorder()
		func() {
			// How the server ends a connection whose answer broke off.
			defer func() {
				if p := recover(); p != nil && p != http.ErrAbortHandler {
					panic(p)
				}
			}()
			service.proxy.ServeHTTP(got, r.WithContext(context.WithValue(r.Context(), sourceOf{}, source)))
		}()
		return got
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		if got := ask(answer); got.Code < 100 || got.Code > 999 {
			t.Errorf("%q became an answer with status %d", answer, got.Code)
		}
		if got := ask([]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")); got.Code != http.StatusOK || got.Body.String() != "ok" {
			t.Errorf("after %q a right answer became %d %q", answer, got.Code, got.Body)
		}
	})
}

// novaThatSays is a connection to a Nova that reads one request, says something
// and hangs up.
func novaThatSays(answer []byte) net.Conn {
	here, there := net.Pipe()
	go func() {
		defer there.Close()
		if _, err := http.ReadRequest(bufio.NewReader(there)); err == nil {
			_, _ = there.Write(answer)
		}
	}()
	return here
}
