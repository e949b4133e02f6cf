package pipeline

// Cookie is the cookie of a flow of ours:
//
//	[63:48] 0x504C ("PL")   [47:40] feature   [39:32] flags   [31:0] object
//
// The object is the small id (Key) of the network, port or host that the flow
// stands for; the feature tells of which kind it is.
type Cookie uint64

const cookieMagic = 0x504C

// Flags of a cookie.
const (
	// FlagPermitted marks a flow that a switch may have but need not: a cached reply.
	FlagPermitted uint8 = 1 << iota
	// FlagPuntDrop marks a flow that silences a port which punts too much; it expires by itself.
	FlagPuntDrop
	// FlagNetwork says that the object is a network.
	FlagNetwork
	// FlagHost says that the object is a host.
	FlagHost
	// FlagRouter says that the object is a router. With none of the three, it is
	// a port; object 0 is none.
	FlagRouter
)

// Flags of flows of security groups.
const (
	// FlagSecurityGroup says that the object is a security group.
	FlagSecurityGroup uint8 = 1 << 6
	// FlagSecurityGroupRule says that the object is a rule of a security group.
	FlagSecurityGroupRule uint8 = 1 << 7
)

// Shared reports whether the flow stands for a security group or a rule, and so
// for all ports on its host that have the group.
func (c Cookie) Shared() bool { return c.Flags()&(FlagSecurityGroup|FlagSecurityGroupRule) != 0 }

// MakeCookie builds a cookie.
func MakeCookie(feature FeatureID, flags uint8, object uint32) Cookie {
	return Cookie(cookieMagic<<48 | uint64(feature)<<40 | uint64(flags)<<32 | uint64(object))
}

// Ours reports whether the cookie has Planck's magic.
func (c Cookie) Ours() bool { return c>>48 == cookieMagic }

// Feature is the feature that made the flow.
func (c Cookie) Feature() FeatureID { return FeatureID(c >> 40) }

// Flags of the flow.
func (c Cookie) Flags() uint8 { return uint8(c >> 32) }

// Object is the Key of the resource that the flow stands for, 0 for none.
func (c Cookie) Object() uint32 { return uint32(c) }
