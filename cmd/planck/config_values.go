package main

import (
	"encoding"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"planck/network"
)

// setValue reads text as oslo.config does for the type that target points to.
func setValue(target any, text string) error {
	switch t := target.(type) {
	case encoding.TextUnmarshaler:
		return t.UnmarshalText([]byte(text))
	case *string:
		*t = text
	case *[]string:
		*t = splitList(text)
	case *bool:
		v, err := parseBool(text)
		if err != nil {
			return err
		}
		*t = v
	case *int:
		v, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Errorf("%q is not an integer", text)
		}
		*t = v
	default:
		return fmt.Errorf("a value of type %T cannot be configured", target)
	}
	return nil
}

// typeName is what the documentation calls the type that target points to.
func typeName(target any) string {
	switch t := target.(type) {
	case interface{ typeName() string }:
		return t.typeName()
	case *string:
		return "string"
	case *[]string:
		return "list"
	case *bool:
		return "boolean"
	case *int:
		return "integer"
	case *network.MAC:
		return "MAC address"
	case *slog.Level:
		return "debug, info, warn, error"
	}
	return ""
}

func parseBool(text string) (bool, error) {
	switch strings.ToLower(text) {
	case "true", "1", "yes", "on", "t", "y":
		return true, nil
	case "false", "0", "no", "off", "f", "n":
		return false, nil
	}
	return false, fmt.Errorf("%q is neither True nor False", text)
}

// splitList splits a list at its commas and leaves out empty items.
func splitList(text string) []string {
	var items []string
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.TrimSpace(item); item != "" {
			items = append(items, item)
		}
	}
	return items
}

// listenAddr is a TCP address to listen on, "[host]:port"; an empty host means
// all addresses.
type listenAddr string

func (*listenAddr) typeName() string { return "host:port" }

// UnmarshalText implements encoding.TextUnmarshaler.
func (a *listenAddr) UnmarshalText(text []byte) error {
	if _, _, err := splitHostPort(string(text)); err != nil {
		return err
	}
	*a = listenAddr(text)
	return nil
}

// apiListen sets bind_host and bind_port at once.
type apiListen struct{ c *Config }

func (*apiListen) typeName() string { return "host:port" }

// UnmarshalText implements encoding.TextUnmarshaler.
func (a *apiListen) UnmarshalText(text []byte) error {
	host, port, err := splitHostPort(string(text))
	if err != nil {
		return err
	}
	a.c.BindHost, a.c.BindPort = host, port
	return nil
}

func splitHostPort(text string) (string, int, error) {
	host, portText, err := net.SplitHostPort(text)
	if err != nil {
		return "", 0, fmt.Errorf("%q is not host:port", text)
	}
	port, err := strconv.Atoi(portText)
	if err != nil || port < 0 || port > 65535 {
		return "", 0, fmt.Errorf("%q: the port is not a number from 0 to 65535", text)
	}
	if strings.ContainsAny(host, " /") {
		return "", 0, fmt.Errorf("%q: bad host", text)
	}
	return host, port, nil
}

// loopback reports whether only this machine can reach a listener on host.
func loopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}

// advertiseAddr is an address or name without a port.
type advertiseAddr string

func (*advertiseAddr) typeName() string { return "host" }

// UnmarshalText implements encoding.TextUnmarshaler.
func (a *advertiseAddr) UnmarshalText(text []byte) error {
	host := string(text)
	if addr, err := netip.ParseAddr(host); err == nil {
		if addr.IsUnspecified() {
			return fmt.Errorf("%q is not an address to dial", host)
		}
	} else if strings.ContainsAny(host, ": /[]") {
		return fmt.Errorf("%q is neither an address nor a host name (it takes no port)", host)
	}
	*a = advertiseAddr(host)
	return nil
}

// seconds is a duration that files give as a whole number of seconds.
type seconds time.Duration

func (*seconds) typeName() string { return "seconds" }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *seconds) UnmarshalText(text []byte) error {
	v, err := strconv.ParseInt(string(text), 10, 32)
	if err != nil {
		return fmt.Errorf("%q is not a number of seconds", text)
	}
	*s = seconds(time.Duration(v) * time.Second)
	return nil
}

// pageLimit is a number of objects; 0 is no limit.
type pageLimit int

func (*pageLimit) typeName() string { return "integer" }

// UnmarshalText implements encoding.TextUnmarshaler: "infinite" and negative
// numbers are no limit.
func (l *pageLimit) UnmarshalText(text []byte) error {
	if strings.EqualFold(string(text), "infinite") {
		*l = 0
		return nil
	}
	v, err := strconv.Atoi(string(text))
	if err != nil || v == 0 {
		return fmt.Errorf("%q is neither a number nor \"infinite\"", text)
	}
	*l = pageLimit(max(v, 0))
	return nil
}

// logFormat is "text" or "json". The format strings of Python's logging are
// accepted and change nothing.
type logFormat string

func (*logFormat) typeName() string { return "text, json" }

// UnmarshalText implements encoding.TextUnmarshaler.
func (f *logFormat) UnmarshalText(text []byte) error {
	v := string(text)
	switch {
	case v == "text" || v == "json":
		*f = logFormat(v)
	case !strings.Contains(v, "%("):
		return fmt.Errorf("%q is neither text nor json", v)
	}
	return nil
}

// networkTypes is a list of types of tenant networks; "none" is an empty list.
type networkTypes []string

func (*networkTypes) typeName() string { return "list" }

// UnmarshalText implements encoding.TextUnmarshaler.
func (t *networkTypes) UnmarshalText(text []byte) error {
	types := splitList(strings.ToLower(string(text)))
	if slices.Equal(types, []string{"none"}) {
		types = nil
	}
	known := []string{network.TypeLocal, network.TypeVLAN, network.TypeGRE, network.TypeVXLAN, network.TypeGeneve}
	if err := onlyKnown(types, known); err != nil {
		return err
	}
	*t = types
	return nil
}

