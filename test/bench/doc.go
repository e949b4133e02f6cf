// Package bench measures Planck beside its peers and limits, in one run on one
// machine: `make bench`. Each file is one measurement; its rows go into the
// tables of docs/performance.md. What can be counted instead of timed is in the
// tests: they don't depend on the machine. More hypervisors than the machine
// holds are those of planck/test/fleet.
package bench
