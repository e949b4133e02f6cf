package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"planck/test/lab"
)

func newCommand() *cobra.Command {
	var name string
	root := &cobra.Command{
		Use:           "planck-lab",
		Short:         "Virtual hypervisors, VMs and networks on one machine",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.PersistentFlags().StringVar(&name, "lab", lab.DefaultName, "which lab; several stand side by side")
	root.AddCommand(
		upCommand(&name), downCommand(&name), psCommand(&name), execCommand(&name),
		vmCommand(&name), plugCommand(&name), unplugCommand(&name), migrateCommand(&name), rmCommand(&name),
		physCommand(&name), dhcpCommand(&name),
	)
	return root
}

func upCommand(name *string) *cobra.Command {
	var opts lab.Options
	cmd := &cobra.Command{
		Use:   "up N",
		Short: "Make N hypervisors: host1, host2, …",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := strconv.Atoi(args[0])
			if err != nil {
				return fmt.Errorf("up %q: want the number of hosts", args[0])
			}
			opts.Name, opts.Hosts = *name, n
			l, err := lab.New(cmd.Context(), opts)
			if errors.Is(err, lab.ErrExists) {
				return fmt.Errorf("%w: take it down first with planck-lab down", err)
			}
			if err != nil {
				return err
			}
			return printStatus(cmd.OutOrStdout(), l.Status())
		},
	}
	cmd.Flags().StringArrayVar(&opts.Controllers, "controller", nil,
		`where the hosts' OVSDB dials, "tcp:HOST:6640"; HOST "controller" is the root namespace of this machine (repeatable)`)
	cmd.Flags().StringArrayVar(&opts.InBand, "in-band", nil,
		"a host whose only path to the controller is LOCAL of br-ex (repeatable)")
	cmd.Flags().StringArrayVar(&opts.ExtAddrs, "ext-address", nil,
		"address (CIDR) of ext on the physical network (repeatable; default 203.0.113.1/24 and 198.51.100.1/32)")
	return cmd
}

func downCommand(name *string) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Take the lab down, also after a crash",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if err := lab.Check(); err != nil {
				return err
			}
			if all {
				return lab.DownAll()
			}
			return lab.Down(*name)
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "all labs of this machine")
	return cmd
}

func psCommand(name *string) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "ps",
		Short: "Show what the lab consists of",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if format != "table" && format != "json" {
				return fmt.Errorf("output %q: want table or json", format)
			}
			l, err := open(*name)
			if err != nil {
				return err
			}
			if format == "table" {
				return printStatus(cmd.OutOrStdout(), l.Status())
			}
			enc := json.NewEncoder(cmd.OutOrStdout())
			enc.SetIndent("", "  ")
			return enc.Encode(l.Status())
		},
	}
	cmd.Flags().StringVarP(&format, "output", "o", "table", "table or json")
	return cmd
}

func printStatus(out io.Writer, s lab.Status) error {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintf(w, "NAME\tKIND\tADDRESS\tDETAILS\n")
	for _, n := range s.Nodes {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", n.Name, n.Kind, strings.Join(n.Addresses, " "), details(n))
	}
	fmt.Fprintf(w, "\nlab %s; hosts reach a controller on this machine at %s\n", s.Name, s.ControllerIP)
	return w.Flush()
}

func details(n lab.NodeStatus) string {
	switch n.Kind {
	case lab.KindHost:
		text := "tunnels from " + n.LocalIP
		if n.InBand {
			text += ", in-band"
		}
		return text + daemons(n)
	case lab.KindSwitch:
		return "physical network" + daemons(n)
	case lab.KindVM:
		return fmt.Sprintf("on %s, %s, %s, port %s", n.Host, n.Tap, n.Port.MAC, n.Port.ID)
	}
	if n.VLAN != 0 {
		return fmt.Sprintf("VLAN %d", n.VLAN)
	}
	return "untagged"
}

// daemons mentions those that do not run.
func daemons(n lab.NodeStatus) string {
	text := ""
	if n.OvsdbPID == 0 {
		text += ", ovsdb-server is dead"
	}
	if n.VswitchdPID == 0 {
		text += ", ovs-vswitchd is dead"
	}
	return text
}

func execCommand(name *string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "exec NAME [CMD…]",
		Short: "Run a program, or a shell, in a VM, host, physical host or ext",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := open(*name)
			if err != nil {
				return err
			}
			node, err := find(l, args[0])
			if err != nil {
				return err
			}
			return execIn(cmd.Context(), node, args[1:])
		},
	}
	// What follows NAME belongs to the program.
	cmd.Flags().SetInterspersed(false)
	return cmd
}

