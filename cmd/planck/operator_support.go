package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
)

func supportCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "support-bundle",
		Short: "Collect what helps to find a fault into one file, without secrets",
		Long: `Collect what helps to find a fault into a tar.gz: version, configuration without secrets, hosts,
cluster, differences and flows of connected hosts, metrics, the end of the log, goroutines, how
many objects the model has, and what the other members of a cluster say of themselves. Names, addresses and MACs of ports are in flows.`,
		Args: cobra.NoArgs,
	}
	client := operatorFlags(cmd)
	client.patience = downloadTime
	output := cmd.Flags().StringP("output", "o", "", "the file, - for standard output (planck-support-TIME.tar.gz)")
	hosts := cmd.Flags().StringArray("host", nil, "only the flows of this host; may be repeated")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *output == "-" {
			return client.download(cmd.Context(), "support-bundle", url.Values{"host": *hosts}, cmd.OutOrStdout())
		}
		file := *output
		if file == "" {
			file = "planck-support-" + time.Now().UTC().Format("20060102T150405Z") + ".tar.gz"
		}
		size, err := saveTo(file, func(w io.Writer) error {
			return client.download(cmd.Context(), "support-bundle", url.Values{"host": *hosts}, w)
		})
		if err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s, %d bytes\n", file, size)
		return nil
	}
	return cmd
}

// saveTo writes a file that is there as a whole or not at all.
func saveTo(name string, write func(io.Writer) error) (size int64, err error) {
	f, err := os.CreateTemp(filepath.Dir(name), ".planck-*")
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name()) // gone already when all went well
	defer f.Close()
	if err := write(f); err != nil {
		return 0, err
	}
	if size, err = f.Seek(0, io.SeekCurrent); err != nil {
		return 0, err
	}
	if err := f.Close(); err != nil {
		return 0, err
	}
	return size, os.Rename(f.Name(), name)
}

// downloadTime is longer than the controller takes for a bundle.
const downloadTime = 3 * time.Minute

// download copies an answer as it comes.
func (c *operatorClient) download(ctx context.Context, path string, query url.Values, w io.Writer) error {
	resp, err := c.send(ctx, http.MethodGet, path, query, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(w, resp.Body); err != nil {
		return fmt.Errorf("the bundle is not whole: %w", err)
	}
	return nil
}
