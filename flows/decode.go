package flows

import (
	"bytes"
	"fmt"
	"time"
)

// All Decode functions take a message's body, which is what comes behind the
// header of 8 bytes; those for multipart replies take Multipart.Body. They never
// panic, and return an error if the body is not of the right form to the last
// byte. What they return does not alias the body unless they say so.

// HeaderSize is the size of every message's header.
const HeaderSize = 8

// Header begins every message.
type Header struct {
	Version uint8
	Type    uint8
	Length  uint16 // of the message, at least HeaderSize
	XID     uint32
}

// DecodeHeader reads the header at the start of b.
func DecodeHeader(b []byte) (Header, error) {
	if len(b) < HeaderSize {
		return Header{}, fmt.Errorf("message of %d bytes is shorter than a header", len(b))
	}
	h := Header{b[0], b[1], be.Uint16(b[2:]), be.Uint32(b[4:])}
	if h.Length < HeaderSize {
		return h, fmt.Errorf("message type %d with a length of %d bytes", h.Type, h.Length)
	}
	return h, nil
}

func short(what string, body []byte, want int) error {
	return fmt.Errorf("%s of %d bytes, want %d", what, len(body), want)
}

// DecodeHello returns the versions that the peer lists, bit n for version n; 0 if
// it lists none and the header's version counts.
func DecodeHello(body []byte) (versions uint32, err error) {
	for len(body) > 0 {
		if len(body) < 4 {
			return 0, short("hello element", body, 4)
		}
		n := int(be.Uint16(body[2:]))
		if n < 4 || n > len(body) {
			return 0, fmt.Errorf("hello element says %d of %d bytes", n, len(body))
		}
		if be.Uint16(body) == 1 && n >= 8 {
			versions = be.Uint32(body[4:])
		}
		body = body[min((n+7)&^7, len(body)):]
	}
	return versions, nil
}

// ErrorMessage is OFPT_ERROR.
type ErrorMessage struct {
	Type uint16
	Code uint16
	// Experimenter is set with type 0xffff; Code is its exp_type then.
	Experimenter uint32
	Data         []byte // start of the message in question; aliases the body
}

// DecodeError reads an error message.
func DecodeError(body []byte) (ErrorMessage, error) {
	if len(body) < 4 {
		return ErrorMessage{}, short("error", body, 4)
	}
	e := ErrorMessage{Type: be.Uint16(body), Code: be.Uint16(body[2:]), Data: body[4:]}
	if e.Type != 0xffff {
		return e, nil
	}
	if len(body) < 8 {
		return ErrorMessage{}, short("experimenter error", body, 8)
	}
	e.Experimenter, e.Data = be.Uint32(body[4:]), body[8:]
	return e, nil
}

// Features is OFPT_FEATURES_REPLY.
type Features struct {
	DatapathID   uint64
	Buffers      uint32
	Tables       uint8
	AuxiliaryID  uint8
	Capabilities uint32
}

// DecodeFeatures reads a features reply.
func DecodeFeatures(body []byte) (Features, error) {
	if len(body) != 24 {
		return Features{}, short("features reply", body, 24)
	}
	return Features{be.Uint64(body), be.Uint32(body[8:]), body[12], body[13], be.Uint32(body[16:])}, nil
}

// DecodeRole reads a role reply.
func DecodeRole(body []byte) (role uint32, generation uint64, err error) {
	if len(body) != 16 {
		return 0, 0, short("role reply", body, 16)
	}
	return be.Uint32(body), be.Uint64(body[8:]), nil
}

// BundleControl is a bundle control message.
type BundleControl struct {
	ID    uint32
	Type  uint16 // BundleOpen + 1 …
	Flags uint16
}

// DecodeBundleControl reads an experimenter message, which must be a bundle
// control message of the ONF.
func DecodeBundleControl(body []byte) (BundleControl, error) {
	if len(body) < 16 {
		return BundleControl{}, short("bundle control", body, 16)
	}
	if e, t := be.Uint32(body), be.Uint32(body[4:]); e != experimenterONF || t != experimenterBundleControl {
		return BundleControl{}, fmt.Errorf("experimenter message %#x/%d is no bundle control", e, t)
	}
	return BundleControl{be.Uint32(body[8:]), be.Uint16(body[12:]), be.Uint16(body[14:])}, nil
}

