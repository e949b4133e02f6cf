package pipeline

import (
	"planck/flows"
	"planck/verify"
)

// VerifyLayout is what the package verify must know of br-int.
var VerifyLayout = verify.Layout{
	PortSecurity: PortSecurity.ID, Route: Route.ID, Dropped: Dropped.ID,
	Merge: map[uint8][]flows.Field{
		RouterAdmit.ID: {RegSource, RegSourceZone, RegGroup, RegRemoteGroup},
		L2Lookup.ID:    {RegSource, RegMTU, flows.InPort},
		Qos.ID:         {RegFlags},
	},
	Refused: func(f *flows.Flow) bool {
		reason, ok := ReasonOf(f)
		return ok && reason == DropEgressRules
	},
}
