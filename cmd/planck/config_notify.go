package main

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"planck/northbound/notify"
)

// notifyConfig is who is told of what the API does.
type notifyConfig struct {
	drivers                             notifyDrivers
	topics                              []string
	host, publisher                     string
	level                               string
	transport                           transportURL
	rabbitHost, user, password, vhost   string
	rabbitPort                          int
	rabbitHosts                         []string
	ssl, durableQueues, autoDeleteQueue bool
	caFile, exchange                    string
}

var (
	inNotifications = []string{"oslo_messaging_notifications", "DEFAULT"}
	inRabbit        = []string{"oslo_messaging_rabbit", "DEFAULT"}
)

var notifyOptions = []*option{
	{Sections: inNotifications, Names: []string{"driver", "notification_driver"}, Repeatable: true,
		Doc: "Who is told of what the API does: `messaging` (RabbitMQ), `log`, `noop`; may be given several times. The old names of modules" +
			" (`quantum.openstack.common.notifier.rabbit_notifier`, `….log_notifier`, `….no_op_notifier`) mean the same.",
		Into: func(c *Config) any { return &c.notify.drivers }},
	{Sections: inNotifications, Names: []string{"topics", "notification_topics"}, Default: "notifications",
		Doc:  "Topics of the notifications: each arrives with the routing key and in the queue `<topic>.<level>`.",
		Into: func(c *Config) any { return &c.notify.topics }},
	{Sections: inDefault, Names: []string{"default_notification_level"}, Default: "INFO", OneOf: []string{"DEBUG", "INFO", "WARN", "ERROR", "CRITICAL"},
		Doc: "Priority of the notifications, and the end of their routing keys in lower case.", Into: func(c *Config) any { return &c.notify.level }},
	{Sections: inDefault, Names: []string{"host"}, Computed: "the name of this machine",
		Doc: "Name of this controller in notifications.", Into: func(c *Config) any { return &c.notify.host }},
	{Sections: inDefault, Names: []string{"default_publisher_id"}, Computed: "`$host`",
		Doc: "What follows `network.` in the publisher_id of notifications.", Into: func(c *Config) any { return &c.notify.publisher }},
	{Sections: inDefault, Names: []string{"control_exchange"}, Default: "neutron",
		Doc: "Topic exchange of the notifications.", Into: func(c *Config) any { return &c.notify.exchange }},
	{Sections: inNotifications, Names: []string{"transport_url"},
		Doc:  "RabbitMQ: `rabbit://user:password@host:port,user:password@host:port/vhost`, in place of the options `rabbit_…`.",
		Into: func(c *Config) any { return &c.notify.transport }},
	{Sections: inRabbit, Names: []string{"rabbit_host"}, Default: "localhost",
		Doc: "Host of RabbitMQ.", Into: func(c *Config) any { return &c.notify.rabbitHost }},
	{Sections: inRabbit, Names: []string{"rabbit_port"}, Default: "5672", Min: limit(1), Max: limit(65535),
		Doc: "Its port.", Into: func(c *Config) any { return &c.notify.rabbitPort }},
	{Sections: inRabbit, Names: []string{"rabbit_hosts"}, Computed: "`$rabbit_host:$rabbit_port`",
		Doc: "Several brokers, `host:port` each, tried in this order.", Into: func(c *Config) any { return &c.notify.rabbitHosts }},
	{Sections: inRabbit, Names: []string{"rabbit_userid", "rabbit_user"}, Default: "guest",
		Doc: "User at RabbitMQ.", Into: func(c *Config) any { return &c.notify.user }},
	{Sections: inRabbit, Names: []string{"rabbit_password"}, Default: "guest",
		Doc: "Password of that user.", Into: func(c *Config) any { return &c.notify.password }},
	{Sections: inRabbit, Names: []string{"rabbit_virtual_host"}, Default: "/",
		Doc: "Virtual host of RabbitMQ.", Into: func(c *Config) any { return &c.notify.vhost }},
	{Sections: inRabbit, Names: []string{"rabbit_use_ssl", "ssl"}, Default: "False",
		Doc: "Whether RabbitMQ is spoken to by TLS.", Into: func(c *Config) any { return &c.notify.ssl }},
	{Sections: inRabbit, Names: []string{"kombu_ssl_ca_certs", "ssl_ca_file"}, Computed: "those of the system",
		Doc: "File of the certificates that sign RabbitMQ's.", Into: func(c *Config) any { return &c.notify.caFile }},
	{Sections: inRabbit, Names: []string{"amqp_durable_queues", "rabbit_durable_queues"}, Default: "False",
		Doc:  "Whether the exchange and the queues outlive the broker; they must be declared alike by all who use them.",
		Into: func(c *Config) any { return &c.notify.durableQueues }},
	{Sections: inRabbit, Names: []string{"amqp_auto_delete"}, Default: "False",
		Doc: "Whether they go with their last user.", Into: func(c *Config) any { return &c.notify.autoDeleteQueue }},
}

