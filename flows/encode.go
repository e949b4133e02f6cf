package flows

// Version is that of OpenFlow 1.3 in every message.
const Version = 4

// Types of messages.
const (
	TypeHello            uint8 = 0
	TypeError            uint8 = 1
	TypeEchoRequest      uint8 = 2
	TypeEchoReply        uint8 = 3
	TypeExperimenter     uint8 = 4
	TypeFeaturesRequest  uint8 = 5
	TypeFeaturesReply    uint8 = 6
	TypeSetConfig        uint8 = 9
	TypePacketIn         uint8 = 10
	TypeFlowRemoved      uint8 = 11
	TypePortStatus       uint8 = 12
	TypePacketOut        uint8 = 13
	TypeFlowMod          uint8 = 14
	TypeGroupMod         uint8 = 15
	TypeMultipartRequest uint8 = 18
	TypeMultipartReply   uint8 = 19
	TypeBarrierRequest   uint8 = 20
	TypeBarrierReply     uint8 = 21
	TypeRoleRequest      uint8 = 24
	TypeRoleReply        uint8 = 25
	TypeMeterMod         uint8 = 29
)

// Commands of FLOW_MOD.
const (
	FlowAdd          uint8 = 0
	FlowModify       uint8 = 1
	FlowModifyStrict uint8 = 2
	FlowDelete       uint8 = 3
	FlowDeleteStrict uint8 = 4
)

// Commands of GROUP_MOD and METER_MOD.
const (
	CommandAdd    uint16 = 0
	CommandModify uint16 = 1
	CommandDelete uint16 = 2
)

// AllTables is every table, in FlowDelete and in requests.
const AllTables uint8 = 0xff

// AllGroups and AllMeters are every one of them, in CommandDelete.
const (
	AllGroups uint32 = 0xfffffffc
	AllMeters uint32 = 0xffffffff
)

// Types of multipart messages.
const (
	MultipartFlow        uint16 = 1
	MultipartTable       uint16 = 3
	MultipartGroupDesc   uint16 = 7
	MultipartMeterConfig uint16 = 10
	MultipartPortDesc    uint16 = 13
)

// Roles of a controller.
const (
	RoleNoChange uint32 = 0
	RoleEqual    uint32 = 1
	RoleMaster   uint32 = 2
	RoleSlave    uint32 = 3
)

// Types of the ONF's bundle control messages (experimenter 0x4f4e4600, type
// 2300). A reply's type is that of its request plus 1.
const (
	BundleOpen    uint16 = 0
	BundleClose   uint16 = 2
	BundleCommit  uint16 = 4
	BundleDiscard uint16 = 6
)

// Flags of a bundle, the same in all messages of it.
const (
	BundleAtomic  uint16 = 1
	BundleOrdered uint16 = 2
)

const (
	experimenterBundleControl = 2300
	experimenterBundleAdd     = 2301
)

// All Append functions add one message to b and return the longer slice, as the
// built-in append does. They allocate nothing if b has room.

func beginMessage(b []byte, typ uint8, xid uint32) []byte {
	return be.AppendUint32(append(b, Version, typ, 0, 0), xid)
}

// endMessage writes the length of the message that starts at start.
func endMessage(b []byte, start int) []byte {
	be.PutUint16(b[start+2:], uint16(len(b)-start))
	return b
}

// AppendHello says that we speak OpenFlow 1.3 and nothing else.
func AppendHello(b []byte, xid uint32) []byte {
	start := len(b)
	b = append(beginMessage(b, TypeHello, xid), 0, 1, 0, 8)
	return endMessage(be.AppendUint32(b, 1<<Version), start)
}

// AppendEchoRequest asks for a reply with the same data.
func AppendEchoRequest(b []byte, xid uint32, data []byte) []byte {
	return appendBody(b, TypeEchoRequest, xid, data)
}

// AppendEchoReply answers an echo request, with its data.
func AppendEchoReply(b []byte, xid uint32, data []byte) []byte {
	return appendBody(b, TypeEchoReply, xid, data)
}

