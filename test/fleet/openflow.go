package fleet

import (
	"bytes"
	"io"
	"net"
	"slices"

	"planck/flows"
)

// ofSession is a connection of a bridge to a controller.
type ofSession struct {
	b       *bridge
	out     *outbox
	role    uint32
	bundles map[uint32][][]byte
}

func (b *bridge) serve(l *link, conn net.Conn) {
	s := &ofSession{b: b, out: &outbox{conn: conn}, role: flows.RoleEqual, bundles: map[uint32][][]byte{}}
	l.onSilence(func() { s.out.send(flows.AppendEchoRequest(nil, 0, nil)) })
	s.out.send(flows.AppendHello(nil, 1))
	b.mu.Lock()
	b.sessions = append(b.sessions, s)
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.sessions = slices.DeleteFunc(b.sessions, func(o *ofSession) bool { return o == s })
	}()
	in := reader{conn: conn}
	for {
		m, err := in.next()
		if err != nil {
			return
		}
		l.hear()
		l.up.Store(true)
		s.handle(m)
	}
}

// reader reads messages with a buffer that is small while there is little to read.
type reader struct {
	conn       net.Conn
	buf        []byte
	begin, end int
}

const (
	smallBuffer = 512
	largeBuffer = 64 << 10
)

// next is a message, valid until the next call.
func (r *reader) next() ([]byte, error) {
	for {
		if have := r.buf[r.begin:r.end]; len(have) >= headerSize {
			n := int(be.Uint16(have[2:]))
			if n < headerSize {
				return nil, io.ErrUnexpectedEOF
			}
			if len(have) >= n {
				r.begin += n
				return have[:n], nil
			}
		}
		if err := r.fill(); err != nil {
			return nil, err
		}
	}
}

func (r *reader) fill() error {
	have := r.buf[r.begin:r.end]
	switch {
	case len(have) == 0 && r.end < len(r.buf) || r.buf == nil:
		r.resize(smallBuffer) // the last read took all there was
	case r.begin == 0 && r.end == len(r.buf), r.end == len(r.buf) && len(r.buf) == smallBuffer:
		r.resize(largeBuffer)
	default:
		copy(r.buf, have)
	}
	r.begin, r.end = 0, len(have)
	n, err := r.conn.Read(r.buf[r.end:])
	r.end += n
	if n > 0 {
		return nil
	}
	return err
}

func (r *reader) resize(size int) {
	if len(r.buf) == size {
		copy(r.buf, r.buf[r.begin:r.end])
		return
	}
	next := make([]byte, size)
	copy(next, r.buf[r.begin:r.end])
	r.buf = next
}

// message begins one with a header; finish writes its length.
func message(typ uint8, xid uint32, size int) []byte {
	return be.AppendUint32(append(make([]byte, 0, headerSize+size), flows.Version, typ, 0, 0), xid)
}

func finish(b []byte) []byte {
	be.PutUint16(b[2:], uint16(len(b)))
	return b
}

func (s *ofSession) refuse(m []byte, why *refusal) {
	b := message(flows.TypeError, be.Uint32(m[4:]), 4+64)
	b = be.AppendUint16(be.AppendUint16(b, why.kind), why.code)
	s.out.send(finish(append(b, m[:min(len(m), 64)]...)))
}

// refuseBundle is an error of the ONF's bundle extension.
func (s *ofSession) refuseBundle(m []byte, code uint16) {
	b := message(flows.TypeError, be.Uint32(m[4:]), 8+64)
	b = be.AppendUint32(be.AppendUint16(be.AppendUint16(b, 0xffff), code), onfExperiment)
	s.out.send(finish(append(b, m[:min(len(m), 64)]...)))
}

func (s *ofSession) handle(m []byte) {
	xid, body := be.Uint32(m[4:]), m[headerSize:]
	b := s.b
	b.mu.Lock()
	defer b.mu.Unlock()
	var problem *refusal
	switch typ := m[1]; typ {
	case flows.TypeHello, flows.TypeError, flows.TypeEchoReply, flows.TypeSetConfig:
	case flows.TypeEchoRequest:
		s.out.send(flows.AppendEchoReply(nil, xid, body))
	case flows.TypeFeaturesRequest:
		r := be.AppendUint64(message(flows.TypeFeaturesReply, xid, 24), b.dpid)
		s.out.send(finish(append(r, 0, 0, 0, 0, 254, 0, 0, 0, 0, 0, 0, 0x4f, 0, 0, 0, 0)))
	case flows.TypeBarrierRequest:
		s.out.send(finish(message(flows.TypeBarrierReply, xid, 0)))
	case flows.TypeRoleRequest:
		problem = s.askedRole(xid, body)
	case flows.TypeMultipartRequest:
		problem = s.multipart(xid, body)
	case flows.TypePacketOut:
		if problem = s.mayWrite(); problem == nil {
			problem = b.packetOut(body)
		}
	case flows.TypeFlowMod, flows.TypeGroupMod, flows.TypeMeterMod:
		if problem = s.mayWrite(); problem == nil {
			_, problem = b.modify(typ, body)
		}
	case flows.TypeExperimenter:
		problem = s.experimenter(m)
	default:
		problem = badType
	}
	if problem != nil {
		s.refuse(m, problem)
	}
}

func (s *ofSession) mayWrite() *refusal {
	if s.role == flows.RoleSlave {
		return isSlave
	}
	return nil
}

func (b *bridge) modify(typ uint8, body []byte) (undo, *refusal) {
	switch typ {
	case flows.TypeFlowMod:
		return b.flowMod(body)
	case flows.TypeGroupMod:
		return b.groupMod(body)
	}
	return nil, b.meterMod(body)
}

