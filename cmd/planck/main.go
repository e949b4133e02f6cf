// Command planck is the SDN controller (planck serve) and its operator's tools.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
)

// version is set by the linker: -X main.version=….
var version = "dev"

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run does what a command line says and returns the exit code: 2 for a mistake
// in the command line or the configuration, 1 for all else that went wrong.
func run(words []string, out, errOut io.Writer) int {
	understood := false
	root := &cobra.Command{
		Use:              "planck",
		Short:            "SDN controller for OpenStack: OpenFlow to every Open vSwitch, Quantum v2.0 to its clients",
		Version:          version,
		SilenceUsage:     true,
		SilenceErrors:    true,
		PersistentPreRun: func(*cobra.Command, []string) { understood = true },
	}
	root.SetVersionTemplate("planck {{.Version}}\n")
	root.AddCommand(serveCommand(), hostsCommand(), flowsCommand(), pipelineDocCommand(), versionCommand())
	root.SetArgs(words)
	root.SetOut(out)
	root.SetErr(errOut)
	err := root.Execute()
	if err == nil {
		return 0
	}
	fmt.Fprintln(errOut, "planck:", err)
	if _, bad := errors.AsType[*configError](err); bad || !understood {
		return 2
	}
	return 1
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		Run:   func(cmd *cobra.Command, _ []string) { fmt.Fprintln(cmd.OutOrStdout(), "planck", version) },
	}
}
