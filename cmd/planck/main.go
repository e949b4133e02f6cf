// Command planck is the SDN controller (planck serve) and its operator's tools.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"

	"github.com/spf13/cobra"
)

// version is set by the linker: -X main.version=….
var version = "dev"

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run does what a command line says and returns the exit code: 2 for a mistake
// in the command line or the configuration, 1 for all else that went wrong. Of
// planck diff it is as of diff: 1 for a difference, 2 for trouble. Of planck
// verify, 3 is a proof that lacks some bridges.
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
	root.AddCommand(serveCommand(), hostsCommand(), flowsCommand(), diffCommand(), changesCommand(), traceCommand(), verifyCommand(), pingCommand(), explainCommand(), clusterCommand(), dbCommand(), supportCommand(), pipelineDocCommand(), versionCommand())
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		return errors.New(ofGo.ReplaceAllString(err.Error(), ""))
	})
	root.SetArgs(words)
	root.SetOut(out)
	root.SetErr(errOut)
	err := root.Execute()
	if err == nil {
		return 0
	}
	if errors.Is(err, errDiffers) || errors.Is(err, errNotReached) || errors.Is(err, errRefuted) {
		return 1
	}
	fmt.Fprintln(errOut, "planck:", err)
	if errors.Is(err, errAssumed) {
		return 3
	}
	_, misuse := errors.AsType[*configError](err)
	_, unknown := errors.AsType[*notCompared](err)
	if misuse || unknown || !understood {
		return 2
	}
	return 1
}

// ofGo is what the libraries that read flags say in words of Go.
var ofGo = regexp.MustCompile(`strconv\.\w+: parsing "[^"]*": |time: `)

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		Run:   func(cmd *cobra.Command, _ []string) { fmt.Fprintln(cmd.OutOrStdout(), "planck", version) },
	}
}
