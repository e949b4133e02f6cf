package lab

import (
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// FrameSender sends Ethernet frames on a link of a node.
type FrameSender struct {
	node, link string
	fd, index  int
}

// FrameSender opens a link for sending.
func (n *Node) FrameSender(link string) (*FrameSender, error) {
	s := &FrameSender{node: n.name, link: link}
	err := n.inside(func() error {
		ifc, err := net.InterfaceByName(link)
		if err != nil {
			return err
		}
		s.index = ifc.Index
		s.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: open %s for frames: %w", n.name, link, err)
	}
	return s, nil
}

// Send sends one frame, header included, as it is.
func (s *FrameSender) Send(frame []byte) error {
	if err := unix.Sendto(s.fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: s.index}); err != nil {
		return fmt.Errorf("%s: send frame on %s: %w", s.node, s.link, err)
	}
	return nil
}

// Close ends sending.
func (s *FrameSender) Close() error { return unix.Close(s.fd) }

// SendFrame sends one Ethernet frame, header included, as it is: tests forge
// with it what no honest VM sends.
func (n *Node) SendFrame(link string, frame []byte) error {
	s, err := n.FrameSender(link)
	if err != nil {
		return err
	}
	return errors.Join(s.Send(frame), s.Close())
}
