package flows

import (
	"fmt"
	"net/netip"
)

// Action types of OpenFlow 1.3.
const (
	actionOutput       = 0
	actionPushVLAN     = 17
	actionPopVLAN      = 18
	actionSetQueue     = 21
	actionGroup        = 22
	actionDecTTL       = 24
	actionSetField     = 25
	actionExperimenter = 0xffff
)

// Nicira's action subtypes.
const (
	nxMove          = 6
	nxLoad          = 7
	nxResubmitTable = 14
	nxOutputReg     = 15
	nxLoad2         = 33
	nxConjunction   = 34
	nxCT            = 35
	nxNAT           = 36
	nxClone         = 42
	nxCTClear       = 43
	nxCheckLarger   = 49
)

// Instruction types.
const (
	instructionGoto          = 1
	instructionWriteMetadata = 2
	instructionWriteActions  = 3
	instructionApplyActions  = 4
	instructionClearActions  = 5
	instructionMeter         = 6
)

const (
	ctCommit = 1
	ctForce  = 2

	natSrc        = 1
	natDst        = 2
	natPersistent = 4
	natHash       = 8
	natRandom     = 16

	natHasIPv4First = 1
	natHasIPv4Last  = 2
	natHasIPv6First = 4
	natHasIPv6Last  = 8
	natHasFirstPort = 16
	natHasLastPort  = 32
)

// Instructions is what a flow does with its packets. It may be compared. The
// zero Instructions drops them.
type Instructions struct{ raw string }

// maxInstructions keeps a flow within one message, in a bundle too.
const maxInstructions = 60000

// Do makes Instructions of actions in the order in which they are done; Meter,
// WriteMetadata and Goto may stand anywhere among them. Do() drops. It panics on
// what can only be a mistake in the program.
func Do(actions ...Action) Instructions {
	i, err := newInstructions(actions)
	if err != nil {
		panic("flows: " + err.Error())
	}
	return i
}

// Interner makes Instructions of which equal ones share their memory: there are
// few different ones, and many flows. It is for one goroutine. A nil Interner
// shares nothing.
type Interner struct {
	known  map[string]Instructions
	buffer []byte
}

// maxInterned bounds what an Interner keeps though nobody may use it any more.
const maxInterned = 1 << 16

// Do is as the function Do.
func (n *Interner) Do(actions ...Action) Instructions {
	if n == nil {
		return Do(actions...)
	}
	whole, b, err := appendInstructions(n.buffer[:0], actions)
	if err != nil {
		panic("flows: " + err.Error())
	}
	n.buffer = whole
	if i, ok := n.known[string(b)]; ok {
		return i
	}
	if n.known == nil || len(n.known) >= maxInterned {
		n.known = make(map[string]Instructions)
	}
	i := Instructions{string(b)}
	n.known[i.raw] = i
	return i
}

func newInstructions(actions []Action) (Instructions, error) {
	_, b, err := appendInstructions(make([]byte, 0, 256), actions)
	return Instructions{string(b)}, err
}

// appendInstructions encodes into an empty buffer. The instructions are the end
// of what it returns whole.
func appendInstructions(b []byte, actions []Action) (whole, instructions []byte, err error) {
	var special [KindUnknownInstruction + 1]*Action
	b = append(b, 0, instructionApplyActions, 0, 0, 0, 0, 0, 0)
	for i := range actions {
		a := &actions[i]
		if a.kind < KindMeter {
			if b, err = appendChecked(b, a); err != nil {
				return nil, nil, err
			}
			continue
		}
		if special[a.kind] != nil {
			return nil, nil, fmt.Errorf("two instructions %s", *a)
		}
		special[a.kind] = a
	}
	be.PutUint16(b[2:], uint16(len(b)))
	apply := len(b)
	if meter := special[KindMeter]; meter != nil {
		b = appendInstruction(b, meter)
	}
	if apply > 8 {
		b = append(b, b[:apply]...)
	}
	for kind := KindClearActions; kind <= KindUnknownInstruction; kind++ {
		if a := special[kind]; a != nil {
			b = appendInstruction(b, a)
		}
	}
	if len(b)-apply > maxInstructions {
		return nil, nil, fmt.Errorf("%d bytes of actions are too many for a flow", len(b)-apply)
	}
	return b, b[apply:], nil
}

