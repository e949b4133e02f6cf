package flows

import "net/netip"

// Actions are the actions and instructions, in the order in which ovs-ofctl
// prints them.
func (i Instructions) Actions() []Action {
	var all []Action
	for rest := i.raw; len(rest) >= 4; {
		n := int(rest[2])<<8 | int(rest[3])
		if n < 4 || n > len(rest) {
			break
		}
		all = append(all, readInstruction(rest[:n])...)
		rest = rest[n:]
	}
	return all
}

// readInstruction reads what it knows; the rest is kept as bytes.
func readInstruction(raw string) []Action {
	unknown := []Action{{kind: KindUnknownInstruction, raw: raw}}
	if len(raw) < 8 {
		return unknown
	}
	var a Action
	switch valueOf(raw[:2]).Lo {
	case instructionApplyActions:
		return readActions(raw[8:])
	case instructionWriteActions:
		if raw[4:8] != "\x00\x00\x00\x00" {
			return unknown
		}
		return []Action{{kind: KindWriteActions, nested: readActions(raw[8:]), raw: raw}}
	case instructionClearActions:
		a = Action{kind: KindClearActions}
	case instructionMeter:
		a = Action{kind: KindMeter, id: uint32(valueOf(raw[4:8]).Lo)}
	case instructionGoto:
		a = Goto(raw[4])
	case instructionWriteMetadata:
		if len(raw) < 24 {
			return unknown
		}
		a = WriteMetadata(valueOf(raw[8:16]).Lo, valueOf(raw[16:24]).Lo)
	default:
		return unknown
	}
	if string(appendInstruction(nil, &a)) != raw {
		return unknown
	}
	return []Action{a}
}

// readActions reads a list of actions that came from NewInstructions or was
// checked by the decoder.
func readActions(raw string) []Action {
	var all []Action
	for len(raw) >= 4 {
		n := int(raw[2])<<8 | int(raw[3])
		if n < 8 || n > len(raw) {
			break
		}
		all = append(all, readAction(raw[:n]))
		raw = raw[n:]
	}
	if raw != "" {
		all = append(all, Action{kind: KindUnknown, raw: raw})
	}
	return all
}

// readAction reads an action. One that would not be encoded to the same bytes is
// unknown, so that nothing is ever lost.
func readAction(raw string) Action {
	unknown := Action{kind: KindUnknown, raw: raw}
	a := parseAction(raw)
	if a.kind == KindUnknown || a.kind == KindNone || a.check() != nil {
		return unknown
	}
	again, err := appendAction(nil, &a)
	if err != nil || string(again) != raw {
		return unknown
	}
	return a
}

func parseAction(raw string) Action {
	body := raw[4:]
	v := uint32(valueOf(body[:4]).Lo)
	switch valueOf(raw[:2]).Lo {
	case actionOutput:
		return Action{kind: KindOutput, id: v, n: uint16At(body, 4)}
	case actionGroup:
		return ToGroup(v)
	case actionSetQueue:
		return SetQueue(v)
	case actionPushVLAN:
		return Action{kind: KindPushVLAN, n: uint16(v >> 16)}
	case actionPopVLAN:
		return PopVLAN()
	case actionDecTTL:
		return DecTTL()
	case actionSetField:
		return parseSetField(body)
	case actionExperimenter:
		if v == experimenterNicira && len(raw) >= 16 {
			return parseNicira(uint16At(raw, 8), raw)
		}
	}
	return Action{}
}

// uint16At is zero beyond the end: readAction finds out.
func uint16At(s string, at int) uint16 {
	if len(s) < at+2 {
		return 0
	}
	return uint16(s[at])<<8 | uint16(s[at+1])
}

func parseSetField(body string) Action {
	e, ok := readTLV(body)
	if !ok || e.field == 0 || e.field == CtState { // no action writes ct_state, and its text is of a match
		return Action{}
	}
	return Action{kind: KindSetField, field: e.field, value: e.value, mask: e.mask}
}

