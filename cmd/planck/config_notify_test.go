package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"planck/northbound/notify"
)

func TestNotificationOptions(t *testing.T) {
	rabbit := notify.Rabbit{Hosts: []string{"localhost:5672"}, User: "guest", Password: "guest", VHost: "/", Exchange: "neutron",
		Topics: []string{"notifications"}}
	with := func(change func(o *notify.Options)) notify.Options {
		o := notify.Options{Publisher: "network.here", Level: "INFO", Rabbit: rabbit}
		change(&o)
		return o
	}
	for _, c := range []struct {
		name, file string
		want       notify.Options
	}{
		{"nothing", "host = here\n", with(func(*notify.Options) {})},
		{"the guide's", `host = here
default_publisher_id = $host
rabbit_host = 10.0.0.5
rabbit_password = secret
rabbit_user = nova
control_exchange = quantum
notification_driver = quantum.openstack.common.notifier.log_notifier
notification_driver = quantum.openstack.common.notifier.rabbit_notifier
notification_topics = notifications_one,notifications_two
`, with(func(o *notify.Options) {
			o.Drivers = []string{notify.Log, notify.Messaging}
			o.Rabbit.Hosts, o.Rabbit.User, o.Rabbit.Password = []string{"10.0.0.5:5672"}, "nova", "secret"
			o.Rabbit.Exchange, o.Rabbit.Topics = "quantum", []string{"notifications_one", "notifications_two"}
		})},
		{"today's", `default_publisher_id = here
[oslo_messaging_notifications]
driver = messagingv2
driver = noop
transport_url = rabbit://a:b%21@r1,a:b@r2:5673/v%2fh
[oslo_messaging_rabbit]
amqp_durable_queues = True
`, with(func(o *notify.Options) {
			o.Drivers = []string{notify.Messaging, notify.Noop}
			o.Rabbit.Hosts, o.Rabbit.User, o.Rabbit.Password = []string{"r1:5672", "r2:5673"}, "a", "b!"
			o.Rabbit.VHost, o.Rabbit.Durable = "v/h", true
		})},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg, warnings := load(t, "[DEFAULT]\n"+c.file)
			if len(warnings) > 0 {
				t.Fatal(warnings)
			}
			if diff := cmp.Diff(c.want, *cfg.notifyOptions()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
