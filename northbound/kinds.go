package northbound

import (
	"cmp"
	"encoding/json"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"planck/network"
)

// kind is the type of an attribute: how a client's value is read and checked,
// how it is written, matched by a filter and sorted. A kind without match can't
// be filtered by, one without compare can't be sorted by.
type kind[V any] struct {
	// parse reads a decoded JSON value. A reason says what is wrong with it;
	// any other error goes to the client as it is.
	parse   func(v any) (V, error)
	write   func(b []byte, v V) []byte
	match   func(values []string) (func(V) bool, error)
	compare func(a, b V) int
	// clone is set for values that the model may complete in place.
	clone func(V) V
}

// reason says why a value is not valid: "Invalid input for name. Reason: …".
type reason string

// Error implements error.
func (r reason) Error() string { return string(r) }

// notValid makes a reason about a value.
func notValid(v any, what string) error { return reason("'" + show(v) + "' " + what) }

// Sizes of Neutron's database columns, in characters.
const (
	nameSize        = 255
	descriptionSize = 255
	projectSize     = 255
	deviceSize      = 255
)

// parseText is Neutron's type:string.
func parseText(v any, size int) (string, error) {
	s, ok := v.(string)
	if !ok || strings.ContainsRune(s, 0) || !utf8.ValidString(s) {
		return "", notValid(v, "is not a valid string")
	}
	if utf8.RuneCountInString(s) > size {
		return "", notValid(v, "exceeds maximum length of "+strconv.Itoa(size))
	}
	return s, nil
}

func textKind(parse func(any) (string, error)) kind[string] {
	return kind[string]{parse: parse, write: appendString, match: matchStrings, compare: cmp.Compare[string]}
}

// text is a string of at most size characters.
func text(size int) kind[string] {
	return textKind(func(v any) (string, error) { return parseText(v, size) })
}

// nameText is a string of printable characters without space at its ends (type:name_string).
func nameText(size int) kind[string] {
	return textKind(func(v any) (string, error) {
		s, err := parseText(v, size)
		if err != nil {
			return "", err
		}
		if strings.TrimSpace(s) != s || strings.ContainsFunc(s, unprintable) {
			return "", notValid(v, "is not a valid string")
		}
		return s, nil
	})
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) && !unicode.Is(unicode.Zs, r) }

// textOrNull is text where null means "".
func textOrNull(size int) kind[string] {
	return textKind(func(v any) (string, error) {
		if v == nil {
			return "", nil
		}
		return parseText(v, size)
	})
}

// oneOf is one of a few strings; "" is written as null.
func oneOf(values ...string) kind[string] {
	k := textKind(func(v any) (string, error) {
		s, ok := v.(string)
		if !ok || !slices.Contains(values, s) {
			return "", notValid(v, "is not in "+reprStrings(values))
		}
		return s, nil
	})
	k.write = appendStringOrNull
	return k
}

// nullable writes "" as null.
func nullable(k kind[string]) kind[string] {
	k.write = appendStringOrNull
	return k
}

// uuidKind is an id; a client may write it without dashes or in capitals.
var uuidKind = textKind(parseUUID)

// uuidOrNull is an id, or null for none.
var uuidOrNull = nullable(textKind(func(v any) (string, error) {
	if v == nil {
		return "", nil
	}
	return parseUUID(v)
}))

func parseUUID(v any) (string, error) {
	s, ok := v.(string)
	if !ok || len(s) > 45 {
		return "", notValid(v, "is not a valid UUID")
	}
	id, err := uuid.Parse(s)
	if err != nil {
		return "", notValid(v, "is not a valid UUID")
	}
	return id.String(), nil
}

func matchStrings(values []string) (func(string) bool, error) {
	if len(values) == 1 {
		only := values[0]
		return func(s string) bool { return s == only }, nil
	}
	set := make(map[string]bool, len(values))
	for _, v := range values {
		set[v] = true
	}
	return func(s string) bool { return set[s] }, nil
}

// matchParsed matches values that a filter writes in the form that parse reads.
func matchParsed[V comparable](parse func(any) (V, error)) func([]string) (func(V) bool, error) {
	return func(values []string) (func(V) bool, error) {
		set := make(map[V]bool, len(values))
		for _, text := range values {
			v, err := parse(text)
			if err != nil {
				return nil, err
			}
			set[v] = true
		}
		return func(v V) bool { return set[v] }, nil
	}
}

// matchValid is matchParsed where a value that can't be read matches nothing.
func matchValid[V comparable](parse func(any) (V, error)) func([]string) (func(V) bool, error) {
	return func(values []string) (func(V) bool, error) {
		set := make(map[V]bool, len(values))
		for _, text := range values {
			if v, err := parse(text); err == nil {
				set[v] = true
			}
		}
		return func(v V) bool { return set[v] }, nil
	}
}

