// Package controller talks OpenFlow 1.3 to the switches: sessions, the
// reconciler that keeps their flows equal to what the pipeline compiled, the
// dispatch of packet-ins to responders, and the status of ports.
//
// One goroutine follows the store and feeds the compiler; what it changes is
// marked dirty per bridge. One worker per connected bridge compares what is
// dirty with a mirror of what the switch has and sends the difference. Nothing
// else installs or removes a flow.
package controller