// Multipart is one part of a multipart reply.
type Multipart struct {
	Type uint16
	More bool   // more parts follow
	Body []byte // aliases the message
}

// DecodeMultipart reads the frame of a multipart reply.
func DecodeMultipart(body []byte) (Multipart, error) {
	if len(body) < 8 {
		return Multipart{}, short("multipart reply", body, 8)
	}
	return Multipart{be.Uint16(body), be.Uint16(body[2:])&1 != 0, body[8:]}, nil
}

// FlowStats is a flow of a dump.
type FlowStats struct {
	Flow
	Packets  uint64
	Bytes    uint64
	Duration time.Duration // since the flow was added
}

// DecodeFlowStats reads the flows in a part of a flow stats reply.
func DecodeFlowStats(body []byte) ([]FlowStats, error) {
	var all []FlowStats
	for len(body) > 0 {
		entry, rest, err := cutEntry("flow stats", body, 0, 56)
		if err != nil {
			return nil, err
		}
		f, err := decodeFlowStats(entry)
		if err != nil {
			return nil, fmt.Errorf("flow %d of a dump: %w", len(all), err)
		}
		all = append(all, f)
		body = rest
	}
	return all, nil
}

// cutEntry cuts the first of a list of entries, which has its length at an offset.
func cutEntry(what string, b []byte, lengthAt, least int) (entry, rest []byte, err error) {
	if len(b) < least {
		return nil, nil, short(what, b, least)
	}
	n := int(be.Uint16(b[lengthAt:]))
	if n < least || n > len(b) {
		return nil, nil, fmt.Errorf("%s says %d of %d bytes, at least %d", what, n, len(b), least)
	}
	return b[:n], b[n:], nil
}

func decodeFlowStats(b []byte) (FlowStats, error) {
	f := FlowStats{
		Flow: Flow{
			Table:       b[2],
			Priority:    be.Uint16(b[12:]),
			IdleTimeout: be.Uint16(b[14:]),
			HardTimeout: be.Uint16(b[16:]),
			Flags:       be.Uint16(b[18:]),
			Cookie:      be.Uint64(b[24:]),
		},
		Duration: duration(b[4:]),
		Packets:  be.Uint64(b[32:]),
		Bytes:    be.Uint64(b[40:]),
	}
	oxm, instructions, err := cutMatch(b[48:])
	if err != nil {
		return f, err
	}
	if err := checkInstructions(instructions); err != nil {
		return f, err
	}
	// One string for both: half the allocations of a dump.
	s := string(b[52:])
	f.Match = canonicalMatch(s[:len(oxm)])
	f.Instructions = Instructions{s[len(s)-len(instructions):]}
	return f, nil
}

func duration(b []byte) time.Duration {
	return time.Duration(be.Uint32(b))*time.Second + time.Duration(be.Uint32(b[4:]))
}

// cutMatch cuts a match and its padding and checks the form of its fields.
func cutMatch(b []byte) (oxm, rest []byte, err error) {
	if len(b) < 8 {
		return nil, nil, short("match", b, 8)
	}
	n := int(be.Uint16(b[2:]))
	padded := (n + 7) &^ 7
	if be.Uint16(b) != 1 || n < 4 || padded > len(b) {
		return nil, nil, fmt.Errorf("match of type %d says %d of %d bytes", be.Uint16(b), n, len(b))
	}
	return b[4:n], b[padded:], checkTLVs(b[4:n])
}

func checkTLVs(b []byte) error {
	for len(b) > 0 {
		e, ok := readTLV(b)
		if !ok {
			return fmt.Errorf("match with a malformed field %x", b[:min(len(b), 8)])
		}
		b = b[e.size:]
	}
	return nil
}

// canonicalMatch takes a match as it is if it is canonical, as those of Open
// vSwitch are, or has a field that we don't know.
func canonicalMatch(oxm string) Match {
	var last Field
	sorted := true
	for rest := oxm; rest != ""; {
		e, ok := readTLV(rest)
		if !ok || e.field == 0 {
			return Match{oxm}
		}
		sorted = sorted && e.field > last && e.canonical()
		last, rest = e.field, rest[e.size:]
	}
	if sorted {
		return Match{oxm}
	}
	var terms []Term
	for t := range (Match{oxm}).Terms() {
		terms = append(terms, t)
	}
	m, err := newMatch(terms)
	if err != nil {
		return Match{oxm}
	}
	return m
}