// ActionList encodes actions for packet-outs. It panics on what can only be a
// mistake in the program, such as a Goto, which is no action.
func ActionList(actions ...Action) string {
	var buf [512]byte
	b, err := appendActions(buf[:0], actions)
	if err != nil {
		panic("flows: " + err.Error())
	}
	return string(b)
}

func appendActions(b []byte, actions []Action) ([]byte, error) {
	for i := range actions {
		var err error
		if b, err = appendChecked(b, &actions[i]); err != nil {
			return b, err
		}
	}
	return b, nil
}

func appendChecked(b []byte, a *Action) ([]byte, error) {
	if a.kind >= KindMeter {
		return b, fmt.Errorf("%s is an instruction: not within other actions", *a)
	}
	if err := a.check(); err != nil {
		return b, err
	}
	start := len(b)
	b, err := appendAction(b, a)
	if err == nil && len(b)-start > maxInstructions {
		err = fmt.Errorf("%d bytes are too many for an action", len(b)-start)
	}
	return b, err
}

// appendAction writes an action that was checked. Its error is one of a nested
// action.
func appendAction(b []byte, a *Action) ([]byte, error) {
	start := len(b)
	switch a.kind {
	case KindUnknown:
		return append(b, a.raw...), nil
	case KindOutput:
		b = append(b, 0, actionOutput, 0, 16)
		b = be.AppendUint32(b, a.id)
		b = be.AppendUint16(b, a.n)
		return append(b, 0, 0, 0, 0, 0, 0), nil
	case KindGroup:
		return appendSmall(b, actionGroup, a.id), nil
	case KindSetQueue:
		return appendSmall(b, actionSetQueue, a.id), nil
	case KindPushVLAN:
		return appendSmall(b, actionPushVLAN, uint32(a.n)<<16), nil
	case KindPopVLAN:
		return appendSmall(b, actionPopVLAN, 0), nil
	case KindDecTTL:
		return appendSmall(b, actionDecTTL, 0), nil
	case KindSetField:
		return appendSetField(b, a), nil
	case KindLoad:
		b = appendNicira(b, nxLoad)
		b = be.AppendUint16(b, a.off<<6|(a.bits-1))
		b = appendHeader(b, a.field)
		b = be.AppendUint64(b, a.value.Lo)
	case KindOutputReg:
		b = appendNicira(b, nxOutputReg)
		b = be.AppendUint16(b, a.off<<6|(a.bits-1))
		b = appendHeader(b, a.field)
		b = append(be.AppendUint16(b, a.n), 0, 0, 0, 0, 0, 0)
	case KindMove:
		b = appendNicira(b, nxMove)
		b = be.AppendUint16(b, a.bits)
		b = be.AppendUint16(b, a.srcOff)
		b = be.AppendUint16(b, a.off)
		b = appendHeader(b, a.src)
		b = appendHeader(b, a.field)
	case KindResubmit:
		b = appendNicira(b, nxResubmitTable)
		b = be.AppendUint16(b, uint16(a.id))
		b = append(b, a.table, 0, 0, 0)
	case KindConjunction:
		b = appendNicira(b, nxConjunction)
		b = append(b, byte(a.n>>8)-1, byte(a.n))
		b = be.AppendUint32(b, a.id)
	case KindCheckPktLarger:
		b = appendNicira(b, nxCheckLarger)
		b = be.AppendUint16(b, a.n)
		b = be.AppendUint16(b, a.off)
		b = appendHeader(b, a.field)
	case KindCTClear:
		b = append(appendNicira(b, nxCTClear), 0, 0, 0, 0, 0, 0)
	case KindNAT:
		b = appendNAT(b, a.nat)
	case KindClone:
		var err error
		b = append(appendNicira(b, nxClone), 0, 0, 0, 0, 0, 0)
		if b, err = appendActions(b, a.nested); err != nil {
			return b, err
		}
	case KindCT:
		var err error
		if b, err = appendCT(b, a); err != nil {
			return b, err
		}
	}
	return closeAction(b, start), nil
}

func appendSmall(b []byte, typ byte, v uint32) []byte {
	return be.AppendUint32(append(b, 0, typ, 0, 8), v)
}