// notifyDrivers is a list of drivers, each once.
type notifyDrivers []string

func (*notifyDrivers) typeName() string { return "list" }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *notifyDrivers) UnmarshalText(text []byte) error {
	var list []string
	for _, name := range splitList(string(text)) {
		driver, err := notify.DriverOf(name)
		if err != nil {
			return err
		}
		if !slices.Contains(list, driver) {
			list = append(list, driver)
		}
	}
	*d = list
	return nil
}

// transportURL is how oslo.messaging names brokers.
type transportURL struct {
	hosts                 []string
	user, password, vhost string
}

func (*transportURL) typeName() string { return "URL" }

// UnmarshalText implements encoding.TextUnmarshaler. Errors don't repeat the
// URL: it holds a password.
func (t *transportURL) UnmarshalText(text []byte) error {
	scheme, rest, ok := strings.Cut(string(text), "://")
	if !ok || scheme != "rabbit" && scheme != "kombu" && scheme != "amqp" {
		return errors.New("not a URL of RabbitMQ: rabbit://user:password@host:port/vhost")
	}
	brokers, vhost, slash := strings.Cut(rest, "/")
	vhost, _, _ = strings.Cut(vhost, "?")
	*t = transportURL{vhost: "/"}
	if slash && vhost != "" {
		name, err := url.PathUnescape(vhost)
		if err != nil {
			return errors.New("the virtual host of the URL can't be read")
		}
		t.vhost = name
	}
	for i, broker := range splitList(brokers) {
		u, err := url.Parse("rabbit://" + broker)
		if err != nil || u.Hostname() == "" {
			return fmt.Errorf("broker %d of the URL can't be read", i+1)
		}
		port := u.Port()
		if port == "" {
			port = "5672"
		}
		t.hosts = append(t.hosts, net.JoinHostPort(u.Hostname(), port))
		if i == 0 && u.User != nil {
			t.user = u.User.Username()
			t.password, _ = u.User.Password()
		}
	}
	if len(t.hosts) == 0 {
		return errors.New("the URL names no broker")
	}
	return nil
}

// notifyOptions is what the API and the senders are told of notifications.
func (c *Config) notifyOptions() *notify.Options {
	n := &c.notify
	host := n.host
	if host == "" {
		host, _ = os.Hostname() // a name for people; none is no harm
	}
	publisher := n.publisher
	if publisher == "" {
		publisher = host
	}
	o := &notify.Options{Drivers: n.drivers, Publisher: "network." + publisher, Level: n.level, Rabbit: notify.Rabbit{
		Hosts: n.rabbitHosts, User: n.user, Password: n.password, VHost: n.vhost, TLS: n.ssl, CAFile: n.caFile,
		Exchange: n.exchange, Topics: n.topics, Durable: n.durableQueues, AutoDelete: n.autoDeleteQueue,
	}}
	if len(o.Rabbit.Hosts) == 0 {
		o.Rabbit.Hosts = []string{net.JoinHostPort(n.rabbitHost, strconv.Itoa(n.rabbitPort))}
	}
	if t := n.transport; len(t.hosts) > 0 {
		o.Rabbit.Hosts, o.Rabbit.User, o.Rabbit.Password, o.Rabbit.VHost = t.hosts, t.user, t.password, t.vhost
	}
	return o
}