// canonical tells that newMatch would write the field in the same way, whatever
// else is in the match.
func (e element) canonical() bool {
	all := ones(e.field.Bits())
	switch {
	case e.tlv != fields[e.field].match || e.field == VLANPCP || e.field >= XXReg0:
		return false
	case e.field == CtState:
		return e.masked && e.mask.andNot(ones(ctStateBits)).isZero() && e.value.andNot(e.mask).isZero()
	case e.masked:
		return e.mask != all && !e.mask.isZero() && e.value.andNot(e.mask).isZero()
	}
	return true
}

func checkInstructions(b []byte) error {
	for len(b) > 0 {
		one, rest, err := cutEntry("instruction", b, 2, 8)
		if err != nil {
			return err
		}
		if t := be.Uint16(one); t == instructionApplyActions || t == instructionWriteActions {
			if err := checkActions(one[8:]); err != nil {
				return err
			}
		}
		b = rest
	}
	return nil
}

func checkActions(b []byte) error {
	for len(b) > 0 {
		one, rest, err := cutEntry("action", b, 2, 8)
		if err != nil {
			return err
		}
		if len(one)%8 != 0 {
			return fmt.Errorf("action of type %d with %d bytes, not a multiple of 8", be.Uint16(one), len(one))
		}
		b = rest
	}
	return nil
}

// DecodeGroupDesc reads the groups in a part of a group description reply.
func DecodeGroupDesc(body []byte) ([]Group, error) {
	var all []Group
	for len(body) > 0 {
		entry, rest, err := cutEntry("group description", body, 0, 8)
		if err != nil {
			return nil, err
		}
		g := Group{ID: be.Uint32(entry[4:]), Type: entry[2], Buckets: string(entry[8:])}
		if err := checkBuckets(entry[8:]); err != nil {
			return nil, fmt.Errorf("group %d: %w", g.ID, err)
		}
		all = append(all, g)
		body = rest
	}
	return all, nil
}

func checkBuckets(b []byte) error {
	for len(b) > 0 {
		one, rest, err := cutEntry("bucket", b, 0, 16)
		if err != nil {
			return err
		}
		if err := checkActions(one[16:]); err != nil {
			return err
		}
		b = rest
	}
	return nil
}

// DecodeMeterConfig reads the meters in a part of a meter configuration reply.
func DecodeMeterConfig(body []byte) ([]Meter, error) {
	var all []Meter
	for len(body) > 0 {
		entry, rest, err := cutEntry("meter configuration", body, 0, 8)
		if err != nil {
			return nil, err
		}
		m := Meter{ID: be.Uint32(entry[4:]), Flags: be.Uint16(entry[2:]), Bands: string(entry[8:])}
		for bands := entry[8:]; len(bands) > 0; {
			if _, bands, err = cutEntry("meter band", bands, 2, 16); err != nil {
				return nil, fmt.Errorf("meter %d: %w", m.ID, err)
			}
		}
		all = append(all, m)
		body = rest
	}
	return all, nil
}

// TableStats is a table of a table stats reply.
type TableStats struct {
	Table   uint8
	Active  uint32 // flows
	Lookups uint64
	Matched uint64
}

// DecodeTableStats reads the tables in a part of a table stats reply.
func DecodeTableStats(body []byte) ([]TableStats, error) {
	const size = 24
	if len(body)%size != 0 {
		return nil, fmt.Errorf("table stats of %d bytes, not a multiple of %d", len(body), size)
	}
	all := make([]TableStats, 0, len(body)/size)
	for ; len(body) > 0; body = body[size:] {
		all = append(all, TableStats{body[0], be.Uint32(body[4:]), be.Uint64(body[8:]), be.Uint64(body[16:])})
	}
	return all, nil
}

// Bits of Port.Config and Port.State.
const (
	PortConfigDown uint32 = 1
	PortStateDown  uint32 = 1 // no link
)

// Port is a port of the switch.
type Port struct {
	Number uint32
	MAC    [6]byte
	Name   string
	Config uint32
	State  uint32
}

const portSize = 64

// DecodePortDesc reads the ports in a part of a port description reply.
func DecodePortDesc(body []byte) ([]Port, error) {
	if len(body)%portSize != 0 {
		return nil, fmt.Errorf("port description of %d bytes, not a multiple of %d", len(body), portSize)
	}
	all := make([]Port, 0, len(body)/portSize)
	for ; len(body) > 0; body = body[portSize:] {
		all = append(all, decodePort(body))
	}
	return all, nil
}

