package notify

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"planck/network"
)

// Rabbit is where RabbitMQ is, and how it is used.
type Rabbit struct {
	Hosts                 []string // host:port, tried in this order
	User, Password, VHost string
	TLS                   bool
	CAFile                string // "" for the system's authorities
	Exchange              string // control_exchange, a topic exchange
	Topics                []string
	Durable, AutoDelete   bool // of the exchange and the queues
}

const (
	connectTimeout = 5 * time.Second
	confirmTimeout = 15 * time.Second
	heartbeat      = 10 * time.Second
)

// rabbitDriver publishes on a topic exchange, and makes the queue of each topic,
// so that nothing is lost before somebody reads it.
type rabbitDriver struct {
	o    Rabbit
	keys []string // routing keys and queues: "notifications.info"
	tls  *tls.Config
	log  *slog.Logger

	conn    *amqp.Connection
	channel *amqp.Channel
}

func newRabbitDriver(o *Options, log *slog.Logger) (*rabbitDriver, error) {
	d := &rabbitDriver{o: o.Rabbit, log: log}
	for _, topic := range o.Rabbit.Topics {
		d.keys = append(d.keys, topic+"."+strings.ToLower(o.Level))
	}
	if !o.Rabbit.TLS {
		return d, nil
	}
	d.tls = &tls.Config{MinVersion: tls.VersionTLS12}
	if o.Rabbit.CAFile != "" {
		pem, err := os.ReadFile(o.Rabbit.CAFile)
		if err != nil {
			return nil, fmt.Errorf("[oslo_messaging_rabbit] ssl_ca_file: %w", err)
		}
		d.tls.RootCAs = x509.NewCertPool()
		if !d.tls.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("[oslo_messaging_rabbit] ssl_ca_file: %s has no certificate", o.Rabbit.CAFile)
		}
	}
	return d, nil
}

// deliver publishes to every topic and waits until the broker has confirmed all.
func (d *rabbitDriver) deliver(ctx context.Context, list []network.Queued) error {
	if err := d.connect(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, confirmTimeout)
	defer cancel()
	if err := d.publish(ctx, list); err != nil {
		d.close()
		return err
	}
	return nil
}

func (d *rabbitDriver) publish(ctx context.Context, list []network.Queued) error {
	var confirmations []*amqp.DeferredConfirmation
	for _, m := range list {
		body, err := json.Marshal(map[string]string{"oslo.version": "2.0", "oslo.message": string(m.Body)})
		if err != nil {
			return err
		}
		for _, key := range d.keys {
			c, err := d.channel.PublishWithDeferredConfirmWithContext(ctx, d.o.Exchange, key, false, false, amqp.Publishing{
				ContentType: "application/json", ContentEncoding: "utf-8", DeliveryMode: amqp.Persistent, Body: body,
			})
			if err != nil {
				return err
			}
			confirmations = append(confirmations, c)
		}
	}
	for _, c := range confirmations {
		taken, err := c.WaitContext(ctx)
		if err != nil {
			return fmt.Errorf("the broker does not confirm: %w", err)
		}
		if !taken {
			return errors.New("the broker refuses a message")
		}
	}
	return nil
}

// connect makes a connection to the first broker that answers, unless there is one.
func (d *rabbitDriver) connect() error {
	if d.conn != nil && !d.conn.IsClosed() && !d.channel.IsClosed() {
		return nil
	}
	d.close()
	var errs []error
	for _, host := range d.o.Hosts {
		err := d.dial(host)
		if err == nil {
			d.log.Info("connected to RabbitMQ", "broker", host)
			return nil
		}
		d.close()
		errs = append(errs, fmt.Errorf("RabbitMQ %s: %w", host, err))
	}
	return errors.Join(errs...)
}

func (d *rabbitDriver) dial(host string) error {
	config := amqp.Config{
		SASL:  []amqp.Authentication{&amqp.PlainAuth{Username: d.o.User, Password: d.o.Password}},
		Vhost: d.o.VHost, Heartbeat: heartbeat, Properties: amqp.Table{"connection_name": "planck notifications"},
		Dial: func(network, addr string) (net.Conn, error) {
			conn, err := net.DialTimeout(network, addr, connectTimeout)
			if err != nil {
				return nil, err
			}
			// Of the handshake; the client lifts it when that is done.
			return conn, conn.SetDeadline(time.Now().Add(connectTimeout))
		},
	}
	scheme := "amqp"
	if d.o.TLS {
		scheme, config.TLSClientConfig = "amqps", d.tls.Clone()
	}
	var err error
	if d.conn, err = amqp.DialConfig(scheme+"://"+host+"/", config); err != nil {
		return err
	}
	if d.channel, err = d.conn.Channel(); err != nil {
		return err
	}
	if err := d.channel.ExchangeDeclare(d.o.Exchange, amqp.ExchangeTopic, d.o.Durable, d.o.AutoDelete, false, false, nil); err != nil {
		return err
	}
	for _, key := range d.keys {
		if _, err := d.channel.QueueDeclare(key, d.o.Durable, d.o.AutoDelete, false, false, nil); err != nil {
			return err
		}
		if err := d.channel.QueueBind(key, key, d.o.Exchange, false, nil); err != nil {
			return err
		}
	}
	return d.channel.Confirm(false)
}

func (d *rabbitDriver) close() {
	if d.conn != nil {
		_ = d.conn.CloseDeadline(time.Now().Add(time.Second)) // it may be broken already
	}
	d.conn, d.channel = nil, nil
}