func vmCommand(name *string) *cobra.Command {
	var port lab.VMPort
	var api string
	cmd := &cobra.Command{
		Use:   "vm HOST NAME --port ID",
		Short: "Make a VM and plug it as Nova and os-vif do",
		Long:  "Make a VM and plug it as Nova and os-vif do. MAC, MTU and instance come from the port in the API, unless --mac is given.",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := open(*name)
			if err != nil {
				return err
			}
			if port.ID == "" {
				return errors.New("vm: --port is missing")
			}
			if port.MAC == "" {
				if port, err = lookUpPort(cmd.Context(), api, port); err != nil {
					return err
				}
			}
			_, err = l.AddVM(cmd.Context(), args[0], args[1], port)
			return err
		},
	}
	cmd.Flags().StringVar(&port.ID, "port", "", "the id of its port")
	cmd.Flags().StringVar(&port.MAC, "mac", "", "its MAC address; the API is not asked then")
	cmd.Flags().IntVar(&port.MTU, "mtu", 0, "its MTU (default the network's, with --mac 1500)")
	cmd.Flags().StringVar(&api, "api", cmp.Or(os.Getenv("OS_URL"), "http://127.0.0.1:9696"), "the network API, noauth (OS_URL)")
	return cmd
}

// onVM is a command about one VM, named by the first argument.
func onVM(name *string, use, short string, nargs int, fn func(*cobra.Command, *lab.VM, []string) error) *cobra.Command {
	return &cobra.Command{
		Use:   use,
		Short: short,
		Args:  cobra.ExactArgs(nargs),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := open(*name)
			if err != nil {
				return err
			}
			vm, err := findVM(l, args[0])
			if err != nil {
				return err
			}
			return fn(cmd, vm, args[1:])
		},
	}
}

func plugCommand(name *string) *cobra.Command {
	return onVM(name, "plug NAME", "Put an unplugged VM back into br-int of its host", 1,
		func(cmd *cobra.Command, vm *lab.VM, _ []string) error { return vm.Plug(cmd.Context()) })
}

func unplugCommand(name *string) *cobra.Command {
	return onVM(name, "unplug NAME", "Take a VM out of br-int of its host", 1,
		func(_ *cobra.Command, vm *lab.VM, _ []string) error { return vm.Unplug() })
}

func migrateCommand(name *string) *cobra.Command {
	return onVM(name, "migrate NAME HOST", "Move a VM to another host, live", 2,
		func(cmd *cobra.Command, vm *lab.VM, args []string) error { return vm.Migrate(cmd.Context(), args[0]) })
}

func dhcpCommand(name *string) *cobra.Command {
	return onVM(name, "dhcp VM", "Run udhcpc on a VM and print its lease", 1,
		func(cmd *cobra.Command, vm *lab.VM, _ []string) error {
			lease, err := vm.DHCP(cmd.Context())
			if err != nil {
				return err
			}
			return printLease(cmd.OutOrStdout(), lease)
		})
}

func printLease(out io.Writer, l lab.Lease) error {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintf(w, "address\t%s\nserver\t%s\nlease\t%s\nmtu\t%d\n", l.Addr, l.Server, l.Duration, l.MTU)
	for _, r := range l.Routes {
		fmt.Fprintf(w, "route\t%s via %s\n", r.Dst, r.Via)
	}
	if len(l.DNS) > 0 {
		fmt.Fprintf(w, "dns\t%s\n", joinAddrs(l.DNS))
	}
	if l.Hostname != "" {
		fmt.Fprintf(w, "hostname\t%s\n", l.Hostname)
	}
	if l.Domain != "" {
		fmt.Fprintf(w, "domain\t%s\n", l.Domain)
	}
	return w.Flush()
}

func joinAddrs(addrs []netip.Addr) string {
	words := make([]string, len(addrs))
	for i, a := range addrs {
		words[i] = a.String()
	}
	return strings.Join(words, " ")
}

func rmCommand(name *string) *cobra.Command {
	return &cobra.Command{
		Use:   "rm NAME",
		Short: "Destroy a VM, physical host or hypervisor",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := open(*name)
			if err != nil {
				return err
			}
			if _, err := find(l, args[0]); err != nil {
				return err
			}
			return l.Remove(cmd.Context(), args[0])
		},
	}
}

func physCommand(name *string) *cobra.Command {
	var opts lab.PhysOptions
	cmd := &cobra.Command{
		Use:   "phys NAME",
		Short: "Make a physical host on the physical network",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := open(*name)
			if err != nil {
				return err
			}
			_, err = l.AddPhys(cmd.Context(), args[0], opts)
			return err
		},
	}
	cmd.Flags().IntVar(&opts.VLAN, "vlan", 0, "the VLAN of its access port (default untagged)")
	cmd.Flags().StringArrayVar(&opts.Addrs, "ip", nil, "its address (CIDR; repeatable)")
	return cmd
}