func decodePort(b []byte) Port {
	name, _, _ := bytes.Cut(b[16:32], []byte{0})
	return Port{be.Uint32(b), [6]byte(b[8:14]), string(name), be.Uint32(b[32:]), be.Uint32(b[36:])}
}

// Reasons of a PortStatus.
const (
	PortAdded    uint8 = 0
	PortDeleted  uint8 = 1
	PortModified uint8 = 2
)

// PortStatus is OFPT_PORT_STATUS.
type PortStatus struct {
	Reason uint8
	Port   Port
}

// DecodePortStatus reads a port status message.
func DecodePortStatus(body []byte) (PortStatus, error) {
	if len(body) != 8+portSize {
		return PortStatus{}, short("port status", body, 8+portSize)
	}
	return PortStatus{body[0], decodePort(body[8:])}, nil
}

// Reasons of a PacketIn.
const (
	ReasonNoMatch uint8 = 0
	ReasonAction  uint8 = 1
)

// PacketIn is OFPT_PACKET_IN, with the pipeline's fields as they were when the
// packet was sent to the controller. Those that the switch left out are 0.
type PacketIn struct {
	Reason   uint8
	Table    uint8
	TotalLen uint16
	Cookie   uint64
	InPort   uint32
	Metadata uint64
	TunnelID uint64
	PktMark  uint32
	Regs     [16]uint32
	Data     []byte // the packet, maybe cut; aliases the body
}

// DecodePacketIn reads a packet-in into p, which may have been used before. It
// allocates nothing.
func DecodePacketIn(body []byte, p *PacketIn) error {
	*p = PacketIn{}
	if len(body) < 16 {
		return short("packet-in", body, 16)
	}
	oxm, rest, err := cutMatch(body[16:])
	if err != nil {
		return fmt.Errorf("packet-in: %w", err)
	}
	if len(rest) < 2 {
		return short("packet-in behind the match", rest, 2)
	}
	p.TotalLen, p.Reason, p.Table = be.Uint16(body[4:]), body[6], body[7]
	p.Cookie, p.Data = be.Uint64(body[8:]), rest[2:]
	for len(oxm) > 0 {
		e, _ := readTLV(oxm)
		oxm = oxm[e.size:]
		p.set(e.field, e.value.Lo)
	}
	return nil
}

func (p *PacketIn) set(f Field, v uint64) {
	switch {
	case f == InPort:
		p.InPort = uint32(v)
	case f == Metadata:
		p.Metadata = v
	case f == TunnelID:
		p.TunnelID = v
	case f == PktMark:
		p.PktMark = uint32(v)
	case f >= Reg0 && f <= Reg15:
		p.Regs[f-Reg0] = uint32(v)
	}
}

// Reasons of a FlowRemoved.
const (
	RemovedIdle   uint8 = 0
	RemovedHard   uint8 = 1
	RemovedDelete uint8 = 2
	RemovedGroup  uint8 = 3
)

// FlowRemoved is OFPT_FLOW_REMOVED: a flow with SendFlowRem is gone. Its
// instructions are not told.
type FlowRemoved struct {
	FlowStats
	Reason uint8
}

// DecodeFlowRemoved reads a flow-removed message.
func DecodeFlowRemoved(body []byte) (FlowRemoved, error) {
	if len(body) < 40 {
		return FlowRemoved{}, short("flow-removed", body, 40)
	}
	oxm, rest, err := cutMatch(body[40:])
	if err != nil {
		return FlowRemoved{}, fmt.Errorf("flow-removed: %w", err)
	}
	if len(rest) != 0 {
		return FlowRemoved{}, fmt.Errorf("flow-removed with %d bytes behind the match", len(rest))
	}
	r := FlowRemoved{Reason: body[10]}
	r.Cookie, r.Priority, r.Table = be.Uint64(body), be.Uint16(body[8:]), body[11]
	r.Duration = duration(body[12:])
	r.IdleTimeout, r.HardTimeout = be.Uint16(body[20:]), be.Uint16(body[22:])
	r.Packets, r.Bytes = be.Uint64(body[24:]), be.Uint64(body[32:])
	r.Match = canonicalMatch(string(oxm))
	return r, nil
}
