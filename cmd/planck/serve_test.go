package main

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// serveAPI runs an API server with an address of its own.
func serveAPI(t *testing.T, handler http.HandlerFunc, tune func(*http.Server)) (*http.Server, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := apiServer(handler, slog.New(slog.DiscardHandler))
	tune(server)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l)
	}()
	t.Cleanup(func() {
		server.Close()
		<-done
	})
	return server, l.Addr().String()
}

func TestASlowBodyHoldsNeitherItsConnectionNorTheEnd(t *testing.T) {
	if readTime >= drainTime {
		t.Errorf("a body may take %v, longer than the %v that SIGTERM waits", readTime, drainTime)
	}
	began := make(chan struct{})
	server, addr := serveAPI(t, func(w http.ResponseWriter, r *http.Request) {
		close(began)
		if _, err := io.ReadAll(r.Body); err == nil {
			t.Error("the whole body arrived")
		}
		w.WriteHeader(http.StatusBadRequest)
	}, func(s *http.Server) { s.ReadTimeout = 200 * time.Millisecond })
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "POST /v2.0/networks HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
	<-began
	begin := time.Now()
	if err := server.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took > readTime/2 {
		t.Errorf("the end took %v", took)
	}
	answer, err := io.ReadAll(c)
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 400") {
		t.Errorf("the slow client got %q, %v", answer, err)
	}
}

// TestHangupsDoNotDisturbTheEnd sends a signal while serving ends, many times.
func TestHangupsDoNotDisturbTheEnd(t *testing.T) {
	// It keeps this process alive, and says when a signal has arrived.
	arrived := make(chan os.Signal, 1)
	signal.Notify(arrived, syscall.SIGHUP)
	defer signal.Stop(arrived)
	hangUp := func() {
		if err := syscall.Kill(syscall.Getpid(), syscall.SIGHUP); err != nil {
			t.Error(err)
		}
		<-arrived
	}
	for range 200 {
		called := make(chan struct{}, 2)
		stop := onHangup(func() { called <- struct{}{} })
		hangUp()
		<-called
		var wg sync.WaitGroup
		wg.Go(hangUp)
		stop()
		wg.Wait()
	}
}