var boolean = kind[bool]{
	parse:   parseBool,
	write:   strconv.AppendBool,
	match:   matchParsed(parseBool),
	compare: compareBools,
}

// parseBool is convert_to_boolean: JSON booleans and the words and numbers for them.
func parseBool(v any) (bool, error) {
	if b, ok := v.(bool); ok {
		return b, nil
	}
	if isScalar(v) {
		switch strings.ToLower(strings.TrimSpace(show(v))) {
		case "1", "t", "true", "on", "y", "yes":
			return true, nil
		case "0", "f", "false", "off", "n", "no":
			return false, nil
		}
	}
	return false, invalidInput("'%s' cannot be converted to boolean", show(v))
}

func isScalar(v any) bool {
	switch v.(type) {
	case string, json.Number:
		return true
	}
	return false
}

func compareBools(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// integer is a number in [low, high]; a client may write it as a string.
func integer(low, high int) kind[int] {
	return kind[int]{
		parse:   func(v any) (int, error) { return parseInt(v, low, high) },
		write:   appendInt,
		match:   matchParsed(func(v any) (int, error) { return parseInt(v, math.MinInt32, math.MaxUint32) }),
		compare: cmp.Compare[int],
	}
}

// parseInt is convert_to_int, which cuts fractions off as Python's int() does,
// and type:range.
func parseInt(v any, low, high int) (int, error) {
	n, err := convertInt(v)
	if err != nil {
		return 0, err
	}
	if n < float64(low) {
		return 0, notValid(v, "is too small - must be at least '"+strconv.Itoa(low)+"'")
	}
	if n > float64(high) {
		return 0, notValid(v, "is too large - must be no larger than '"+strconv.Itoa(high)+"'")
	}
	return int(n), nil
}

func convertInt(v any) (float64, error) {
	switch v := v.(type) {
	case bool:
		if v {
			return 1, nil
		}
		return 0, nil
	case json.Number:
		if n, err := strconv.ParseFloat(v.String(), 64); err == nil {
			return math.Trunc(n), nil
		}
	case string:
		if n, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64); err == nil {
			return float64(n), nil
		}
	}
	return 0, invalidInput("'%s' is not an integer", show(v))
}

var timestamp = kind[time.Time]{write: appendTime, compare: time.Time.Compare}

var macKind = kind[network.MAC]{
	parse:   parseMAC,
	write:   appendMAC,
	match:   matchValid(parseMAC),
	compare: func(a, b network.MAC) int { return slices.Compare(a[:], b[:]) },
}

// parseMAC reads the notations that Neutron takes: 12 hex digits with colons,
// dashes, dots or nothing between them.
func parseMAC(v any) (network.MAC, error) {
	s, _ := v.(string)
	mac, ok := readMAC(s)
	if !ok || mac == (network.MAC{}) || mac == (network.MAC{255, 255, 255, 255, 255, 255}) {
		return network.MAC{}, notValid(v, "is not a valid MAC address")
	}
	return mac, nil
}

func readMAC(s string) (network.MAC, bool) {
	var mac network.MAC
	var parts []string
	switch {
	case strings.Contains(s, ":"):
		parts = strings.Split(s, ":")
	case strings.Contains(s, "-"):
		parts = strings.Split(s, "-")
	default:
		digits := strings.ReplaceAll(s, ".", "")
		if len(digits) != 12 {
			return mac, false
		}
		for i := range 6 {
			parts = append(parts, digits[2*i:2*i+2])
		}
	}
	if len(parts) != 6 {
		return mac, false
	}
	for i, part := range parts {
		n, err := strconv.ParseUint(part, 16, 8)
		if err != nil || len(part) > 2 {
			return mac, false
		}
		mac[i] = byte(n)
	}
	return mac, true
}

// parseAddr is type:ip_address. IPv4-mapped addresses and zones are not addresses of a subnet.
func parseAddr(v any) (netip.Addr, error) {
	s, _ := v.(string)
	addr, err := netip.ParseAddr(s)
	if err != nil || addr.Zone() != "" || addr.Is4In6() {
		return netip.Addr{}, notValid(v, "is not a valid IP address")
	}
	return addr, nil
}

// addrOrNull is an address, or null for none.
var addrOrNull = kind[netip.Addr]{
	parse: func(v any) (netip.Addr, error) {
		if v == nil {
			return netip.Addr{}, nil
		}
		return parseAddr(v)
	},
	write:   appendAddr,
	match:   matchValid(parseAddr),
	compare: netip.Addr.Compare,
}

