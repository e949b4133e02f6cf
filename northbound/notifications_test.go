package northbound

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	amqp "github.com/rabbitmq/amqp091-go"

	"planck/northbound/notify"
	"planck/test/rabbitmq"
)

// notified is an API whose notifications go to a broker.
func notified(t *testing.T, addr string) *api {
	t.Helper()
	o := &notify.Options{Drivers: []string{notify.Messaging, notify.Log}, Publisher: "network.here", Level: "INFO", Rabbit: notify.Rabbit{
		Hosts: []string{"127.0.0.1:1", addr}, User: "guest", Password: "guest", VHost: "/", Exchange: "quantum",
		Topics: []string{"one", "two"},
	}}
	a := newAPIOn(t, "sqlite://"+filepath.Join(t.TempDir(), "planck.db"), Options{Notifications: o})
	senders, err := notify.NewSenders(a.store, o, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, s := range senders {
		wg.Go(func() { _ = s.Run(ctx) })
	}
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	return a
}

// arrived reads the queue of a topic until it has so many notifications. It
// reads the envelope as oslo.messaging does.
func arrived(t *testing.T, addr, queue string, n int) []map[string]any {
	t.Helper()
	var list []map[string]any
	deadline := time.Now().Add(90 * time.Second)
	for len(list) < n {
		if time.Now().After(deadline) {
			t.Fatalf("%d notifications in %s, want %d: %v", len(list), queue, n, list)
		}
		conn, err := amqp.Dial("amqp://guest:guest@" + addr + "/")
		if err != nil {
			time.Sleep(100 * time.Millisecond)
			continue
		}
		if channel, err := conn.Channel(); err == nil {
			for {
				m, ok, err := channel.Get(queue, true)
				if err != nil || !ok {
					break
				}
				list = append(list, opened(t, m.Body))
			}
		}
		_ = conn.Close()
		time.Sleep(20 * time.Millisecond)
	}
	return list
}

func opened(t *testing.T, body []byte) map[string]any {
	t.Helper()
	var outer map[string]string
	var inner map[string]any
	if err := json.Unmarshal(body, &outer); err != nil || outer["oslo.version"] != "2.0" {
		t.Fatalf("envelope %s: %v", body, err)
	}
	if err := json.Unmarshal([]byte(outer["oslo.message"]), &inner); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"message_id", "timestamp", "_unique_id", "_context_request_id"} {
		if inner[key] == "" || inner[key] == nil {
			t.Errorf("%s is not there: %v", key, inner)
		}
	}
	return inner
}

func types(list []map[string]any) []string {
	var names []string
	for _, m := range list {
		names = append(names, m["event_type"].(string))
	}
	return names
}

func TestNotificationsArriveAtRabbitMQ(t *testing.T) {
	broker := rabbitmq.Start(t)
	a := notified(t, broker.Addr)
	net := a.network(blue, `"name": "n"`)
	a.put(blue, "network", net, `{"name": "m"}`)
	subnet := a.subnet(blue, net, "10.0.0.0/24", "")
	router := a.router(blue, "")
	a.addInterface(blue, router, subnet)
	a.refused(blue, "DELETE", "/v2.0/networks/"+net, "", 409, "NetworkInUse", "")
	a.must(200, blue, "PUT", "/v2.0/routers/"+router+"/remove_router_interface", fmt.Sprintf(`{"subnet_id": %q}`, subnet))
	a.must(204, blue, "DELETE", "/v2.0/networks/"+net, "")
	want := []string{"network.create.start", "network.create.end", "network.update.start", "network.update.end",
		"subnet.create.start", "subnet.create.end", "router.create.start", "router.create.end",
		"router.interface.create", "router.interface.delete", "network.delete.start", "network.delete.end"}
	for _, topic := range []string{"one.info", "two.info"} {
		got := arrived(t, broker.Addr, topic, len(want))
		if !slices.Equal(types(got), want) {
			t.Fatalf("%s has\n%s\nwant\n%s", topic, strings.Join(types(got), "\n"), strings.Join(want, "\n"))
		}
		created, updated := got[1], got[2]
		n, _ := created["payload"].(map[string]any)["network"].(map[string]any)
		if n["id"] != net || n["name"] != "n" || created["publisher_id"] != "network.here" || created["priority"] != "INFO" ||
			created["_context_project_id"] != "blue" {
			t.Errorf("created: %v", created)
		}
		if got := fmt.Sprint(updated["payload"]); got != "map[id:"+net+" network:map[name:m]]" {
			t.Errorf("the start of an update: %s", got)
		}
		if gone := got[11]["payload"].(map[string]any); gone["network_id"] != net || gone["network"].(map[string]any)["name"] != "m" {
			t.Errorf("deleted: %v", gone)
		}
	}

	// A broker that is down loses nothing and slows nothing.
	broker.Kill(t)
	start := time.Now()
	for i := range 20 {
		a.network(blue, fmt.Sprintf(`"name": "%d"`, i))
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("20 networks took %s without a broker", took)
	}
	broker.Restart(t)
	got := arrived(t, broker.Addr, "one.info", 40)
	for i := range 20 {
		if name := got[2*i+1]["payload"].(map[string]any)["network"].(map[string]any)["name"]; name != fmt.Sprint(i) {
			t.Errorf("notification %d is about %v", 2*i+1, name)
		}
	}
}
