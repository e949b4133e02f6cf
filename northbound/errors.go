package northbound

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"planck/network"
)

// apiError is a refusal with a status that network.Class has no name for, or
// one that belongs to HTTP and not to the model.
type apiError struct {
	status  int
	typ     string // Neutron's type name
	message string
	allow   []string // for 405: the methods that the path knows
	// challenge is for 401, whose body has the form of keystonemiddleware's.
	challenge string
}

// Error implements error.
func (e *apiError) Error() string { return e.message }

func badRequest(format string, args ...any) error {
	return network.Errorf(network.Invalid, "HTTPBadRequest", format, args...)
}

// badResource is Neutron's BadRequest exception, which names what was bad.
func badResource(resource, format string, args ...any) error {
	return network.Errorf(network.Invalid, "BadRequest", "Bad %s request: %s.", resource, fmt.Sprintf(format, args...))
}

func invalidInput(format string, args ...any) error {
	return network.Errorf(network.Invalid, "InvalidInput", "Invalid input for operation: %s.", fmt.Sprintf(format, args...))
}

func notAuthorized(rule string) error {
	return network.Errorf(network.Forbidden, "PolicyNotAuthorized", "%s is disallowed by policy", rule)
}

func pathNotFound() error {
	return &apiError{status: http.StatusNotFound, typ: "HTTPNotFound", message: "The resource could not be found."}
}

func methodNotAllowed(allow []string) error {
	return &apiError{
		status:  http.StatusMethodNotAllowed,
		typ:     "HTTPMethodNotAllowed",
		message: "The server could not comply with the request since it is either malformed or otherwise incorrect.",
		allow:   allow,
	}
}

func bodyTooLarge(limit int64) error {
	return &apiError{
		status:  http.StatusRequestEntityTooLarge,
		typ:     "HTTPRequestEntityTooLarge",
		message: fmt.Sprintf("The request body is larger than %d bytes.", limit),
	}
}

var classStatus = map[network.Class]int{
	network.Invalid:      http.StatusBadRequest,
	network.Forbidden:    http.StatusForbidden,
	network.NotFound:     http.StatusNotFound,
	network.Conflict:     http.StatusConflict,
	network.Precondition: http.StatusPreconditionFailed,
	network.Unavailable:  http.StatusServiceUnavailable,
}

// asAPIError gives any error its form on the wire. Errors that nobody meant for
// a client become a 500 that says nothing about the inside.
func asAPIError(err error) *apiError {
	if e, ok := errors.AsType[*apiError](err); ok {
		return e
	}
	if e, ok := errors.AsType[*network.Error](err); ok {
		if status, ok := classStatus[e.Class]; ok {
			return &apiError{status: status, typ: e.Type, message: e.Message}
		}
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return &apiError{status: http.StatusServiceUnavailable, typ: "ServiceUnavailable", message: "The service is unavailable."}
	}
	return &apiError{
		status:  http.StatusInternalServerError,
		typ:     "HTTPInternalServerError",
		message: "Request Failed: internal server error while processing your request.",
	}
}

func (e *apiError) body() []byte {
	if e.challenge != "" {
		b := fmt.Appendf(nil, `{"error": {"code": %d, "title": `, e.status)
		b = appendString(append(appendString(b, e.typ), `, "message": `...), e.message)
		return append(b, "}}"...)
	}
	b := append([]byte(nil), `{"NeutronError": {"type": `...)
	b = appendString(b, e.typ)
	b = append(b, `, "message": `...)
	b = appendString(b, e.message)
	return append(b, `, "detail": ""}}`...)
}

func (e *apiError) writeHeaders(h http.Header) {
	if e.allow != nil {
		h.Set("Allow", strings.Join(e.allow, ", "))
	}
	if e.challenge != "" {
		h.Set("WWW-Authenticate", e.challenge)
	}
}