// AppendFeaturesRequest asks for the datapath's id.
func AppendFeaturesRequest(b []byte, xid uint32) []byte {
	return appendBody(b, TypeFeaturesRequest, xid, nil)
}

// AppendBarrierRequest asks for a reply once all before it is done.
func AppendBarrierRequest(b []byte, xid uint32) []byte {
	return appendBody(b, TypeBarrierRequest, xid, nil)
}

func appendBody(b []byte, typ uint8, xid uint32, body []byte) []byte {
	start := len(b)
	return endMessage(append(beginMessage(b, typ, xid), body...), start)
}

// AppendSetConfig sets the handling of fragments (0: as they are) and how much of
// a packet that missed a table goes to the controller.
func AppendSetConfig(b []byte, xid uint32, flags, missSendLen uint16) []byte {
	start := len(b)
	b = be.AppendUint16(beginMessage(b, TypeSetConfig, xid), flags)
	return endMessage(be.AppendUint16(b, missSendLen), start)
}

// AppendRoleRequest asks for a role; the generation orders masters.
func AppendRoleRequest(b []byte, xid, role uint32, generation uint64) []byte {
	start := len(b)
	b = be.AppendUint32(beginMessage(b, TypeRoleRequest, xid), role)
	b = be.AppendUint64(append(b, 0, 0, 0, 0), generation)
	return endMessage(b, start)
}

// AppendCTFlushZone makes the switch forget all connections in a conntrack zone
// (Nicira extension NXT_CT_FLUSH_ZONE).
func AppendCTFlushZone(b []byte, xid uint32, zone uint16) []byte {
	start := len(b)
	b = be.AppendUint32(beginMessage(b, TypeExperimenter, xid), experimenterNicira)
	b = append(be.AppendUint32(b, nxtCTFlushZone), 0, 0, 0, 0, 0, 0)
	return endMessage(be.AppendUint16(b, zone), start)
}

// nxtCTFlushZone is the subtype of that message.
const nxtCTFlushZone = 29

// AppendFlowMod adds, modifies or deletes a flow. A delete takes no account of
// the cookie.
func AppendFlowMod(b []byte, xid uint32, command uint8, f *Flow) []byte {
	start := len(b)
	b = beginMessage(b, TypeFlowMod, xid)
	b = be.AppendUint64(b, f.Cookie)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0, f.Table, command)
	b = be.AppendUint16(b, f.IdleTimeout)
	b = be.AppendUint16(b, f.HardTimeout)
	b = be.AppendUint16(b, f.Priority)
	b = be.AppendUint32(b, noBuffer)
	b = be.AppendUint32(b, PortAny)
	b = be.AppendUint32(b, anyGroup)
	b = be.AppendUint16(b, f.Flags)
	b = append(b, 0, 0)
	b = appendMatch(b, f.Match)
	if command < FlowDelete {
		b = append(b, f.Instructions.raw...)
	}
	return endMessage(b, start)
}

const (
	noBuffer = 0xffffffff
	anyGroup = 0xffffffff
)

// Append adds the match to a message, with its header and padding.
func (m Match) Append(b []byte) []byte { return appendMatch(b, m) }

func appendMatch(b []byte, m Match) []byte {
	start := len(b)
	b = be.AppendUint16(append(b, 0, 1), uint16(4+len(m.oxm)))
	return pad8(append(b, m.oxm...), start)
}

// AppendGroupMod adds, modifies or deletes a group; a delete needs its ID only.
func AppendGroupMod(b []byte, xid uint32, command uint16, g *Group) []byte {
	start := len(b)
	b = be.AppendUint16(beginMessage(b, TypeGroupMod, xid), command)
	b = be.AppendUint32(append(b, g.Type, 0), g.ID)
	if command != CommandDelete {
		b = append(b, g.Buckets...)
	}
	return endMessage(b, start)
}

// AppendMeterMod adds, modifies or deletes a meter; a delete needs its ID only.
func AppendMeterMod(b []byte, xid uint32, command uint16, m *Meter) []byte {
	start := len(b)
	b = be.AppendUint16(beginMessage(b, TypeMeterMod, xid), command)
	b = be.AppendUint16(b, m.Flags)
	b = be.AppendUint32(b, m.ID)
	if command != CommandDelete {
		b = append(b, m.Bands...)
	}
	return endMessage(b, start)
}

