package network

import "fmt"

// Class says what sort of failure an Error is; the API maps it to a status code.
type Class int

// The classes of errors.
const (
	Invalid      Class = iota + 1 // 400
	Forbidden                     // 403
	NotFound                      // 404
	Conflict                      // 409
	Precondition                  // 412
	Unavailable                   // 503: the database did not take it; nothing was changed, unless the message says that this is not known
)

// Error is a refusal of the model, with the type name that Neutron uses for it
// (for example "IpAddressAlreadyAllocated").
type Error struct {
	Class   Class
	Type    string
	Message string
}

// Error implements error.
func (e *Error) Error() string { return e.Message }

// Errorf makes an Error.
func Errorf(class Class, typ, format string, args ...any) *Error {
	return &Error{Class: class, Type: typ, Message: fmt.Sprintf(format, args...)}
}