// cidr is a block of addresses; host bits are cut off.
var cidr = kind[netip.Prefix]{
	parse:   parseCIDR,
	write:   appendPrefix,
	match:   matchParsed(parseCIDR),
	compare: comparePrefixes,
}

func parseCIDR(v any) (netip.Prefix, error) {
	s, _ := v.(string)
	if p, err := netip.ParsePrefix(s); err == nil {
		return p.Masked(), nil
	}
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	return netip.Prefix{}, invalidInput("%s is not in a CIDR format", show(v))
}

func comparePrefixes(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

// dict is a dictionary of free form; null is the empty one.
func dict(size int) kind[map[string]any] {
	return kind[map[string]any]{
		parse: func(v any) (map[string]any, error) {
			if v == nil {
				return map[string]any{}, nil
			}
			m, ok := v.(map[string]any)
			if !ok {
				return nil, notValid(v, "is not a dictionary")
			}
			if len(appendDict(nil, m)) > size {
				return nil, notValid(v, "exceeds maximum length of "+strconv.Itoa(size))
			}
			clean, ok := storable(m)
			if !ok {
				return nil, notValid(v, "holds a number or a character that can't be stored")
			}
			return clean.(map[string]any), nil
		},
		write: appendDict,
	}
}

// storable copies a decoded JSON value with numbers as int64 or float64. It
// refuses what does not survive a database: numbers out of range, NUL characters.
func storable(v any) (any, bool) {
	switch v := v.(type) {
	case string:
		return v, !strings.ContainsRune(v, 0)
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n, true
		}
		f, err := v.Float64()
		if f == math.Trunc(f) && math.Abs(f) < 1<<63 {
			return int64(f), err == nil // as it is written, and read back
		}
		return f, err == nil
	case []any:
		list := make([]any, len(v))
		for i, item := range v {
			clean, ok := storable(item)
			if !ok {
				return nil, false
			}
			list[i] = clean
		}
		return list, true
	case map[string]any:
		m := make(map[string]any, len(v))
		for key, item := range v {
			clean, ok := storable(item)
			if !ok || strings.ContainsRune(key, 0) {
				return nil, false
			}
			m[key] = clean
		}
		return m, true
	}
	return v, true
}

// listOf is a list; null is the empty one. Each item is read by item.
func listOf[V any](notList string, item func(any) (V, error), write func([]byte, V) []byte) kind[[]V] {
	return kind[[]V]{
		parse: func(v any) ([]V, error) {
			if v == nil {
				return []V{}, nil
			}
			raw, ok := v.([]any)
			if !ok {
				return nil, reason(strings.ReplaceAll(notList, "%s", show(v)))
			}
			list := make([]V, 0, len(raw))
			for _, r := range raw {
				value, err := item(r)
				if err != nil {
					return nil, err
				}
				list = append(list, value)
			}
			return list, nil
		},
		write: func(b []byte, list []V) []byte { return appendList(b, list, write) },
		clone: slices.Clone[[]V],
	}
}

// unique makes a list refuse what is in it twice.
func unique[V comparable](k kind[[]V], duplicate func(V) string) kind[[]V] {
	parse := k.parse
	k.parse = func(v any) ([]V, error) {
		list, err := parse(v)
		if err != nil {
			return nil, err
		}
		seen := make(map[V]bool, len(list))
		for _, item := range list {
			if seen[item] {
				return nil, reason(duplicate(item))
			}
			seen[item] = true
		}
		return list, nil
	}
	return k
}

// notNull makes null an error where the kind would take it for an empty value.
func notNull[V any](k kind[V], message string) kind[V] {
	parse := k.parse
	k.parse = func(v any) (V, error) {
		if v == nil {
			var zero V
			return zero, reason(strings.ReplaceAll(message, "%s", show(v)))
		}
		return parse(v)
	}
	return k
}

// stringsKind is a list of different strings (type:list_of_unique_strings).
func stringsKind(size int) kind[[]string] {
	k := listOf("'%s' is not a list", func(v any) (string, error) { return parseText(v, size) }, appendString)
	k = unique(k, func(s string) string { return "Duplicate items in the list: '" + clip(s) + "'" })
	return notNull(k, "'%s' is not a list")
}

// dictOf reads a dictionary with exactly the given keys.
func dictOf(v any, keys ...string) (map[string]any, error) {
	m, ok := v.(map[string]any)
	if !ok {
		return nil, reason("Invalid input. '" + show(v) + "' must be a dictionary with keys: " + reprStrings(keys))
	}
	same := len(m) == len(keys)
	for _, k := range keys {
		_, has := m[k]
		same = same && has
	}
	if !same {
		return nil, reason("Validation of dictionary's keys failed. Expected keys: " + reprStrings(keys) +
			" Provided keys: " + reprStrings(sortedKeys(m)))
	}
	return m, nil
}
