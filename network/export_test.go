package network

// What tests from outside the package look at.
var (
	OnEach          = onEach
	CheckInvariants = checkInvariants
	SameView        = sameView
	Dump            = dump
	ClaimRows       = claimRows
	EndDepartures   = endDepartures
)
