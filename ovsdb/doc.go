// Package ovsdb looks after hypervisors by way of their Open vSwitch
// databases. Switches dial in; for each, the package ensures the host contract
// (bridges, patch ports, tunnel ports, controller targets) and writes what it
// sees (bridges, OpenFlow port numbers, plugged interfaces) into the network
// model. Both are level-triggered: every change of the database leads to a
// look at all of it, and only the difference is written, so a host that is
// right gets no transaction.
//
// # Taking over a mapped bridge
//
// br-int and br-tun are Planck's. The bridges of external_ids:planck-bridge-mappings
// are the operator's, may carry the host's own address and flows, and may be
// the only way from the host to the controller. What Open vSwitch (2.12 to 3.1)
// does, found by trying it:
//
//   - The first Controller row of type primary flushes all flows of a bridge,
//     and so does a change of fail_mode while there is none.
//
//   - A Controller row of type service flushes nothing and leaves standalone
//     forwarding as it is, but opens an OpenFlow connection all the same.
//
//   - Changing the type of a row has no effect while its target stays: the
//     connection is known by the text of its target. A service row and the
//     primary row after it therefore need different texts for one address;
//     the port is written with a leading zero in the former.
//
//   - Hidden in-band flows, above all others, pass ARP, DHCP and TCP between
//     LOCAL and the targets of Controller and Manager rows. They survive a flush
//     and are there at once when a killed vswitchd is started again.
//
//   - They know IPv4 addresses only. With an IPv6 address or a name as target, a
//     bridge that forwards by itself is therefore left as it is.
//
// So a mapped bridge that has no controller yet comes under control in steps,
// each of which is read from the database and can be resumed by another
// controller:
//
//  1. A service row and the patch ports are added. Nothing else changes.
//  2. Options.ForeignFlows reads the flows over that connection. A switch that
//     can't reach the OpenFlow port stays here: it forwards as before.
//  3. One transaction puts the primary row (in-band) in place of the service
//     row, sets fail_mode, and keeps the flows in external_ids:planck-flows of
//     the bridge, so that a crash does not lose them.
//  4. When vswitchd has applied that (cur_cfg), Options.RestoreFlows puts the
//     flows back, together with Planck's, and external_ids:planck-flows goes.
//
// A bridge that another primary controller already controls is not flushed:
// our row is just added beside it. A bridge that did not exist is created under
// control. A bridge that leaves the mappings is given back: our rows go and
// fail_mode is what it was; Open vSwitch flushes its flows. Mappings or a tunnel
// address that can't be understood leave what was there before.
package ovsdb