// askedRole is a role request: a master makes the one before it a slave.
func (s *ofSession) askedRole(xid uint32, body []byte) *refusal {
	if len(body) != 16 {
		return badLength
	}
	b := s.b
	role, generation := be.Uint32(body), be.Uint64(body[8:])
	switch role {
	case flows.RoleMaster, flows.RoleSlave:
		if b.known && int64(generation-b.generation) < 0 {
			return staleRole
		}
		b.generation, b.known = generation, true
		if role == flows.RoleMaster {
			for _, o := range b.sessions {
				if o != s && o.role == flows.RoleMaster {
					o.role = flows.RoleSlave
					o.demoted(generation)
				}
			}
		}
		s.role = role
	case flows.RoleEqual:
		s.role = role
	case flows.RoleNoChange:
	default:
		return badRole
	}
	r := be.AppendUint32(message(flows.TypeRoleReply, xid, 16), s.role)
	generation = b.generation
	if !b.known {
		generation = ^uint64(0)
	}
	s.out.send(finish(be.AppendUint64(append(r, 0, 0, 0, 0), generation)))
	return nil
}

// demoted tells a master that it is one no more.
func (s *ofSession) demoted(generation uint64) {
	const roleStatus, masterRequest = 1911, 0
	m := be.AppendUint32(message(flows.TypeExperimenter, 0, 24), onfExperiment)
	m = be.AppendUint32(be.AppendUint32(m, roleStatus), s.role)
	s.out.send(finish(be.AppendUint64(append(m, masterRequest, 0, 0, 0), generation)))
}

// experimenter is a bundle message, or one of Nicira's, which is taken as done.
func (s *ofSession) experimenter(m []byte) *refusal {
	if len(m) < headerSize+8 {
		return badLength
	}
	if be.Uint32(m[8:]) != onfExperiment || len(m) < headerSize+16 {
		return s.mayWrite()
	}
	if problem := s.mayWrite(); problem != nil {
		return problem
	}
	if be.Uint32(m[12:]) == 2301 {
		s.bundleAdd(m)
	} else {
		s.bundleControl(m)
	}
	return nil
}

// Codes of errors about bundles.
const (
	bundleBadID  = 2302
	bundleExists = 2303
	bundleFailed = 2313
)

func (s *ofSession) bundleAdd(m []byte) {
	id := be.Uint32(m[16:])
	if len(m) < 24+headerSize {
		s.refuse(m, badLength)
		return
	}
	if _, open := s.bundles[id]; !open {
		s.bundles[id] = nil // Open vSwitch opens it then
	}
	s.bundles[id] = append(s.bundles[id], bytes.Clone(m[24:]))
}

func (s *ofSession) bundleControl(m []byte) {
	id, typ := be.Uint32(m[16:]), be.Uint16(m[20:])
	_, open := s.bundles[id]
	switch {
	case typ == flows.BundleOpen && open:
		delete(s.bundles, id)
		s.refuseBundle(m, bundleExists)
		return
	case typ != flows.BundleOpen && !open:
		s.refuseBundle(m, bundleBadID)
		return
	case typ == flows.BundleOpen:
		s.bundles[id] = nil
	case typ == flows.BundleCommit:
		list := s.bundles[id]
		delete(s.bundles, id)
		if !s.commit(list) {
			s.refuseBundle(m, bundleFailed)
			return
		}
	case typ == flows.BundleDiscard:
		delete(s.bundles, id)
	}
	r := be.AppendUint32(message(flows.TypeExperimenter, be.Uint32(m[4:]), 16), onfExperiment)
	r = be.AppendUint32(be.AppendUint32(r, 2300), id)
	s.out.send(finish(be.AppendUint16(be.AppendUint16(r, typ+1), 0)))
}

// commit does all messages of a bundle or none.
func (s *ofSession) commit(list [][]byte) bool {
	var done []undo
	for _, m := range list {
		back, problem := s.b.modify(m[1], m[headerSize:])
		if problem == nil {
			done = append(done, back)
			continue
		}
		s.refuse(m, problem)
		for _, back := range slices.Backward(done) {
			back()
		}
		return false
	}
	return true
}

func (s *ofSession) multipart(xid uint32, body []byte) *refusal {
	if len(body) < 8 {
		return badLength
	}
	typ := be.Uint16(body)
	parts := parts{out: s.out, xid: xid, typ: typ}
	switch typ {
	case flows.MultipartFlow:
		for _, text := range s.b.flows {
			parts.add(text)
		}
	case flows.MultipartGroupDesc:
		for _, text := range s.b.groups {
			parts.add(text)
		}
	case flows.MultipartMeterConfig:
		for _, text := range s.b.meters {
			parts.add(text)
		}
	default:
		return badMultipart
	}
	parts.finish()
	return nil
}

// parts is the reply to a multipart request.
type parts struct {
	out  *outbox
	xid  uint32
	typ  uint16
	part []byte
}

const largestPart = 60 << 10

func (p *parts) add(entry string) {
	if len(p.part)+len(entry) > largestPart {
		p.send(1)
	}
	if p.part == nil {
		p.begin()
	}
	p.part = append(p.part, entry...)
}

func (p *parts) begin() {
	p.part = be.AppendUint16(message(flows.TypeMultipartReply, p.xid, 4096), p.typ)
	p.part = append(p.part, 0, 0, 0, 0, 0, 0)
}

func (p *parts) send(flags uint16) {
	be.PutUint16(p.part[headerSize+2:], flags)
	p.out.send(finish(p.part))
	p.part = nil
}

func (p *parts) finish() {
	if p.part == nil {
		p.begin()
	}
	p.send(0)
}
