package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// NFTables are the names of the tables of nftables that a node has.
func (n *Node) NFTables() (names []string, err error) {
	err = n.inside(func() error {
		names, err = nfTables()
		return err
	})
	return names, err
}

const (
	nfGenLen     = 4 // of struct nfgenmsg: family, version, resource id
	nfAttrLen    = 4 // of struct nlattr: length, type
	nfGetTable   = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETTABLE
	nlBufferSize = 1 << 16
)

// nfTables asks the kernel, as "nft list tables" does. One that has no nftables
// refuses.
func nfTables() ([]string, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("netlink socket: %w", err)
	}
	defer unix.Close(fd)
	request := make([]byte, syscall.NLMSG_HDRLEN+nfGenLen)
	binary.NativeEndian.PutUint32(request, uint32(len(request)))
	binary.NativeEndian.PutUint16(request[4:], nfGetTable)
	binary.NativeEndian.PutUint16(request[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("asking for tables: %w", err)
	}
	var names []string
	buffer := make([]byte, nlBufferSize)
	for {
		size, _, err := unix.Recvfrom(fd, buffer, 0)
		if err != nil {
			return nil, fmt.Errorf("reading tables: %w", err)
		}
		messages, err := syscall.ParseNetlinkMessage(buffer[:size])
		if err != nil {
			return nil, fmt.Errorf("reading tables: %w", err)
		}
		for _, m := range messages {
			switch m.Header.Type {
			case unix.NLMSG_DONE:
				return names, nil
			case unix.NLMSG_ERROR:
				return nil, nfError(m.Data)
			}
			names = append(names, nfTableName(m.Data))
		}
	}
}

// nfError is the error of an answer; a kernel that does not know what was asked
// has no tables.
func nfError(data []byte) error {
	if len(data) < 4 {
		return errors.New("reading tables: a short error")
	}
	switch errno := unix.Errno(-int32(binary.NativeEndian.Uint32(data))); errno {
	case 0, unix.EINVAL, unix.EOPNOTSUPP:
		return nil
	default:
		return fmt.Errorf("reading tables: %w", errno)
	}
}

// nfTableName is the name in a message about a table.
func nfTableName(data []byte) string {
	for data = data[min(nfGenLen, len(data)):]; len(data) >= nfAttrLen; {
		size, kind := int(binary.NativeEndian.Uint16(data)), binary.NativeEndian.Uint16(data[2:])
		if size < nfAttrLen || size > len(data) {
			break
		}
		if kind == unix.NFTA_TABLE_NAME {
			return unix.ByteSliceToString(data[nfAttrLen:size])
		}
		data = data[min((size+3)&^3, len(data)):]
	}
	return ""
}