// AppendPacketOut sends a packet through actions, encoded by ActionList, as if it
// came from inPort (PortController: from none). The packet and the actions must
// not be longer than 65,500 bytes.
func AppendPacketOut(b []byte, xid, inPort uint32, actions string, data []byte) []byte {
	start := len(b)
	b = be.AppendUint32(beginMessage(b, TypePacketOut, xid), noBuffer)
	b = be.AppendUint32(b, inPort)
	b = be.AppendUint16(b, uint16(len(actions)))
	b = append(b, 0, 0, 0, 0, 0, 0)
	b = append(b, actions...)
	return endMessage(append(b, data...), start)
}

// AppendMultipartRequest asks for all entries of a kind.
func AppendMultipartRequest(b []byte, xid uint32, typ uint16) []byte {
	if typ == MultipartFlow {
		return AppendFlowStatsRequest(b, xid, AllTables, 0, 0)
	}
	start := len(b)
	b = beginMultipart(b, xid, typ)
	if typ == MultipartMeterConfig {
		b = append(be.AppendUint32(b, AllMeters), 0, 0, 0, 0)
	}
	return endMessage(b, start)
}

// AppendFlowStatsRequest asks for the flows of a table or AllTables whose cookie
// has the bits of cookie where mask has ones.
func AppendFlowStatsRequest(b []byte, xid uint32, table uint8, cookie, mask uint64) []byte {
	start := len(b)
	b = append(beginMultipart(b, xid, MultipartFlow), table, 0, 0, 0)
	b = be.AppendUint32(b, PortAny)
	b = be.AppendUint32(b, anyGroup)
	b = append(b, 0, 0, 0, 0)
	b = be.AppendUint64(b, cookie)
	b = be.AppendUint64(b, mask)
	return endMessage(appendMatch(b, Match{}), start)
}

func beginMultipart(b []byte, xid uint32, typ uint16) []byte {
	b = be.AppendUint16(beginMessage(b, TypeMultipartRequest, xid), typ)
	return append(b, 0, 0, 0, 0, 0, 0)
}

// AppendBundleControl opens, closes, commits or discards a bundle.
func AppendBundleControl(b []byte, xid, bundle uint32, typ, flags uint16) []byte {
	start := len(b)
	b = beginBundle(b, xid, experimenterBundleControl, bundle)
	b = be.AppendUint16(b, typ)
	return endMessage(be.AppendUint16(b, flags), start)
}

// AppendBundleAdd adds a message to a bundle. Its xid should be the same.
func AppendBundleAdd(b []byte, xid, bundle uint32, flags uint16, message []byte) []byte {
	start := len(b)
	return endMessage(append(beginBundleAdd(b, xid, bundle, flags), message...), start)
}

// AppendBundleFlowMod is AppendFlowMod within a bundle.
func AppendBundleFlowMod(b []byte, xid, bundle uint32, flags uint16, command uint8, f *Flow) []byte {
	start := len(b)
	return endMessage(AppendFlowMod(beginBundleAdd(b, xid, bundle, flags), xid, command, f), start)
}

// AppendBundleGroupMod is AppendGroupMod within a bundle. Open vSwitch takes no
// METER_MOD in one.
func AppendBundleGroupMod(b []byte, xid, bundle uint32, flags, command uint16, g *Group) []byte {
	start := len(b)
	return endMessage(AppendGroupMod(beginBundleAdd(b, xid, bundle, flags), xid, command, g), start)
}

func beginBundleAdd(b []byte, xid, bundle uint32, flags uint16) []byte {
	b = beginBundle(b, xid, experimenterBundleAdd, bundle)
	return be.AppendUint16(append(b, 0, 0), flags)
}

func beginBundle(b []byte, xid, typ, bundle uint32) []byte {
	b = be.AppendUint32(beginMessage(b, TypeExperimenter, xid), experimenterONF)
	b = be.AppendUint32(b, typ)
	return be.AppendUint32(b, bundle)
}
