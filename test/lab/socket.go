package lab

import (
	"context"
	"fmt"
	"net"
)

// Listen accepts TCP connections inside the node.
func (n *Node) Listen(ctx context.Context, address string) (l net.Listener, err error) {
	var config net.ListenConfig
	config.SetMultipathTCP(false)
	err = n.inside(func() error {
		l, err = config.Listen(ctx, "tcp", address)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: listen on %s: %w", n.name, address, err)
	}
	return l, nil
}

// Dial opens a TCP connection from inside the node, which sends nothing by itself.
func (n *Node) Dial(ctx context.Context, address string) (conn net.Conn, err error) {
	dialer := net.Dialer{KeepAlive: -1}
	err = n.inside(func() error {
		conn, err = dialer.DialContext(ctx, "tcp", address)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: connect to %s: %w", n.name, address, err)
	}
	return conn, nil
}

// ListenPacket opens a UDP socket inside the node.
func (n *Node) ListenPacket(ctx context.Context, address string) (conn net.PacketConn, err error) {
	var config net.ListenConfig
	err = n.inside(func() error {
		conn, err = config.ListenPacket(ctx, "udp", address)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: listen on %s: %w", n.name, address, err)
	}
	return conn, nil
}