func parseNicira(subtype uint16, raw string) Action {
	a := Action{}
	switch subtype {
	case nxLoad, nxOutputReg:
		if len(raw) < 24 {
			return a
		}
		a = Action{kind: KindLoad, value: valueOf(raw[16:24])}
		if subtype == nxOutputReg {
			a = Action{kind: KindOutputReg, n: uint16At(raw, 16)}
		}
		a.off, a.bits = uint16At(raw, 10)>>6, uint16At(raw, 10)&0x3f+1
		a.field = headerField(raw[12:])
	case nxMove:
		if len(raw) < 24 {
			return a
		}
		a = Action{kind: KindMove, bits: uint16At(raw, 10), srcOff: uint16At(raw, 12), off: uint16At(raw, 14)}
		a.src, a.field = headerField(raw[16:]), headerField(raw[20:])
	case nxCheckLarger:
		if len(raw) < 24 {
			return a
		}
		return CheckPktLarger(uint16At(raw, 10), headerField(raw[14:]), uint(uint16At(raw, 12)))
	case nxLoad2:
		return parseSetField(raw[10:])
	case nxResubmitTable:
		return Action{kind: KindResubmit, id: uint32(uint16At(raw, 10)), table: raw[12]}
	case nxConjunction:
		return Conjunction(uint32(valueOf(raw[12:16]).Lo), raw[10]+1, raw[11])
	case nxCTClear:
		return CTClear()
	case nxClone:
		if checkActions([]byte(raw[16:])) != nil {
			return a
		}
		return Action{kind: KindClone, nested: readActions(raw[16:])}
	case nxNAT:
		return parseNAT(raw)
	case nxCT:
		return parseCT(raw)
	}
	return a
}

// headerField is the field that a header in a move, load or output names; 0 if
// it has no name.
func headerField(s string) Field {
	e, _, ok := readTLVHeader(s)
	if !ok || e.masked {
		return 0
	}
	return e.field
}

func parseCT(raw string) Action {
	if len(raw) < 24 || checkActions([]byte(raw[24:])) != nil {
		return Action{}
	}
	flags := uint16At(raw, 10)
	c := &CTSpec{Commit: flags&ctCommit != 0, Force: flags&ctForce != 0, Table: raw[18], ALG: uint16At(raw, 22)}
	a := Action{kind: KindCT, ct: c, table: c.Table}
	if zone := uint16At(raw, 16); raw[12:16] == "\x00\x00\x00\x00" {
		c.Zone = zone
	} else {
		a.field, a.off, a.bits = headerField(raw[12:16]), zone>>6, zone&0x3f+1
		c.ZoneField = a.field
	}
	c.Nested = readActions(raw[24:])
	if len(c.Nested) > 0 && c.Nested[0].kind == KindNAT {
		c.NAT, c.Nested = c.Nested[0].nat, c.Nested[1:]
	}
	return a
}

func parseNAT(raw string) Action {
	flags, has, rest := uint16At(raw, 12), uint16At(raw, 14), raw[16:]
	n := &NAT{
		Src: flags&natSrc != 0, Dst: flags&natDst != 0,
		Persistent: flags&natPersistent != 0, Hash: flags&natHash != 0, Random: flags&natRandom != 0,
	}
	take := func(bit uint16, size int) string {
		if has&bit == 0 || len(rest) < size {
			return ""
		}
		s := rest[:size]
		rest = rest[size:]
		return s
	}
	address := func(has4, has6 uint16) netip.Addr {
		a, ok := netip.AddrFromSlice([]byte(take(has4, 4)))
		if !ok {
			a, _ = netip.AddrFromSlice([]byte(take(has6, 16)))
		}
		return a
	}
	n.First = address(natHasIPv4First, natHasIPv6First)
	n.Last = address(natHasIPv4Last, natHasIPv6Last)
	n.FirstPort = uint16At(take(natHasFirstPort, 2), 0)
	n.LastPort = uint16At(take(natHasLastPort, 2), 0)
	return Action{kind: KindNAT, nat: n}
}
