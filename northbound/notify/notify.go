// Package notify tells other programs what the API does, as OpenStack's
// services do: by notifications that are queued in the transaction that they
// are about, and sent by drivers until they have arrived.
package notify

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"planck/network"
)

// The drivers.
const (
	Log       = "log"
	Messaging = "messaging"
	Noop      = "noop"
)

// drivers are the names that files may call a driver by; of the dotted names of
// modules the last part counts.
var drivers = map[string]string{
	"log": Log, "log_notifier": Log,
	"messaging": Messaging, "messagingv2": Messaging, "rpc_notifier": Messaging, "rpc_notifier2": Messaging, "rabbit_notifier": Messaging,
	"noop": Noop, "no_op_notifier": Noop,
}

// DriverOf is the driver that a name of a configuration file means.
func DriverOf(name string) (string, error) {
	last := name[strings.LastIndexByte(name, '.')+1:]
	if d, ok := drivers[last]; ok {
		return d, nil
	}
	return "", fmt.Errorf("%q is not a notification driver (log, messaging, noop)", name)
}

// Options say who is told, and how.
type Options struct {
	Drivers   []string // Log, Messaging, Noop
	Publisher string   // publisher_id: "network.<host>"
	Level     string   // priority: "INFO"
	Rabbit    Rabbit
}

// Enabled reports whether somebody is told.
func (o *Options) Enabled() bool { return o.has(Log) || o.has(Messaging) }

func (o *Options) has(driver string) bool { return slices.Contains(o.Drivers, driver) }

// queueOf is the queue of the store for a driver.
func queueOf(driver string) string { return "notifications/" + driver }

// Context is on whose behalf something happened.
type Context struct {
	RequestID, ProjectID, UserID string
	Roles                        []string
	Admin                        bool
}

// Messages are a notification for the queues of all drivers. payload is JSON.
func (o *Options) Messages(by Context, event string, payload []byte) []network.Message {
	id, now := uuid.NewString(), time.Now().UTC()
	body, err := json.Marshal(map[string]any{
		"message_id": id, "publisher_id": o.Publisher, "event_type": event, "priority": o.Level,
		"timestamp": now.Format("2006-01-02 15:04:05.000000"), "payload": json.RawMessage(payload),
		"_unique_id":          strings.ReplaceAll(id, "-", ""),
		"_context_request_id": by.RequestID, "_context_project_id": by.ProjectID, "_context_tenant": by.ProjectID,
		"_context_tenant_id": by.ProjectID, "_context_user_id": by.UserID, "_context_user": by.UserID,
		"_context_roles": orEmpty(by.Roles), "_context_is_admin": by.Admin,
		"_context_timestamp": now.Format("2006-01-02 15:04:05.000000"),
	})
	if err != nil {
		return nil // the payload is no JSON, which an answer of the API always is
	}
	var list []network.Message
	for _, driver := range []string{Log, Messaging} {
		if o.has(driver) {
			list = append(list, network.Message{Queue: queueOf(driver), Body: body})
		}
	}
	return list
}

func orEmpty(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}
