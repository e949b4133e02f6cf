package main

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"planck/cluster"
	"planck/network"
)

// stopTime is how long planck db restore waits for members that end.
const stopTime = 3 * time.Second

// dbTool is a subcommand of planck db at work.
type dbTool struct {
	dsn      string
	out, err io.Writer
	members  []cluster.Member // as last read
}

func dbCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "db",
		Short: "Look after the database: its version, migration, backup",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return usagef("planck db needs one of version, migrate, backup, restore")
		},
	}
	addConfigFlags(cmd.PersistentFlags(), "database", "state-dir")
	cmd.AddCommand(dbVersionCommand(), dbMigrateCommand(), dbBackupCommand(), dbRestoreCommand())
	return cmd
}

// runDB runs work on the database that planck serve would use.
func runDB(cmd *cobra.Command, work func(ctx context.Context, d *dbTool) error) error {
	dsn, warnings, err := databaseFromFlags(cmd.Flags())
	if err != nil {
		return &configError{err}
	}
	for _, w := range warnings {
		fmt.Fprintln(cmd.ErrOrStderr(), "planck: warning:", w)
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	return work(ctx, &dbTool{dsn: string(dsn), out: cmd.OutOrStdout(), err: cmd.ErrOrStderr()})
}

// shown is the address of the database without its password.
func (d *dbTool) shown() string {
	if u, err := url.Parse(d.dsn); err == nil {
		return u.Redacted()
	}
	scheme, _, _ := strings.Cut(d.dsn, "://")
	return scheme + "://…"
}

// living lists the members of the cluster that live.
func (d *dbTool) living(ctx context.Context, tx *sql.Tx) ([]network.Member, error) {
	var err error
	if d.members, err = cluster.Members(ctx, tx); err != nil {
		return nil, fmt.Errorf("members of the cluster: %w", err)
	}
	var alive []network.Member
	for _, m := range d.members {
		if m.Alive {
			alive = append(alive, network.Member{Name: m.Name, Version: m.Version, Schema: m.Schema})
		}
	}
	return alive, nil
}

// databaseView is what planck db version tells.
type databaseView struct {
	Database string `json:"database"`
	*network.DatabaseInfo
	Program programView      `json:"program"`
	Members []cluster.Member `json:"members"`
}

type programView struct {
	Version string `json:"version"`
	Schema  int    `json:"schema"`
}

func dbVersionCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the schema of the database, that of this program, and those of the members",
		Args:  cobra.NoArgs,
	}
	output := cmd.Flags().StringP("output", "o", "text", "text or json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *output != "text" && *output != "json" {
			return usagef("unknown output %q: text or json", *output)
		}
		return runDB(cmd, func(ctx context.Context, d *dbTool) error {
			info, err := network.Inspect(ctx, d.dsn, d.living)
			if err != nil {
				return err
			}
			v := databaseView{d.shown(), info, programView{version, network.SchemaVersion()}, d.members}
			if *output == "json" {
				return printJSON(d.out, v)
			}
			v.print(d.out)
			return nil
		})
	}
	return cmd
}

func (v databaseView) print(w io.Writer) {
	t := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	fmt.Fprintf(t, "database\t%s\n", v.Database)
	switch {
	case v.Schema == 0:
		fmt.Fprintln(t, "schema\tnone: the database is empty")
	case v.Schema == v.Contracted:
		fmt.Fprintf(t, "schema\t%d\n", v.Schema)
	default:
		fmt.Fprintf(t, "schema\t%d, also for programs that know %d\n", v.Schema, v.Contracted)
	}
	if v.Schema > 0 {
		fmt.Fprintf(t, "revision\t%d\n", v.Revision)
	}
	fmt.Fprintf(t, "program\tplanck %s, knows schema %d%s\n", v.Program.Version, v.Program.Schema, v.verdict())
	t.Flush()
	if len(v.Members) == 0 {
		return
	}
	fmt.Fprintln(w)
	fmt.Fprintln(t, "MEMBER\tSTATE\tVERSION\tSCHEMA")
	for _, m := range v.Members {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", m.Name, memberState(m), m.Version, schemaOf(m))
	}
	t.Flush()
}

// verdict is what this program can do with the database.
func (v databaseView) verdict() string {
	switch {
	case v.Contracted > v.Program.Schema:
		return ": too old for the database"
	case v.Schema > 0 && v.Schema < v.Program.Schema:
		return ": planck db migrate, or planck serve, expands the database"
	case v.Contracted < v.Schema && v.Schema == v.Program.Schema:
		return ": planck db migrate contracts the database when no older program runs"
	}
	return ""
}

func dbMigrateCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "migrate",
		Short: "Bring the database to the schema of this program; while older members run, only as far as they can go on",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runDB(cmd, func(ctx context.Context, d *dbTool) error {
				m, err := network.Migrate(ctx, d.dsn, d.living)
				if err != nil {
					return err
				}
				printMigration(d.out, m)
				return nil
			})
		},
	}
}

func printMigration(w io.Writer, m *network.Migration) {
	known := network.SchemaVersion()
	switch {
	case m.From.Schema == 0:
		fmt.Fprintf(w, "made with schema %d\n", m.To.Schema)
	case m.From.Schema < m.To.Schema:
		fmt.Fprintf(w, "expanded from schema %d to %d\n", m.From.Schema, m.To.Schema)
	case m.To.Schema > known:
		fmt.Fprintf(w, "nothing to do: it has schema %d, this program knows %d\n", m.To.Schema, known)
		return
	}
	if len(m.Older) > 0 {
		fmt.Fprintf(w, "not contracted to schema %d yet: older programs run\n", known)
		for _, o := range m.Older {
			fmt.Fprintf(w, "  %s\n", describeMember(o))
		}
		return
	}
	if m.From.Contracted < m.To.Contracted {
		fmt.Fprintf(w, "contracted to schema %d\n", m.To.Contracted)
		return
	}
	if m.From == m.To {
		fmt.Fprintf(w, "nothing to do: it has schema %d\n", m.To.Schema)
	}
}

func describeMember(m network.Member) string {
	if m.Version == "" {
		return m.Name
	}
	return fmt.Sprintf("%s (planck %s, schema %d)", m.Name, m.Version, m.Schema)
}

func dbBackupCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "backup FILE",
		Short: "Write the whole model as it is now, also while controllers run; - is standard output",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runDB(cmd, func(ctx context.Context, d *dbTool) error {
				var b *network.BackupInfo
				err := writeWhole(args[0], d.out, func(w io.Writer) (err error) {
					b, err = network.WriteBackup(ctx, d.dsn, version, w)
					return err
				})
				if err != nil {
					return err
				}
				printBackup(d.err, "saved", b)
				return nil
			})
		},
	}
}

// writeWhole writes a file that is there whole or, if something fails, as it was.
func writeWhole(name string, out io.Writer, write func(io.Writer) error) (err error) {
	if name == "-" {
		return write(out)
	}
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if err := errors.Join(write(f), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

func printBackup(w io.Writer, what string, b *network.BackupInfo) {
	fmt.Fprintf(w, "%s revision %d of %s, schema %d, by planck %s: %d objects, %d claims, %d changes, %d messages\n", what,
		b.Revision, b.At.Format(time.DateTime), b.Schema, b.Program, b.Rows["objects"], b.Rows["claims"], b.Rows["changes"], b.Rows["outbox"])
}

func dbRestoreCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Check a backup and put it into the database, which no controller uses; - is standard input",
		Args:  cobra.ExactArgs(1),
	}
	force := cmd.Flags().Bool("force", false, "replace what is in the database")
	accept := cmd.Flags().Bool("accept-faults", false, "restore a model that is whole but not consistent")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return runDB(cmd, func(ctx context.Context, d *dbTool) error {
			text, err := readWhole(args[0], cmd.InOrStdin())
			if err != nil {
				return err
			}
			opt := network.RestoreOptions{Force: *force, AcceptFaults: *accept, Living: d.living}
			b, err := d.restore(ctx, text, opt)
			if err != nil {
				return err
			}
			printBackup(d.err, "restored", b)
			return nil
		})
	}
	return cmd
}

func readWhole(name string, in io.Reader) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(in)
	}
	return os.ReadFile(name)
}

// restore waits for members that were just stopped.
func (d *dbTool) restore(ctx context.Context, text []byte, opt network.RestoreOptions) (*network.BackupInfo, error) {
	for deadline := time.Now().Add(stopTime); ; {
		b, err := network.RestoreBackup(ctx, d.dsn, bytes.NewReader(text), opt)
		if !errors.Is(err, network.ErrInUse) || time.Now().After(deadline) {
			return b, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(100 * time.Millisecond):
		}
	}
}