// tunnelTypes is a list of types of tunnels.
type tunnelTypes []string

func (*tunnelTypes) typeName() string { return "list" }

// UnmarshalText implements encoding.TextUnmarshaler.
func (t *tunnelTypes) UnmarshalText(text []byte) error {
	types := splitList(strings.ToLower(string(text)))
	if err := onlyKnown(types, allTunnelTypes); err != nil {
		return err
	}
	*t = types
	return nil
}

func onlyKnown(items, known []string) error {
	for i, item := range items {
		if !slices.Contains(known, item) {
			return fmt.Errorf("%q is not one of %s", item, strings.Join(known, ", "))
		}
		if slices.Contains(items[:i], item) {
			return fmt.Errorf("%q is there twice", item)
		}
	}
	return nil
}

// greRanges are ranges of GRE keys, "1:1000,2000:3000".
type greRanges []network.IDRange

func (*greRanges) typeName() string { return "list of min:max" }

// UnmarshalText implements encoding.TextUnmarshaler.
func (r *greRanges) UnmarshalText(text []byte) error {
	ranges, err := parseRanges(string(text), 1<<32-1)
	*r = ranges
	return err
}

// vniRanges are ranges of VXLAN and Geneve network identifiers (24 bits).
type vniRanges []network.IDRange

func (*vniRanges) typeName() string { return "list of min:max" }

// UnmarshalText implements encoding.TextUnmarshaler.
func (r *vniRanges) UnmarshalText(text []byte) error {
	ranges, err := parseRanges(string(text), 1<<24-1)
	*r = ranges
	return err
}

func parseRanges(text string, highest uint64) ([]network.IDRange, error) {
	var ranges []network.IDRange
	for _, item := range splitList(text) {
		first, last, ok := strings.Cut(item, ":")
		if !ok {
			return nil, fmt.Errorf("%q is not min:max", item)
		}
		r, err := parseRange(first, last, highest)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", item, err)
		}
		ranges = append(ranges, r)
	}
	return ranges, nil
}

func parseRange(first, last string, highest uint64) (network.IDRange, error) {
	lo, err := strconv.ParseUint(strings.TrimSpace(first), 10, 64)
	if err != nil {
		return network.IDRange{}, errors.New("the lower end is not a number")
	}
	hi, err := strconv.ParseUint(strings.TrimSpace(last), 10, 64)
	if err != nil {
		return network.IDRange{}, errors.New("the upper end is not a number")
	}
	if lo < 1 || hi > highest {
		return network.IDRange{}, fmt.Errorf("outside 1 to %d", highest)
	}
	if lo > hi {
		return network.IDRange{}, errors.New("the lower end is above the upper one")
	}
	return network.IDRange{First: uint32(lo), Last: uint32(hi)}, nil
}

// vlanRanges has the VLAN ids for tenants of each physical network,
// "physnet1:100:199,physnet2". A physical network without a range is known and
// used by hand only.
type vlanRanges map[string][]network.IDRange

func (*vlanRanges) typeName() string { return "list of name[:min:max]" }

// UnmarshalText implements encoding.TextUnmarshaler.
func (r *vlanRanges) UnmarshalText(text []byte) error {
	ranges := vlanRanges{}
	for _, item := range splitList(string(text)) {
		parts := strings.Split(item, ":")
		name := strings.TrimSpace(parts[0])
		if name == "" || len(parts) != 1 && len(parts) != 3 {
			return fmt.Errorf("%q is not physical_network or physical_network:min:max", item)
		}
		if len(parts) == 1 {
			ranges[name] = append(ranges[name], []network.IDRange{}...)
			continue
		}
		one, err := parseRange(parts[1], parts[2], 4094)
		if err != nil {
			return fmt.Errorf("%q: %w", item, err)
		}
		ranges[name] = append(ranges[name], one)
	}
	*r = ranges
	return nil
}

// unsupported is why a value that is right elsewhere can't be used here: in a
// file it is a warning and leaves the default, on the command line an error.
type unsupported string

// Error implements error.
func (u unsupported) Error() string { return string(u) }

const (
	errMySQL    = unsupported("MySQL is not supported: use PostgreSQL, postgresql://user:password@host/database")
	errInMemory = unsupported("a database in memory is not supported: use a file, sqlite:///path")
)

// databaseURL is sqlite:///path or postgresql://…
type databaseURL string

func (*databaseURL) typeName() string { return "URL" }

// UnmarshalText implements encoding.TextUnmarshaler. Errors don't repeat the
// URL: it holds a password.
func (d *databaseURL) UnmarshalText(text []byte) error {
	scheme, rest, ok := strings.Cut(string(text), "://")
	if !ok {
		return errors.New("not a database URL")
	}
	base, _, _ := strings.Cut(scheme, "+") // SQLAlchemy's dialect+driver
	switch base {
	case "mysql", "mariadb":
		return errMySQL
	case "sqlite":
		if rest == "" || rest == "/:memory:" {
			return errInMemory
		}
		if len(rest) < 2 || rest[0] != '/' {
			return errors.New("sqlite needs a file: sqlite:///path")
		}
	case "postgresql", "postgres":
		if _, err := url.Parse("postgresql://" + rest); err != nil {
			return errors.New("malformed PostgreSQL URL")
		}
		base = "postgresql"
	default:
		return fmt.Errorf("%q is not a database that is supported (sqlite, postgresql)", scheme)
	}
	*d = databaseURL(base + "://" + rest)
	return nil
}