// appendNicira begins an action whose length closeAction writes.
func appendNicira(b []byte, subtype byte) []byte {
	return append(b, 0xff, 0xff, 0, 0, 0, 0, experimenterNicira>>8, experimenterNicira&0xff, 0, subtype)
}

func closeAction(b []byte, start int) []byte {
	b = pad8(b, start)
	be.PutUint16(b[start+2:], uint16(len(b)-start))
	return b
}

// pad8 adds zeros up to a multiple of 8 bytes from start on.
func pad8(b []byte, start int) []byte {
	for (len(b)-start)%8 != 0 {
		b = append(b, 0)
	}
	return b
}

// appendHeader writes the field as in move, load, output and ct.
func appendHeader(b []byte, f Field) []byte {
	return appendTLVHeader(b, fields[f].action, false, f.bytes())
}

// appendSetField: OpenFlow 1.3 sets whole fields only, Open vSwitch's load2 the rest.
func appendSetField(b []byte, a *Action) []byte {
	start := len(b)
	if a.mask == ones(a.field.Bits()) {
		b = append(b, 0, actionSetField, 0, 0)
		b = appendOXM(b, a.field, a.value, a.mask)
		return closeAction(b, start)
	}
	b = appendNicira(b, nxLoad2)
	b = appendTLV(b, fields[a.field].action, a.field, a.value, a.mask)
	return closeAction(b, start)
}

func appendCT(b []byte, a *Action) ([]byte, error) {
	c := a.ct
	var flags uint16
	if c.Commit {
		flags |= ctCommit
	}
	if c.Force {
		flags |= ctForce
	}
	b = be.AppendUint16(appendNicira(b, nxCT), flags)
	if a.field != 0 {
		b = appendHeader(b, a.field)
		b = be.AppendUint16(b, a.off<<6|(a.bits-1))
	} else {
		b = be.AppendUint16(append(b, 0, 0, 0, 0), c.Zone)
	}
	b = append(b, a.table, 0, 0, 0)
	b = be.AppendUint16(b, c.ALG)
	if c.NAT != nil {
		nat := Action{kind: KindNAT, nat: c.NAT}
		var err error
		if b, err = appendAction(b, &nat); err != nil {
			return b, err
		}
	}
	return appendActions(b, c.Nested)
}

func appendNAT(b []byte, n *NAT) []byte {
	var flags, has uint16
	for _, f := range []struct {
		set bool
		bit uint16
	}{{n.Src, natSrc}, {n.Dst, natDst}, {n.Persistent, natPersistent}, {n.Hash, natHash}, {n.Random, natRandom}} {
		if f.set {
			flags |= f.bit
		}
	}
	b = be.AppendUint16(append(appendNicira(b, nxNAT), 0, 0), flags)
	at := len(b)
	b = append(b, 0, 0)
	appendAddress := func(a netip.Addr, has4, has6 uint16) {
		if !a.IsValid() {
			return
		}
		has |= has6
		if a.Is4() {
			has ^= has6 ^ has4
		}
		b = append(b, a.AsSlice()...)
	}
	appendPort := func(p, bit uint16) {
		if p != 0 {
			has |= bit
			b = be.AppendUint16(b, p)
		}
	}
	appendAddress(n.First, natHasIPv4First, natHasIPv6First)
	appendAddress(n.Last, natHasIPv4Last, natHasIPv6Last)
	appendPort(n.FirstPort, natHasFirstPort)
	appendPort(n.LastPort, natHasLastPort)
	be.PutUint16(b[at:], has)
	return b
}

// appendInstruction writes one of the kinds from KindMeter on.
func appendInstruction(b []byte, a *Action) []byte {
	switch a.kind {
	case KindMeter:
		return be.AppendUint32(append(b, 0, instructionMeter, 0, 8), a.id)
	case KindClearActions:
		return append(b, 0, instructionClearActions, 0, 8, 0, 0, 0, 0)
	case KindGoto:
		return append(b, 0, instructionGoto, 0, 8, a.table, 0, 0, 0)
	case KindWriteMetadata:
		b = append(b, 0, instructionWriteMetadata, 0, 24, 0, 0, 0, 0)
		b = be.AppendUint64(b, a.value.Lo)
		return be.AppendUint64(b, a.mask.Lo)
	default:
		return append(b, a.raw...)
	}
}
