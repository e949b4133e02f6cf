// Command planck is the SDN controller (planck serve) and its operator's tools.
package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
)

// version is set by the linker: -X main.version=….
var version = "dev"

func main() {
	root := &cobra.Command{
		Use:           "planck",
		Short:         "SDN controller for OpenStack: OpenFlow to every Open vSwitch, Quantum v2.0 to its clients",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(serveCommand(), hostsCommand(), flowsCommand(), pipelineDocCommand(), versionCommand())
	err := root.Execute()
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, "planck:", err)
	var bad *configError
	if errors.As(err, &bad) {
		os.Exit(2)
	}
	os.Exit(1)
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		Run:   func(cmd *cobra.Command, _ []string) { fmt.Fprintln(cmd.OutOrStdout(), "planck", version) },
	}
}
